"""One at a time issues for a contract: whoever does holds the row of its first period.

So a close, a correction and a void of one contract wait for each other, and see what the one before
has kept. The terms' row is held first and shared: a change of terms waits for all of them, and they
for it. Rows are locked in order: nobody waits in a circle.
"""

from collections.abc import Collection

from sqlalchemy import Connection, select, text

from billing.store.tables import terms

_FIRST = """
SELECT p.contract
FROM unnest(CAST(:contracts AS text[])) AS wanted (contract)
CROSS JOIN LATERAL (
    SELECT period_start FROM billing_periods f
    WHERE f.contract = wanted.contract COLLATE "C" ORDER BY period_start LIMIT 1
) first
JOIN billing_periods p
    ON p.contract = wanted.contract COLLATE "C" AND p.period_start = first.period_start
ORDER BY p.contract
FOR NO KEY UPDATE OF p
"""
# A close fills the tables that it asks, faster than statistics of them are made: by those they are
# empty, and each batch would walk through all that the batches before have issued.
BY_INDEX = text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true)"
)


def hold_terms(connection: Connection) -> int:
    """Hold the terms as they are until the transaction ends; return their version."""
    held = connection.execute(select(terms.c.version).with_for_update(read=True))
    return int(held.scalar_one())


def hold_contracts(
    connection: Connection, contracts: Collection[str], *, skip_locked: bool = False
) -> frozenset[str]:
    """Hold contracts that have a period, until the transaction ends; return those that it holds.

    Waits for whoever holds one, or (`skip_locked`) leaves it out. Call `hold_terms` before.
    """
    statement = text(_FIRST + " SKIP LOCKED" if skip_locked else _FIRST)
    connection.execute(BY_INDEX)
    found = connection.execute(statement, {"contracts": sorted(contracts)})
    return frozenset(found.scalars())
