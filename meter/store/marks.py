"""Software marks in Postgres: which software serves a pool, from when on."""

from collections.abc import Sequence

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from meter.audit_log import Action, Change
from meter.domain.errors import Reason, Refused
from meter.domain.times import to_iso, to_ms, to_time
from meter.energy.marks import SoftwareMark
from meter.runtime.engine import store_faults
from meter.store.audit_log import ChangeLog
from meter.store.energy_tables import software_marks


class SoftwareMarkStore:
    """Adds marks and lists them; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def mark(self, mark: SoftwareMark, *, key_id: str, now_ms: int) -> bool:
        """Keep a mark; False when the pool has this software at that time already.

        Raises Refused (FACTORY_REFUSED) when another software begins there at that very time.
        """
        before = (
            select(software_marks.c.software, software_marks.c.mark_time)
            .where(software_marks.c.pool == mark.pool)
            .where(software_marks.c.mark_time <= to_time(mark.start_ms))
            .order_by(software_marks.c.mark_time.desc())
            .limit(1)
        )
        values = {
            "pool": mark.pool,
            "mark_time": to_time(mark.start_ms),
            "software": mark.software,
            "key_id": key_id,
        }
        with store_faults(), self._engine.begin() as connection:
            found = connection.execute(before).one_or_none()
            if found is not None and found.software == mark.software:
                return False
            # Whoever marks the same pool at the same time is waited for, and then is there.
            statement = (
                insert(software_marks)
                .values(values)
                .on_conflict_do_nothing()
                .returning(software_marks.c.software)
            )
            if connection.execute(statement).one_or_none() is not None:
                change = Change(
                    at_ms=now_ms,
                    key_id=key_id,
                    action=Action.SOFTWARE_MARK,
                    subject=mark.pool,
                    detail={"software": mark.software, "start_time": to_iso(mark.start_ms)},
                )
                ChangeLog().write(connection, change)
                return True
            there = connection.execute(before).one()
        if there.software == mark.software:
            return False
        raise Refused(
            Reason.FACTORY_REFUSED,
            f"{mark.pool} has {there.software} from {to_iso(mark.start_ms)} on; a mark stays as it"
            " is. Mark a later time.",
        )

    def list_marks(self, *, pool: str = "") -> Sequence[SoftwareMark]:
        """Return marks by pool and time; an empty pool is all."""
        statement = select(software_marks).order_by(
            software_marks.c.pool, software_marks.c.mark_time
        )
        if pool:
            statement = statement.where(software_marks.c.pool == pool)
        with store_faults(), self._engine.connect() as connection:
            return [
                SoftwareMark(pool=row.pool, software=row.software, start_ms=to_ms(row.mark_time))
                for row in connection.execute(statement)
            ]
