"""Connections: engines that act in a role of the database's, and whose faults have a fate."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from meter.domain.errors import Reason, StoreRefusal
from meter.runtime.database_url import engine_url
from meter.runtime.store_fault import find_unavailable

# A database host that vanishes without a word is noticed in ten seconds, on both sides: else the
# committing thread would wait for hours, and a server cut off would hold its locks as long.
_CONNECTION: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Said once the session stands: a pooler in between refuses to be told so in its first message.
_SESSION: Final = (
    "SET timezone = 'UTC'; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 2;"
    " SET tcp_keepalives_count = 3; SET idle_in_transaction_session_timeout = '{idle_seconds}s'"
)
# Begins a transaction whose answers are all of one moment.
SNAPSHOT: Final = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
# What a login is to be granted: whoever has it may act in each of the roles below.
SERVICE_ROLE: Final = "tokenworks_service"
# An entry for each connection that was made; appending is one step, whatever the thread.
_CONNECTIONS: Final = "tokenworks_connections"


class DatabaseRole(StrEnum):
    """In which role a process asks the database; neither can do what is the other's.

    Facts are append-only by privilege: no role can update or delete them. `meter.store.rights` has
    all that each can do.
    """

    INGEST = "tokenworks_ingest"
    BILLING = "tokenworks_billing"


def make_engine(
    database_url: str,
    *,
    pool_size: int = 5,
    role: DatabaseRole | None = DatabaseRole.INGEST,
    idle_seconds: int = 60,
) -> Engine:
    """Return an engine whose connections act in a role in UTC.

    Without a role they stay what the login is. A URL may name several hosts. The database
    ends who stays in a transaction for longer than `idle_seconds` without a word, and holds locks.
    """
    engine = create_engine(
        engine_url(database_url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5.0,
        connect_args=_CONNECTION,
        # What callers send is nobody's business who reads the log.
        hide_parameters=True,
    )

    act = f"; SET ROLE {role}" if role is not None else ""
    made: list[None] = []
    engine.update_execution_options(**{_CONNECTIONS: made})

    @event.listens_for(engine, "connect")
    def settle(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        made.append(None)
        cursor = connection.cursor()
        cursor.execute(_SESSION.format(idle_seconds=idle_seconds) + act)
        cursor.close()
        connection.commit()

    return engine


def connection_count(engine: Engine) -> int:
    """Return how many connections an engine of `make_engine` has made so far.

    Whoever restores a database, or fails over, ends all connections to it: as long as this stays,
    the database is no older one than before.
    """
    return len(engine.get_execution_options()[_CONNECTIONS])


@contextmanager
def store_faults() -> Iterator[None]:
    """Turn what is nobody's fault who sent something into `Unavailable`; other faults pass.

    A lost or refused connection, a disk without room, a deadlock. The error's `cause` tells which.
    """
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        unavailable = find_unavailable(error)
        if unavailable is None:
            raise
        raise unavailable from error


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what the database refuses into `StoreRefusal`: "The database refuses" and `what`.

    Also what it refuses to the driver itself, under SQLAlchemy. Around `store_faults`.
    """
    try:
        yield
    except (DBAPIError, psycopg.DatabaseError) as error:
        raise StoreRefusal(Reason.INTERNAL, f"The database refuses {what}: {error}") from error


def driver_connection(connection: Any) -> Any:  # noqa: ANN401
    """Return psycopg's connection under SQLAlchemy's, for COPY."""
    return connection.connection.driver_connection
