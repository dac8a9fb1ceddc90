"""The audit log on a real Postgres: rows are added and stay as they are, whoever asks."""

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import Engine

from meter.audit_log import Action, AuditQuery, Change
from meter.store.audit_log import AuditStore, ChangeLog
from tests.meter.plain_events import BEGIN_MS

CHANGE = Change(
    at_ms=BEGIN_MS,
    key_id="key_1",
    action=Action.ACCOUNT_CREATE,
    subject="acme",
    detail={"count": 3, "parts": [{"name": "é\n"}], "empty": ""},
)
ROLES = ("tokenworks_ingest", "tokenworks_billing", "tokenworks_reader", "tokenworks_tenant")


def write(engine: Engine, *changes: Change) -> None:
    """Write entries as the meter does."""
    with engine.begin() as connection:
        ChangeLog().write(connection, *changes)


def test_entries__are_what_was_written(engine: Engine) -> None:
    """What was written is read back, the newest first; nothing to write is nothing."""
    write(engine)
    write(engine, CHANGE, CHANGE)
    entries = AuditStore(engine).entries(AuditQuery())
    assert [it.change for it in entries] == [CHANGE, CHANGE]
    assert entries[0].entry_id > entries[1].entry_id


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET subject = subject",
        "DELETE FROM audit_entries",
        "TRUNCATE audit_entries",
        "ALTER TABLE audit_entries DISABLE TRIGGER ALL",
        "DROP TABLE audit_entries",
        "UPDATE audit_log SET subject = subject",
        "DELETE FROM audit_log",
    ],
)
def test_role__cannot_change_what_was_written(
    engine: Engine, database_url: str, role: str, statement: str
) -> None:
    """No role of Tokenworks changes or deletes an entry, by the table or by the view."""
    write(engine, CHANGE)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"SET ROLE {role}".encode())
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_role__service_gives_no_numbers(engine: Engine, database_url: str) -> None:
    """An entry's number is the database's: nobody slips one in between others."""
    del engine
    statement = (
        b"INSERT INTO audit_entries (entry_id, entry_time, key_id, action, subject, detail)"
        b" VALUES (1, now(), 'k', 'a.b', 's', '{}')"
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET ROLE tokenworks_billing")
        with pytest.raises(errors.GeneratedAlways):
            connection.execute(statement)


def test_role__reader_reads_the_view(engine: Engine, database_url: str) -> None:
    """The reader's role reads entries, and adds none."""
    write(engine, CHANGE)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET ROLE tokenworks_reader")
        question = "SELECT key_id, action, subject, detail->>'count' FROM audit_log"
        assert connection.execute(question).fetchall() == [("key_1", "account.create", "acme", "3")]
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(
                b"INSERT INTO audit_entries (entry_time, key_id, action, subject, detail)"
                b" VALUES (now(), 'k', 'a.b', 's', '{}')"
            )
