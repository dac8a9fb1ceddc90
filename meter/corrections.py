"""Corrections: which recorded event was wrong, what is counted in its place, who says so and why.

A recorded event is named by its place in the journal. It is corrected once; what replaces it is a
recorded event of its own, which may be corrected in turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from meter.domain.event import DEFAULTS, SIGN, Dimensions, DimensionTable, EventBatch
from meter.domain.limits import EVENT_ID_BYTES


class EventRow(NamedTuple):
    """A recorded event: shard and position of its segment, and its row there, from 0."""

    shard: int
    position: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectableEvent:
    """All that an event says; `tokens` has no zeros and `extra` no defaults.

    `end_ms` is ms since 1970 in UTC; `event_id` has 16 bytes or none.
    """

    dimensions: Dimensions
    end_ms: int
    tokens: Mapping[int, int]
    extra: Mapping[str, int] = field(default_factory=dict)
    event_id: bytes = b""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """Where an event came from: a stream's batch and the place in it; all empty for a call."""

    producer: str = ""
    sequence: int = 0
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event where it was recorded first, and with whose key."""

    row: EventRow
    account_id: str
    key_id: str
    event: CorrectableEvent
    reported: Reported


@dataclass(frozen=True, slots=True, kw_only=True)
class ById:
    """The event with these 16 bytes as its id."""

    event_id: bytes


ByPlace: TypeAlias = Reported


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which event: by id or place, reported with keys of an account ("" for the installation).

    It ended in `[start_ms, end_ms)`; `end_ms` None is no end.
    """

    event: ById | ByPlace
    account_id: str
    start_ms: int
    end_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A correction on record; `after` is None when the event was voided."""

    correction_id: int
    before: CorrectableEvent
    after: CorrectableEvent | None
    reported: Reported
    key_id: str
    reason: str
    correct_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A recorded event as it counts now.

    `account_id` is that of the key which reported it; `target` its newest content's row. `last` is
    the newest correction of it, if there is one: with `after` None nothing counts any more.
    """

    target: EventRow
    event: CorrectableEvent
    account_id: str
    reported: Reported
    last: Correction | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCorrection:
    """What is to be written: the row that is taken back, and what is counted in its place."""

    target: EventRow
    before: CorrectableEvent
    after: CorrectableEvent | None
    reported: Reported
    key_id: str
    reason: str

    def to_batch(self, table: DimensionTable) -> EventBatch:
        """Return the event with the sign -1, and behind it the replacement with 1."""
        events = [self.before] if self.after is None else [self.before, self.after]
        return to_batch(events, table=table, signs=[-1, 1][: len(events)])


class Corrections(Protocol):
    """Finds events that were recorded, and what was corrected."""

    def find_event(self, search: Search) -> Found:
        """Return the one event that is meant.

        Raises NotFound (EVENT_NOT_FOUND); Refused (CORRECTION_REFUSED) when it was set aside, or
        when several are meant.
        """
        ...

    def find_correction(self, target: EventRow) -> Correction | None:
        """Return the correction of this very row, if there is one."""
        ...

    def list_corrections(self, *, after_id: int, limit: int) -> Sequence[Correction]:
        """Return corrections above an id, oldest first."""
        ...


def to_batch(
    events: Sequence[CorrectableEvent], *, table: DimensionTable, signs: Sequence[int] = ()
) -> EventBatch:
    """Return the events in columns; each has its sign, or all of them count."""
    numbers = sorted({number for event in events for number in event.tokens})
    names = [name for name in DEFAULTS if any(name in event.extra for event in events)]
    extra = {
        name: np.array([event.extra.get(name, DEFAULTS[name]) for event in events], np.int64)
        for name in names
    }
    if signs:
        extra[SIGN] = np.array(signs, np.int64)
    ids = b"".join(event.event_id or bytes(EVENT_ID_BYTES) for event in events)
    return EventBatch(
        table=table,
        dimension=np.array([table.intern(event.dimensions) for event in events], np.int64),
        end_ms=np.array([event.end_ms for event in events], np.int64),
        tokens={
            number: np.array([event.tokens.get(number, 0) for event in events], np.int64)
            for number in numbers
        },
        extra=extra,
        event_ids=np.frombuffer(ids, np.uint8).reshape(-1, EVENT_ID_BYTES),
        request_ids=[event.request_id for event in events],
    )


def from_batch(batch: EventBatch, row: int = 0) -> CorrectableEvent:
    """Return one event of a batch."""
    extra = {name: int(values[row]) for name, values in batch.extra.items()}
    event_id = b"" if batch.event_ids is None else batch.event_ids[row].tobytes()
    return CorrectableEvent(
        dimensions=batch.table[int(batch.dimension[row])],
        end_ms=int(batch.end_ms[row]),
        tokens={number: int(it[row]) for number, it in batch.tokens.items() if it[row]},
        extra={name: value for name, value in extra.items() if value != DEFAULTS[name]},
        event_id=event_id if any(event_id) else b"",
        request_id="" if batch.request_ids is None else batch.request_ids[row],
    )
