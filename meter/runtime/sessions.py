"""Whether a connection has a session of its own, which a pooler in transaction mode takes away."""

from typing import Final

from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from meter.domain.errors import Reason, Refused
from meter.runtime.database_url import engine_url
from meter.runtime.engine import store_faults
from meter.runtime.ids import random_bytes

_MARK: Final = text("SELECT set_config('tokenworks.session', :mark, false)")
_READ: Final = text("SELECT current_setting('tokenworks.session', true)")
_CONNECT_SECONDS_MAX: Final = 5


def refuse_shared_sessions(database_url: str) -> None:
    """Raise Refused where two connections may meet the same session of the database.

    The service's role belongs to a session. And a pooler that hands sessions out by transactions
    keeps our connections open while the database behind it is restored or fails over: the meter
    would trust what it remembers of a database that is gone. Raises Unavailable.
    """
    engine = create_engine(
        engine_url(database_url),
        poolclass=NullPool,
        connect_args={"connect_timeout": _CONNECT_SECONDS_MAX},
    )
    with store_faults():
        shared = are_shared(engine)
    if shared:
        raise Refused(
            Reason.STORE_UNAVAILABLE,
            "The database is behind a pooler that shares sessions (PgBouncer's pool_mode"
            " transaction or statement): set pool_mode = session for Tokenworks, or name"
            " Postgres itself in TOKENWORKS_DATABASE_URL.",
        )


def are_shared(engine: Engine) -> bool:
    """Tell whether two connections of an engine meet the same session, or one meets several."""
    with engine.connect() as one, engine.connect() as other:
        marks = {it: f"{name}-{random_bytes(8).hex()}" for it, name in ((one, "1"), (other, "2"))}
        for connection, mark in marks.items():
            connection.execute(_MARK, {"mark": mark})
            connection.commit()
        # Twice in a row, since a pooler may give the sessions out in turn.
        return any(
            _mark_of(connection) != marks[connection] for connection in (one, one, other, one)
        )


def _mark_of(connection: Connection) -> object:
    found = connection.execute(_READ).scalar_one()
    connection.commit()
    return found
