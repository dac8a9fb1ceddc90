"""The quarantine in Postgres."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, func, select, update

from meter.audit_log import Action, Change
from meter.domain.errors import NotFound, Reason, Refused
from meter.domain.times import to_ms, to_time
from meter.quarantine import QuarantineEntry, QuarantineState
from meter.runtime.engine import store_faults
from meter.store.audit_log import ChangeLog
from meter.store.tables import quarantine


class QuarantineStore:
    """Lists entries and rejects them."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def list_entries(
        self, *, state: QuarantineState | None, after_id: int, limit: int
    ) -> Sequence[QuarantineEntry]:
        """Return entries above an id, oldest first."""
        statement = (
            select(quarantine)
            .where(quarantine.c.quarantine_id > after_id)
            .order_by(quarantine.c.quarantine_id)
            .limit(limit)
        )
        if state is not None:
            statement = statement.where(quarantine.c.state == state)
        with store_faults(), self._engine.connect() as connection:
            return [_from_row(row) for row in connection.execute(statement)]

    def get_entry(self, quarantine_id: int) -> QuarantineEntry:
        """Return an entry; raises NotFound (QUARANTINE_NOT_FOUND)."""
        statement = select(quarantine).where(quarantine.c.quarantine_id == quarantine_id)
        with store_faults(), self._engine.connect() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise NotFound(
                Reason.QUARANTINE_NOT_FOUND, f"There is no quarantine entry {quarantine_id}."
            )
        return _from_row(row)

    def reject(self, quarantine_id: int, *, key_id: str, reason: str, now_ms: int) -> None:
        """Decide that an entry is never counted; raises NotFound or Refused."""
        self.get_entry(quarantine_id)
        statement = (
            update(quarantine)
            .where(quarantine.c.quarantine_id == quarantine_id)
            .where(quarantine.c.state == QuarantineState.HELD)
            .values(
                state=QuarantineState.REJECTED,
                decide_time=to_time(now_ms),
                decided_by=key_id,
                reason=reason,
            )
        )
        with store_faults(), self._engine.begin() as connection:
            if not connection.execute(statement).rowcount:
                raise Refused(Reason.RELEASE_REFUSED, "The entry was decided before.")
            change = Change(
                at_ms=now_ms,
                key_id=key_id,
                action=Action.QUARANTINE_REJECT,
                subject=str(quarantine_id),
                detail={"reason": reason},
            )
            ChangeLog().write(connection, change)

    def held_count(self) -> int:
        """Return how many entries wait for a person."""
        statement = (
            select(func.count())
            .select_from(quarantine)
            .where(quarantine.c.state == QuarantineState.HELD)
        )
        with store_faults(), self._engine.connect() as connection:
            return int(connection.execute(statement).scalar_one())


def _from_row(row: Any) -> QuarantineEntry:  # noqa: ANN401
    return QuarantineEntry(
        quarantine_id=row.quarantine_id,
        outcome=row.outcome,
        state=QuarantineState(row.state),
        received_ms=to_ms(row.received_time),
        key_id=row.key_id,
        producer=row.producer,
        sequence=row.sequence,
        index=row.event_index,
        payload=row.payload,
        source=row.source or 0,
        is_choice=bool(row.is_choice),
    )
