"""Corrections in Postgres: appended in the transaction of their segment, and read back."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from meter.audit_log import Action, Change
from meter.corrections import (
    CorrectableEvent,
    Correction,
    EventRow,
    Found,
    NewCorrection,
    Reported,
    Search,
)
from meter.domain.errors import Reason, Unavailable
from meter.domain.event import Dimensions
from meter.domain.times import to_iso, to_ms, to_time
from meter.domain.tokens import TokenClass
from meter.runtime.engine import store_faults
from meter.store.archived_bodies import ArchivedBodies
from meter.store.audit_log import ChangeLog
from meter.store.group_writes import GroupWrites
from meter.store.recorded_events import find_recorded
from meter.store.tables import corrections, counting, shards

# The row of a correction's segment that holds what is counted from then on.
_REPLACEMENT_ROW = 1
_EXTRA = "extra"
_OF_ROWS = text("""
SELECT c.* FROM corrections c
JOIN unnest(CAST(:shards AS smallint[]), CAST(:positions AS bigint[]), CAST(:rows AS integer[]))
    AS n (shard, position, event_row) USING (shard, position, event_row)
""")
_RECORDED = text(
    "SELECT EXISTS (SELECT FROM journal_segments WHERE (shard, position) = (:shard, :position))"
)


class CorrectionWrites(GroupWrites):
    """The part of a group's transaction that writes corrections."""

    # Where the segment of a correction has to come to lie; None once it does.
    awaited_position: int | None = None

    def correct(self, correction: NewCorrection, *, now_ms: int) -> int | None:
        """Note a correction and return its id; the next segment that is appended must be its own.

        None: the row was corrected before, by whoever came first. What another server writes at
        this moment is waited for. Raises Unavailable while the row is of another shard than ours
        and not counted yet.
        """
        shard = self._lease.shard
        # The shard's row is ours until the commit, and so is the next position.
        own = select(shards.c.position + 1).filter_by(shard=shard).with_for_update()
        position = self._connection.execute(own).scalar_one()
        target, reported = correction.target, correction.reported
        # Again: since it was looked for, this process may have lost its shard and taken another.
        require_counted(self._connection, target, own_shard=shard)
        statement = upsert(corrections).values(
            shard=target.shard,
            position=target.position,
            event_row=target.row,
            correction_shard=shard,
            correction_position=position,
            producer=reported.producer,
            sequence=reported.sequence,
            event_index=reported.index,
            before=_to_json(correction.before),
            after=None if correction.after is None else _to_json(correction.after),
            key_id=correction.key_id,
            reason=correction.reason,
            correct_time=to_time(now_ms),
        )
        key = [corrections.c.shard, corrections.c.position, corrections.c.event_row]
        statement = statement.on_conflict_do_nothing(index_elements=key)
        correction_id = self._connection.execute(
            statement.returning(corrections.c.correction_id)
        ).scalar_one_or_none()
        if correction_id is not None:
            self.awaited_position = position
            self._require_recorded(target)
            change = _to_change(correction, correction_id=correction_id, now_ms=now_ms)
            ChangeLog().write(self._connection, change)
        return correction_id

    def _require_recorded(self, target: EventRow) -> None:
        """Hold what no foreign key does: the parts of the journal have keys, the whole has none."""
        found = self._connection.execute(
            _RECORDED, {"shard": target.shard, "position": target.position}
        )
        assert found.scalar_one(), "what is corrected was recorded"


class CorrectionStore:
    """Finds recorded events as they count now, and lists corrections."""

    def __init__(
        self,
        engine: Engine,
        *,
        own_shard: Callable[[], int],
        archive: ArchivedBodies | None = None,
    ) -> None:
        """Take the engine and what returns the shard to which this process appends corrections.

        `archive` reads the bodies that left the database.
        """
        self._engine = engine
        self._own_shard = own_shard
        self._archive = archive or ArchivedBodies()

    def find_event(self, search: Search) -> Found:
        """Return the one event that is meant, as it counts now.

        Raises NotFound (EVENT_NOT_FOUND), Refused (CORRECTION_REFUSED), and Unavailable while the
        event lies in another server's shard and is not counted yet.
        """
        with store_faults(), self._engine.connect() as connection:
            recorded = find_recorded(connection, search, archive=self._archive)
            target, last = follow_all(connection, [recorded.row])[recorded.row]
            require_counted(connection, target, own_shard=self._own_shard())
        return Found(
            target=target,
            event=recorded.event if last is None else last.after or last.before,
            account_id=recorded.account_id,
            reported=recorded.reported,
            last=last,
        )

    def find_correction(self, target: EventRow) -> Correction | None:
        """Return the correction of this very row, if there is one."""
        with store_faults(), self._engine.connect() as connection:
            row = _find_row(connection, target)
        return None if row is None else _from_row(row)

    def list_corrections(self, *, after_id: int, limit: int) -> Sequence[Correction]:
        """Return corrections above an id, oldest first."""
        statement = (
            select(corrections)
            .where(corrections.c.correction_id > after_id)
            .order_by(corrections.c.correction_id)
            .limit(limit)
        )
        with store_faults(), self._engine.connect() as connection:
            return [_from_row(row) for row in connection.execute(statement)]


def follow_all(
    connection: Connection, rows: Sequence[EventRow]
) -> dict[EventRow, tuple[EventRow, Correction | None]]:
    """Return, for each event's row, that of its newest content and the newest correction of it."""
    found: dict[EventRow, tuple[EventRow, Correction | None]] = {row: (row, None) for row in rows}
    looking = {row: row for row in rows}
    while looking:
        newer = {}
        for target, correction in _find_rows(connection, list(looking)).items():
            row, last = looking[target], _from_row(correction)
            if last.after is None:
                found[row] = (target, last)
                continue
            place = correction.correction_shard, correction.correction_position
            found[row] = (EventRow(*place, _REPLACEMENT_ROW), last)
            newer[found[row][0]] = row
        looking = newer
    return found


def require_counted(connection: Connection, target: EventRow, *, own_shard: int) -> None:
    """Let no cut come between an event and what takes it back, with the latter alone below it.

    Within a shard the order of the journal sees to that. Raises Unavailable.
    """
    if target.shard == own_shard:
        return
    statement = select(counting.c.position).filter_by(shard=target.shard)
    counted = connection.execute(statement).scalar_one_or_none() or 0
    if counted < target.position:
        raise Unavailable(
            Reason.STORE_UNAVAILABLE,
            f"The event is recorded in shard {target.shard} and not counted yet. Try again.",
        )


def _to_change(correction: NewCorrection, *, correction_id: int, now_ms: int) -> Change:
    before, after = correction.before, correction.after
    return Change(
        at_ms=now_ms,
        key_id=correction.key_id,
        action=Action.EVENT_CORRECT,
        subject=str(correction_id),
        detail={
            "kind": "void" if after is None else "replace",
            "account": before.dimensions.account,
            "end_time": to_iso(before.end_ms),
            "reason": correction.reason,
        },
    )


def _find_rows(connection: Connection, targets: Sequence[EventRow]) -> dict[EventRow, Any]:
    shards_, positions, rows = zip(*targets, strict=True)
    values = {"shards": list(shards_), "positions": list(positions), "rows": list(rows)}
    return {
        EventRow(row.shard, row.position, row.event_row): row
        for row in connection.execute(_OF_ROWS, values)
    }


def _find_row(connection: Connection, target: EventRow) -> Any:  # noqa: ANN401
    statement = select(corrections).filter_by(
        shard=target.shard, position=target.position, event_row=target.row
    )
    return connection.execute(statement).one_or_none()


def _from_row(row: Any) -> Correction:  # noqa: ANN401
    return Correction(
        correction_id=row.correction_id,
        before=_from_json(row.before),
        after=None if row.after is None else _from_json(row.after),
        reported=Reported(producer=row.producer, sequence=row.sequence, index=row.event_index),
        key_id=row.key_id,
        reason=row.reason,
        correct_ms=to_ms(row.correct_time),
    )


def _to_json(event: CorrectableEvent) -> dict[str, object]:
    """Return the event as the view `usage_corrections` reads it; ids are hexadecimal."""
    of = event.dimensions
    return {
        "account": of.account,
        "model": of.model,
        "served_model": of.served_model,
        "tier": of.tier,
        "mode": of.mode,
        "pool": of.pool,
        "region": of.region,
        "end_time": to_iso(event.end_ms),
        "tokens": {TokenClass(it).name.lower(): count for it, count in event.tokens.items()},
        _EXTRA: dict(event.extra),
        "event_id": event.event_id.hex(),
        "request_id": event.request_id,
    }


def _from_json(stored: Mapping[str, Any]) -> CorrectableEvent:
    return CorrectableEvent(
        dimensions=Dimensions(
            stored["account"],
            stored["model"],
            stored["served_model"],
            stored["tier"],
            stored["mode"],
            stored["pool"],
            stored["region"],
        ),
        end_ms=to_ms(datetime.fromisoformat(stored["end_time"])),
        tokens={int(TokenClass[it.upper()]): count for it, count in stored["tokens"].items()},
        extra=stored[_EXTRA],
        event_id=bytes.fromhex(stored["event_id"]),
        request_id=stored["request_id"],
    )
