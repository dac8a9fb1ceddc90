"""Logins that read: everything, or one account and what is below it."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors

from meter.domain.errors import NotFound, Refused
from meter.examination import grant_reader

_EDGE = "2026-10-15T00:00:00Z"


@pytest.fixture
def customers(database_url: str) -> str:
    """Acme with a team that moves to beta amid October, an invoice of each, and usage each day."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for account, parent in (("acme", None), ("beta", None), ("team", "acme"), ("sub", "team")):
            connection.execute(
                "INSERT INTO accounts VALUES (%s, %s, '2026-01-01Z')", (account,) * 2
            )
            connection.execute(
                "INSERT INTO account_parents VALUES (%s, '2026-01-01Z', %s)", (account, parent)
            )
        connection.execute("INSERT INTO account_parents VALUES ('team', %s, 'beta')", (_EDGE,))
        connection.execute(
            "INSERT INTO skus (model, served_model, tier, mode, region)"
            " VALUES ('m', '', 'high', 1, '')"
        )
        connection.execute(
            "INSERT INTO usage (account_id, interval_start, sku_id, band, finish_class, cut_id,"
            " input, cache_read, cache_write_5m, cache_write_30m, cache_write_1h, cache_write_12h,"
            " output, reasoning, audio_input, audio_cache_read, audio_output, image_input,"
            " image_cache_read, image_output, video_input, video_output, request_count,"
            " delivered_output_count, estimated_count)"
            " SELECT account_id, at, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,"
            " 1, 0, 0 FROM accounts CROSS JOIN"
            " (VALUES ('2026-10-01T00:00Z'::timestamptz), ('2026-10-14T23:45Z'),"
            " ('2026-10-15T00:00Z')) AS days (at)"
        )
    return database_url


@contextmanager
def login(database_url: str, name: str) -> Iterator[str]:
    """A login for the time of the block: its URL."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'".encode())
    try:
        yield "postgresql://" + name + ":x@" + database_url.split("@", 1)[1]
    finally:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def usage_of(url: str) -> list[tuple[object, ...]]:
    """Return account, day and tokens of all that a login sees, by the name that finance uses."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT account_id, day::text, input FROM usage_daily ORDER BY 1, 2"
        ).fetchall()


def test_grant__of_an_account(customers: str) -> None:
    """A customer's login sees its subtree, of an account that moved the time that it was there."""
    with login(customers, "acme_bi") as url:
        grant_reader(customers, "acme_bi", account_id="acme")
        mine = [(it, day, 1) for it in ("acme",) for day in ("2026-10-01", "2026-10-14")]
        moved = [(it, d, 1) for it in ("sub", "team") for d in ("2026-10-01", "2026-10-14")]
        assert usage_of(url) == [*mine, ("acme", "2026-10-15", 1), *moved]
        grant_reader(customers, "acme_bi", account_id="beta")
        assert [row[:2] for row in usage_of(url) if row[0] != "beta"] == [
            ("sub", "2026-10-15"),
            ("team", "2026-10-15"),
        ]


def test_grant__nothing_beyond_the_views(customers: str) -> None:
    """A customer's login reads no table, no view of everything, and writes nothing."""
    with login(customers, "acme_bi") as url:
        grant_reader(customers, "acme_bi", account_id="acme")
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in (
                "SELECT 1 FROM public.usage_daily",
                "SELECT 1 FROM public.usage",
                "SELECT 1 FROM public.reader_logins",
                "SELECT 1 FROM tenant.own",
                "UPDATE public.reader_logins SET account_id = 'beta'",
                "SET ROLE tokenworks_reader",
                "SET SESSION AUTHORIZATION DEFAULT; SET ROLE tokenworks_ingest",
            ):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
            connection.execute("SET ROLE tokenworks_tenant")
            assert connection.execute("SELECT count(*) FROM usage_daily").fetchone() == (7,)


def test_grant__a_login_that_nobody_named(customers: str) -> None:
    """Membership alone shows no row."""
    with login(customers, "stray") as url:
        with psycopg.connect(customers, autocommit=True) as connection:
            connection.execute("GRANT tokenworks_tenant TO stray")
            connection.execute("INSERT INTO reader_logins VALUES ('another', 'acme')")
        with psycopg.connect(url) as connection:
            for view in ("usage_daily", "invoices", "invoice_lines", "accounts"):
                rows = connection.execute(f"SELECT * FROM tenant.{view}".encode()).fetchall()
                assert rows == []


def test_grant__of_everything(customers: str) -> None:
    """A login without an account sees all customers; it cannot be a customer's as well."""
    with login(customers, "finance") as url:
        grant_reader(customers, "finance", account_id=None)
        assert len(usage_of(url)) == 12
        with pytest.raises(Refused, match="sees more than an account"):
            grant_reader(customers, "finance", account_id="acme")


def test_grant__unknown(customers: str) -> None:
    """A login and an account must be there."""
    with pytest.raises(Refused, match="There is no login"):
        grant_reader(customers, "nobody", account_id=None)
    with login(customers, "acme_bi"), pytest.raises(NotFound):
        grant_reader(customers, "acme_bi", account_id="nobody")
