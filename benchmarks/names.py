"""The names of the workload, put down before the meter starts: as if it had known them for long."""

from typing import Final

import psycopg

from benchmarks.workload import ACCOUNTS, MODELS, POOL, TIERS

_ACCOUNTS: Final = """
INSERT INTO accounts SELECT 'acct-' || lpad(a::text, 6, '0'), 'acct-' || lpad(a::text, 6, '0'),
    now() - interval '40 days' FROM generate_series(0, %(accounts)s - 1) a;
INSERT INTO account_parents SELECT account_id, create_time, NULL FROM accounts
"""
# As a meter writes them: what was asked for is what served, online, nowhere in particular.
_DIMENSIONS: Final = """
INSERT INTO skus (model, served_model, tier, mode, region)
    SELECT m, m, t, 1, '' FROM unnest(%(models)s::text[]) m, unnest(%(tiers)s::text[]) t;
INSERT INTO dimensions (account_id, sku_id, pool)
    SELECT account_id, sku_id, %(pool)s FROM accounts, skus
"""


def put_down_accounts(url: str, *, accounts: int = ACCOUNTS) -> None:
    """Make so many accounts."""
    with psycopg.connect(url) as connection, psycopg.ClientCursor(connection) as cursor:
        cursor.execute(_ACCOUNTS, {"accounts": accounts})


def put_down_names(url: str, *, accounts: int = ACCOUNTS) -> None:
    """Make so many accounts, and a dimension of each with each model and tier.

    A key may bring so many new dimensions a minute, and each of them costs more than an event: both
    are of a fleet's first day, not of how fast it is recorded after that.
    """
    put_down_accounts(url, accounts=accounts)
    values = {"models": list(MODELS), "tiers": list(TIERS), "pool": POOL}
    with psycopg.connect(url) as connection, psycopg.ClientCursor(connection) as cursor:
        # All is there: the look at each reference would be most of the time.
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(_DIMENSIONS, values)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE accounts, account_parents, skus, dimensions")
