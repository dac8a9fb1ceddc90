"""Events one by one, as tests think of them, and the batches in columns that stand for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from hypothesis import strategies as st

from meter.domain.event import DEFAULTS, Dimensions, DimensionTable, EventBatch, IntArray
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import BAND_EDGES, TokenClass
from meter.segment import Segment

BEGIN_MS: Final = 2_000_000 * INTERVAL_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainEvent:
    """One event; `extra` has what is not default, `event_id` 16 bytes or none."""

    dimension: int
    end_ms: int
    tokens: dict[int, int]
    extra: dict[str, int] = field(default_factory=dict)
    event_id: bytes = b""
    request_id: str = ""


def to_batch(events: Sequence[PlainEvent], *, table: DimensionTable) -> EventBatch:
    """Return the events in columns; every class and every extra that occurs has its column."""
    numbers = {number for item in events for number in item.tokens}
    names = {name for item in events for name in item.extra}
    ids = b"".join(item.event_id or bytes(16) for item in events)
    return EventBatch(
        table=table,
        dimension=np.array([item.dimension for item in events], np.int64),
        end_ms=np.array([item.end_ms for item in events], np.int64),
        tokens={
            number: np.array([item.tokens.get(number, 0) for item in events], np.int64)
            for number in numbers
        },
        extra={
            name: np.array([item.extra.get(name, DEFAULTS[name]) for item in events], np.int64)
            for name in names
        },
        event_ids=np.frombuffer(ids, np.uint8).reshape(-1, 16) if any(ids) else None,
        request_ids=[item.request_id for item in events],
    )


def narrowed(batch: EventBatch) -> EventBatch:
    """Return a batch whose columns are as narrow as their numbers allow, as one in planes has."""
    return replace(
        batch,
        tokens={number: _narrowed(it) for number, it in batch.tokens.items()},
        extra={name: _narrowed(it) for name, it in batch.extra.items()},
    )


def _narrowed(values: IntArray) -> IntArray:
    least, most = int(values.min(initial=0)), int(values.max(initial=0))
    return values if least < 0 else values.astype(np.min_scalar_type(most))


def to_plain(segment: Segment) -> list[PlainEvent]:
    """Return a segment's events one by one, without zeros and defaults."""
    events = []
    for place in range(len(segment)):
        extra = {name: int(segment.column(name)[place]) for name in DEFAULTS}
        event_id = segment.event_ids[place * 16 : place * 16 + 16]
        events.append(
            PlainEvent(
                dimension=int(segment.columns["dimension"][place]),
                end_ms=int(segment.columns["end_ms"][place]),
                tokens={
                    number: int(counts[place])
                    for number, counts in segment.tokens.items()
                    if counts[place]
                },
                extra={name: value for name, value in extra.items() if value != DEFAULTS[name]},
                event_id=event_id if any(event_id) else b"",
                request_id=segment.request_ids[place] if segment.request_ids else "",
            )
        )
    return events


def table_of(count: int) -> DimensionTable:
    """Return a table of so many dimensions, all of them valid."""
    table = DimensionTable()
    for number in range(count):
        table.intern(Dimensions(f"a{number}", "m", "m", "high", 1, "", ""))
    return table


TOKEN_COUNTS: Final = st.one_of(
    st.integers(0, 300),
    st.integers(0, 1_000_000_000),
    st.sampled_from([edge + step for edge in BAND_EDGES for step in (-1, 0, 1)]),
)
END_TIMES: Final = st.one_of(
    st.integers(BEGIN_MS, BEGIN_MS + 5 * INTERVAL_MS),
    st.integers(0, 2 * BEGIN_MS),
    st.sampled_from([BEGIN_MS + k * INTERVAL_MS + step for k in range(3) for step in (-1, 0)]),
)
EXTRAS: Final = st.fixed_dictionaries(
    {},
    optional={
        "duration_ms": st.integers(1, 604_800_000),
        "finish": st.integers(2, 4),
        "quality": st.integers(2, 3),
        "attempt": st.integers(1, 1_000),
        "reported_input": st.integers(0, 2**31 - 1),
        "reported_output": st.integers(0, 2**31 - 1),
    },
)


def recorded_events(*, dimension_count: int = 4) -> st.SearchStrategy[PlainEvent]:
    """Events as the journal may hold them: checked, all numbers within their bounds."""
    return st.builds(
        PlainEvent,
        dimension=st.integers(0, dimension_count - 1),
        end_ms=END_TIMES,
        tokens=st.dictionaries(
            st.sampled_from([int(number) for number in TokenClass]),
            TOKEN_COUNTS.filter(bool),
            max_size=4,
        ),
        extra=EXTRAS,
        event_id=st.one_of(st.just(b""), st.binary(min_size=16, max_size=16).filter(any)),
        request_id=st.sampled_from(["", "", "r-1", "größer ☃"]),
    )
