"""The factory's descriptions in Postgres: as the files that were taken in, read when asked for.

Whoever attributes holds a shared lock, and whoever sets a version the same one alone: no version
slips under an interval that is being attributed.
"""

import threading
from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, insert, select, text

from meter.audit_log import Action, Change
from meter.domain.errors import InvalidArgument, NotFound, Reason, Refused
from meter.domain.times import to_iso, to_ms, to_time
from meter.energy.factory import UNDESCRIBED, Factories, Factory, StoredFactory
from meter.energy.factory_file import read_factory
from meter.runtime.engine import store_faults
from meter.store.audit_log import ChangeLog
from meter.store.energy_tables import energy_shares, factory_versions
from meter.toml_file import FileFaults

# Any number that no other lock of this database has.
_LOCK: Final = 7_411_004
_HOLD: Final = text(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")
_CHANGE: Final = text(f"SELECT pg_advisory_xact_lock({_LOCK})")


class FactoryStore:
    """Reads and adds versions; safe to share between threads."""

    def __init__(self, engine: Engine, *, tiers: Collection[str] = ()) -> None:
        """Take the engine, and the tiers that are sold, which alone a new version may name."""
        self._engine = engine
        self._tiers = tiers
        self._lock = threading.Lock()
        self._known: dict[int, Factory] = {}

    def load(self) -> Factories:
        """Return all versions; what was read is not read again. Raises Unavailable."""
        with store_faults(), self._engine.connect() as connection:
            return self.load_in(connection)

    def hold(self, connection: Connection) -> Factories:
        """Return all versions, of which no further one comes until the transaction ends."""
        connection.execute(_HOLD)
        return self.load_in(connection)

    def load_in(self, connection: Connection) -> Factories:
        """Return all versions that a transaction sees."""
        # Versions are only ever added, and get their numbers in the order of their commits.
        newest = connection.execute(select(func.max(factory_versions.c.version))).scalar() or 0
        with self._lock:
            missing = [it for it in range(1, newest + 1) if it not in self._known]
        if missing:
            statement = select(factory_versions.c.version, factory_versions.c.toml).where(
                factory_versions.c.version.in_(missing)
            )
            read = {
                row.version: read_factory(row.toml, version=row.version, tiers=None)
                for row in connection.execute(statement)
            }
            with self._lock:
                self._known.update(read)
        with self._lock:
            return Factories(self._known[it] for it in range(1, newest + 1))

    def set(self, toml: str, *, key_id: str, now_ms: int) -> tuple[Factory, bool]:
        """Keep a version; False when it is there already, word for word.

        Raises InvalidArgument (FACTORY_INVALID) with all faults of the file, and Refused
        (FACTORY_REFUSED) where it would change an interval whose energy is attributed.
        """
        try:
            asked = read_factory(toml, version=0, tiers=self._tiers)
        except FileFaults as faults:
            raise InvalidArgument(
                Reason.FACTORY_INVALID, str(faults), field="toml", rule="no faults"
            ) from faults
        with store_faults(), self._engine.begin() as connection:
            connection.execute(_CHANGE)
            known = self.load_in(connection)
            same = known.at(asked.start_ms)
            if same.version and same.start_ms == asked.start_ms:
                if self._text_of(connection, same.version) == toml:
                    return same, False
                raise _refusal(
                    f"Version {same.version} is in force from {to_iso(asked.start_ms)}, and"
                    " versions never change: give the new one a later `from`."
                )
            _refuse_attributed(connection, asked.start_ms)
            version = 1 + len(list(known))
            connection.execute(
                insert(factory_versions).values(
                    version=version,
                    start_time=to_time(asked.start_ms),
                    toml=toml,
                    key_id=key_id,
                    set_time=to_time(now_ms),
                )
            )
            change = Change(
                at_ms=now_ms,
                key_id=key_id,
                action=Action.FACTORY_SET,
                subject=str(version),
                detail={"start_time": to_iso(asked.start_ms)},
            )
            ChangeLog().write(connection, change)
        return read_factory(toml, version=version, tiers=None), True

    def versions(self) -> Sequence[Factory]:
        """Return all versions, by their begin."""
        return list(self.load())

    def get(self, at_ms: int) -> StoredFactory:
        """Return the version in force at an instant; raises NotFound (FACTORY_NOT_FOUND)."""
        with store_faults(), self._engine.connect() as connection:
            found = self.load_in(connection).at(at_ms)
            if found is UNDESCRIBED:
                raise NotFound(
                    Reason.FACTORY_NOT_FOUND,
                    f"No description of the factory is in force at {to_iso(at_ms)}. Give one:"
                    " tokenworks factory set factory.toml",
                )
            row = _row_of(connection, found.version)
        return StoredFactory(factory=found, toml=row.toml, set_ms=to_ms(row.set_time))

    def _text_of(self, connection: Connection, version: int) -> str:
        return str(_row_of(connection, version).toml)


def _row_of(connection: Connection, version: int) -> Any:  # noqa: ANN401
    statement = select(factory_versions).where(factory_versions.c.version == version)
    return connection.execute(statement).one()


def _refuse_attributed(connection: Connection, start_ms: int) -> None:
    statement = select(func.max(energy_shares.c.interval_start)).where(
        energy_shares.c.interval_start >= to_time(start_ms)
    )
    last = connection.execute(statement).scalar()
    if last is not None:
        raise _refusal(
            f"Energy is attributed up to the interval of {to_iso(to_ms(last))}, which stays as it"
            " is: give the version a `from` after that."
        )


def _refusal(message: str) -> Refused:
    return Refused(Reason.FACTORY_REFUSED, message)
