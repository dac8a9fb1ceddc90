"""Roles on a real Postgres: facts are append-only, readers see a view."""

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.store.recording import (
    follow,
    record,
)


def execute_as(engine: Engine, statement: str) -> None:
    """Run a statement in the service's role."""
    with engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        *(
            f"{verb} {table}{rest}"
            for table, column in [
                ("journal", "event_count"),
                ("cuts", "cut_id"),
                ("cut_positions", "position"),
                ("producer_gaps", "last_sequence"),
                ("corrections", "reason"),
                ("account_parents", "parent_id"),
                ("skus", "mode"),
                ("dimensions", "sku_id"),
            ]
            for verb, rest in [("DELETE FROM", ""), ("UPDATE", f" SET {column} = {column}")]
        ),
        *(f"DELETE FROM {table}" for table in ("usage", "counting", "accounts", "quarantine")),
        "UPDATE quarantine SET payload = payload",
        "TRUNCATE journal",
        "DROP TABLE journal",
        "INSERT INTO registry DEFAULT VALUES",
        "CREATE TABLE mine (number integer)",
    ],
)
def test_role__service_cannot_undo_facts(engine: Engine, statement: str) -> None:
    """The service's own role may not change or delete what was recorded."""
    with pytest.raises(ProgrammingError) as failure:
        execute_as(engine, statement)
    assert isinstance(failure.value.orig, errors.InsufficientPrivilege)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage SET input = input",
        "UPDATE counting SET position = position",
        "UPDATE quarantine SET state = state",
        "DELETE FROM event_claims",
    ],
)
def test_role__service_may_change_what_is_derived(engine: Engine, statement: str) -> None:
    """Sums, watermarks, decisions and old claims are the service's to change."""
    execute_as(engine, statement)


def test_role__reader_sees_daily_usage_and_nothing_else(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """The reader's role reads the view, with names and sums, and no table."""
    record(journal, 5, 7)
    follow(usage).count_once()
    with psycopg.connect(database_url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        connection.execute("SET ROLE tokenworks_reader")
        question = "SELECT day::text, account_id, handle, tier, mode, input FROM usage_daily"
        assert connection.execute(question).fetchall() == [
            ("2027-01-15", "acme", "acme", "high", "online", 12)
        ]
        assert len(tables) > 15
        for (table,) in tables:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(f"SELECT 1 FROM {table} LIMIT 1")
