"""The installation in Postgres: whether its clock is driven, and where a driven one stands."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, exists, func, insert, or_, select, text

from meter.domain.errors import Reason, Refused
from meter.domain.times import to_ms, to_time
from meter.runtime.engine import store_faults
from meter.store.tables import accounts, api_keys, installation, registry, shards

_MOVE = text("UPDATE installation SET driven_time = :time WHERE driven AND driven_time < :time")
# Its commit does not wait for the disk. The log is written in order: what is committed later is
# never on disk without it.
_MOVE_ON = text(
    "UPDATE installation SET driven_time = :time"
    " FROM (SELECT set_config('synchronous_commit', 'off', true)) AS setting"
    " WHERE driven AND driven_time < :time"
)


class InstallationStore:
    """Reads and writes the one row; it is made at the first start, and its kind never changes."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def settle(self, *, sandbox_clock_ms: int | None) -> int | None:
        """Find out on which clock the installation lives, or decide it where nothing is yet.

        `sandbox_clock_ms` is where a driven clock is to begin, None asks for the real one. Returns
        where the driven clock stands, None for the real one. Raises Refused (CLOCK_REFUSED) when
        the installation lives on the other clock.
        """
        with store_faults(), self._engine.begin() as connection:
            # Keys and accounts are made under the same lock: none comes before the mark.
            connection.execute(select(registry.c.version).with_for_update())
            row = connection.execute(select(installation)).one_or_none()
            if row is None:
                return _begin(connection, sandbox_clock_ms=sandbox_clock_ms)
            if row.driven and sandbox_clock_ms is None:
                raise Refused(
                    Reason.CLOCK_REFUSED,
                    "This database is a sandbox that lives on a driven clock: it is served with"
                    " TOKENWORKS_SANDBOX_CLOCK only.",
                )
            if not row.driven and sandbox_clock_ms is not None:
                raise _lived_on_the_real_clock()
            return to_ms(row.driven_time) if row.driven else None

    def find_driven_ms(self) -> int | None:
        """Return where the driven clock stands; None on the real one."""
        with store_faults(), self._engine.connect() as connection:
            time = connection.execute(select(installation.c.driven_time)).scalar()
        return None if time is None else to_ms(time)

    def move_to(self, time_ms: int, *, is_waited_for: bool) -> None:
        """Write where the driven clock stands; never goes back.

        It is on disk before whatever is committed later, and when this returns if `is_waited_for`.
        """
        statement = _MOVE if is_waited_for else _MOVE_ON
        with store_faults(), self._engine.connect() as connection:
            # One statement, one transaction, one way to the database and back.
            own = connection.execution_options(isolation_level="AUTOCOMMIT")
            own.execute(statement, {"time": to_time(time_ms)})


def installation_time(real: "ColumnElement[Any]") -> "ColumnElement[datetime]":
    """Return SQL for the installation's now: the driven time, else `real`, the database's own."""
    return func.coalesce(select(installation.c.driven_time).scalar_subquery(), real)


def _begin(connection: Connection, *, sandbox_clock_ms: int | None) -> int | None:
    is_driven = sandbox_clock_ms is not None
    in_use = or_(*(exists(select(table.c[0])) for table in (accounts, api_keys, shards)))
    if is_driven and connection.execute(select(in_use)).scalar_one():
        raise _lived_on_the_real_clock()
    time = None if sandbox_clock_ms is None else to_time(sandbox_clock_ms)
    row = {"singleton": True, "driven": is_driven, "driven_time": time}
    connection.execute(insert(installation).values(row))
    return sandbox_clock_ms


def _lived_on_the_real_clock() -> Refused:
    return Refused(
        Reason.CLOCK_REFUSED,
        "This database has lived on the real clock: a driven one begins on an empty database."
        " Unset TOKENWORKS_SANDBOX_CLOCK, or name another database.",
    )
