"""What the database said, and what becomes of it: nobody's fault, or that of what was sent."""

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from meter.domain.errors import Reason, Unavailable
from meter.runtime.engine import make_engine, store_faults
from meter.runtime.store_fault import find_unavailable

AWAY = "The database is away; nothing was recorded. Send again."
WITHOUT_ROOM = "The database has no room left; nothing was recorded. Send again."
HELD_UP = "The database was held up; nothing was recorded. Send again."


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A pool of one connection."""
    engine = make_engine(database_url, pool_size=1, role=None)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("08006", AWAY),
        ("57P01", AWAY),
        ("57P02", AWAY),
        ("57P03", AWAY),
        ("53100", WITHOUT_ROOM),
        ("53200", WITHOUT_ROOM),
        ("53300", WITHOUT_ROOM),
        ("58030", WITHOUT_ROOM),
        ("40001", HELD_UP),
        ("40P01", HELD_UP),
        ("55P03", HELD_UP),
        ("57014", HELD_UP),
        ("54000", None),
        ("22003", None),
        ("23505", None),
        ("42P01", None),
    ],
)
def test_find_unavailable__by_code(code: str, said: str | None) -> None:
    """What passes by itself is told apart from what is wrong with what was sent."""
    kind = psycopg.errors.lookup(code)
    wrapped = OperationalError if issubclass(kind, psycopg.OperationalError) else ProgrammingError
    found = find_unavailable(wrapped("INSERT", None, kind("no more\nof that")))
    assert (found and found.message) == said
    if found is not None:
        assert (found.reason, found.cause) == (Reason.STORE_UNAVAILABLE, f"{code} no more")


@pytest.mark.parametrize("kind", [psycopg.OperationalError, psycopg.InterfaceError])
def test_find_unavailable__without_a_code_is_a_lost_connection(kind: type[psycopg.Error]) -> None:
    """A connection that ends, or was never made, has no code."""
    wrapped = InterfaceError if kind is psycopg.InterfaceError else OperationalError
    found = find_unavailable(wrapped(None, None, kind("connection refused")))
    assert found is not None
    assert (found.message, found.cause) == (AWAY, f"{kind.__name__} connection refused")


def test_find_unavailable__pool_is_used_up() -> None:
    """A pool without a free connection is no database that is away."""
    found = find_unavailable(PoolTimeoutError("QueuePool limit"))
    assert found is not None
    assert "in use" in found.message
    assert found.cause == "no connection of the pool was free in time"


def test_store_faults__cancelled_statement_says_so(engine: Engine) -> None:
    """A statement that was held up is not called a database that is away; the cause is kept."""
    with pytest.raises(Unavailable) as failure, store_faults(), engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 1"))
        connection.execute(text("SELECT pg_sleep(60)"))
    assert failure.value.message == HELD_UP
    assert failure.value.cause == "57014 canceling statement due to statement timeout"


def test_store_faults__hides_what_was_sent(engine: Engine) -> None:
    """An error of the database, as a log would show it, has the statement and no values."""
    with pytest.raises(DBAPIError) as failure, store_faults(), engine.begin() as connection:
        connection.execute(text("SELECT 1 / :zero, :secret"), {"zero": 0, "secret": "hush"})
    assert "SELECT 1 /" in str(failure.value)
    assert "hush" not in str(failure.value)
    assert "hush" not in repr(failure.value)
