"""Roles on a real Postgres: each does what it is for, and neither what is the other's."""

import psycopg
import pytest
from psycopg import errors, sql
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from meter.runtime.engine import SERVICE_ROLE, DatabaseRole, make_engine
from meter.store.journal import JournalStore
from meter.store.rights import OWN_TABLES, READER, RIGHTS, TENANT, VERBS
from meter.store.usage import UsageStore
from tests.meter.store.recording import (
    follow,
    record,
)


def execute_as(engine: Engine, statement: str) -> None:
    """Run a statement in the engine's role."""
    with engine.begin() as connection:
        connection.execute(text(statement))


def relations(connection: psycopg.Connection[tuple[str]]) -> set[str]:
    """Return the tables and views that there are, parts of the journal under its name."""
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'v', 'p') AND NOT relispartition"
    ).fetchall()
    return {name for (name,) in found}


def test_rights__are_those_of_the_table(database_url: str) -> None:
    """Each role has on each table the rights that the table of rights has, and no others."""
    with psycopg.connect(database_url) as connection:
        tables = relations(connection)
        named = {name for held in RIGHTS.values() for name in held}
        assert tables - named == OWN_TABLES
        question = (
            "SELECT has_table_privilege(%(role)s, %(table)s, %(verb)s),"
            " has_any_column_privilege(%(role)s, %(table)s, 'UPDATE')"
        )
        for role, held in RIGHTS.items():
            for table in sorted(tables):
                letters = held.get(table, "")
                for letter, verb in {**VERBS, "t": "TRUNCATE"}.items():
                    values = {"role": role, "table": table, "verb": verb}
                    found = connection.execute(question, values).fetchone()
                    some = "w" in letters or "c" in letters
                    assert found == (letter in letters, some), (role, verb, table)


@pytest.mark.parametrize("role", [*DatabaseRole, READER, TENANT])
def test_rights__none_to_undo_or_to_make(database_url: str, role: str) -> None:
    """No role empties, drops or makes a table, nor takes more than it has."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        tables = relations(connection)
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        for table in sorted(tables):
            named = sql.Identifier(table)
            for statement in ("TRUNCATE {}", "DROP TABLE {}"):
                with pytest.raises((errors.InsufficientPrivilege, errors.WrongObjectType)):
                    connection.execute(sql.SQL(statement).format(named))
        for statement in (
            "CREATE TABLE mine (number integer)",
            "CREATE SCHEMA mine",
            "SELECT secret_hash FROM api_keys"
            if role != DatabaseRole.INGEST
            else "SELECT 1 FROM issued_invoices",
            "UPDATE quarantine SET payload = payload",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_role__of_older_servers_has_nothing_of_its_own(database_url: str) -> None:
    """The older servers' role can become either of its successors after it, and is none."""
    # A login that was granted it goes on.
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE old_login LOGIN PASSWORD 'x' IN ROLE tokenworks_service")
        try:
            connection.execute("SET SESSION AUTHORIZATION old_login")
            for role in (None, SERVICE_ROLE):
                if role is not None:
                    connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
                for table in ("journal", "issued_invoices", "api_keys"):
                    with pytest.raises(errors.InsufficientPrivilege):
                        connection.execute(f"SELECT 1 FROM {table}".encode())
            for each, table in ((DatabaseRole.INGEST, "api_keys"), (DatabaseRole.BILLING, "terms")):
                connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(each)))
                connection.execute(f"SELECT 1 FROM {table}".encode())
        finally:
            connection.execute("RESET SESSION AUTHORIZATION")
            connection.execute("RESET ROLE")
            connection.execute("DROP ROLE old_login")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (DatabaseRole.INGEST, "INSERT INTO invoice_numbers VALUES ('NG', 2026, 7)"),
        (DatabaseRole.INGEST, "UPDATE terms SET version = version + 1"),
        (DatabaseRole.BILLING, "UPDATE usage SET input = 0"),
        (DatabaseRole.BILLING, "INSERT INTO cuts VALUES (1, now())"),
        (DatabaseRole.BILLING, "UPDATE registry SET version = version + 1"),
        (DatabaseRole.BILLING, "SELECT detail FROM audit_entries"),
    ],
)
def test_engine__is_refused_what_is_the_others(
    database_url: str, role: DatabaseRole, statement: str
) -> None:
    """An engine acts in its role: what is the other's to do is refused."""
    engine = make_engine(database_url, pool_size=1, role=role)
    try:
        with pytest.raises(ProgrammingError) as failure:
            execute_as(engine, statement)
        assert isinstance(failure.value.orig, errors.InsufficientPrivilege)
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage SET input = input",
        "UPDATE counting SET position = position",
        "UPDATE quarantine SET state = state",
        "DELETE FROM event_claims",
    ],
)
def test_role__ingest_may_change_what_is_derived(engine: Engine, statement: str) -> None:
    """Sums, watermarks, decisions and old claims are the meter's to change."""
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
