"""What is counted from memory is what the journal's bytes come to."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter import segment
from meter.counting.aggregate import UsageDelta
from meter.counting.fresh import Fresh, Run, Written, add_up
from meter.counting.reports import ReportMemory, Reports
from meter.domain.event import SIGN, Origin
from meter.segment import Gathered
from tests.meter.plain_events import BEGIN_MS, PlainEvent, recorded_events, table_of, to_batch

SHARD = 3
TABLE = table_of(4)
BATCHES = st.lists(
    st.tuples(
        st.sampled_from(["", "p", "q"]),
        st.lists(recorded_events(), min_size=1, max_size=6),
        st.sampled_from([(), (2, 5)]),
    ),
    min_size=1,
    max_size=4,
)
CORRECTIONS = st.lists(st.tuples(recorded_events(), recorded_events()), max_size=2)
GROUPS = st.lists(
    st.tuples(BATCHES, CORRECTIONS, st.sampled_from(["", "ahead", "count"])),
    min_size=1,
    max_size=6,
)


def origin_of(producer: str, *, left_out: tuple[int, ...] = ()) -> Origin:
    """Return an origin; only a stream's batch leaves events out."""
    return Origin(
        account_id="acme",
        key_id="k",
        received_ms=BEGIN_MS,
        producer=producer,
        instance=b"i" * 16 if producer else b"",
        sequence=1 if producer else 0,
        left_out=left_out if producer else (),
    )


def gather(*batches: tuple[Origin, Sequence[PlainEvent]]) -> Gathered:
    """Return a segment whose dimensions have ids far up."""
    return segment.gather(
        [(origin, to_batch(events, table=TABLE)) for origin, events in batches],
        dimension_ids=lambda batch: batch.dimension + 70_000,
    )


def correction(before: PlainEvent, after: PlainEvent) -> Gathered:
    """Return the segment that takes one event back and counts another one in its place."""
    taken = replace(before, extra={**before.extra, SIGN: -1})
    return gather((origin_of(""), [taken, after]))


def note(position: int, part: Gathered) -> Written:
    """Return the row that a segment has at a position."""
    time = datetime(2026, 11, 26, tzinfo=UTC) + timedelta(seconds=position)
    return Written(position, len(part), time)


def is_never_noted(_: Gathered) -> bool:
    """Know of no report."""
    return False


@given(groups=GROUPS)
def test_take__comes_to_what_the_bytes_say(
    groups: list[tuple[list[tuple[str, list[PlainEvent], tuple[int, ...]]], list[Any], str]],
) -> None:
    """Each row is counted once, in order: sums, samples and reports are those of its bytes."""
    fresh = Fresh()
    bodies: dict[int, bytes] = {}
    rows: list[Written] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meter.counting.fresh.GROUP_EVENTS_MAX", 9)
        patch.setattr("meter.counting.fresh._AHEAD_EVENTS_MIN", 9)
        counted = 0
        for batches, corrections, then in groups:
            parts = [
                gather(*((origin_of(p, left_out=left), events) for p, events, left in batches))
            ]
            parts += [correction(before, after) for before, after in corrections]
            written = [(note(len(rows) + place, it), it) for place, it in enumerate(parts, 1)]
            fresh.hold(SHARD, written)
            rows += [row for row, _ in written]
            bodies.update({row.position: segment.pack(it) for row, it in written})
            if then == "ahead":
                fresh.add_up_ahead(is_noted=is_never_noted)
            elif then == "count":
                counted = take_all(fresh, bodies, rows, after=counted)
        assert take_all(fresh, bodies, rows, after=counted) == len(rows)
    assert fresh.size_bytes == 0


def take_all(fresh: Fresh, bodies: dict[int, bytes], rows: Sequence[Written], *, after: int) -> int:
    """Take what is held, compare it with its bytes, and return the last position."""
    while found := fresh.take(SHARD, after=after, is_noted=is_never_noted):
        assert list(found.rows) == rows[after : after + len(found.rows)]
        decoded = [segment.decode(bodies[row.position]) for row in found.rows]
        assert_alike(found.run, add_up(decoded, is_noted=is_never_noted))
        after += len(found.rows)
    return after


def assert_alike(found: Run, wanted: Run) -> None:
    """Compare all that listeners and the database are given."""
    assert found.event_count == wanted.event_count
    assert sums_of(found.delta) == sums_of(wanted.delta)
    assert sums_of(found.reported) == sums_of(wanted.reported)
    assert reports_of(found.unnoted) == reports_of(wanted.unnoted)


def sums_of(delta: UsageDelta | None) -> dict[str, object]:
    """Return the fields of a delta as lists."""
    if delta is None:
        return {}
    found = {it.name: getattr(delta, it.name) for it in fields(delta)}
    sampled, tokens = found.pop("sampled"), found.pop("tokens")
    assert all(values.dtype == np.int64 for values in (*found.values(), *tokens.values()))
    return {
        **{name: values.tolist() for name, values in found.items()},
        "tokens": {number: values.tolist() for number, values in tokens.items()},
        "sampled": (sampled.dimension_id.tolist(), sampled.end_ms.tolist()),
    }


def reports_of(segments: Sequence[Gathered]) -> list[Reports]:
    """Return what segments say of who reported for whom, to somebody who knows nothing."""
    accounts = {70_000 + place: f"a{place}" for place in range(4)}
    memory = ReportMemory()
    news = memory.find_new(segments, accounts_of=lambda _: accounts, reports_of=lambda *_: [])
    return sorted(memory.spell_out(news))


def one(position: int, count: int = 1) -> tuple[Written, Gathered]:
    """Return a segment of one event, with its row."""
    part = gather((origin_of("p"), [PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: count})]))
    return note(position, part), part


def test_hold__neither_behind_a_hole_nor_of_another_shard() -> None:
    """What does not follow what is held is left to the journal; counting it lets others in."""
    fresh = Fresh()
    fresh.hold(SHARD, [one(4), one(5)])
    fresh.hold(SHARD, [one(7)])
    fresh.hold(SHARD + 1, [one(6)])
    found = fresh.take(SHARD, after=3, is_noted=is_never_noted)
    assert found is not None
    assert [row.position for row in found.rows] == [4, 5]
    fresh.hold(SHARD + 1, [one(6)])
    assert fresh.take(SHARD, after=5, is_noted=is_never_noted) is None
    assert fresh.size_bytes == 0


def test_take__not_before_its_turn() -> None:
    """What lies behind positions that are not held waits for them; what was counted is dropped."""
    fresh = Fresh()
    fresh.hold(SHARD, [one(4), one(5)])
    assert fresh.take(SHARD, after=2, is_noted=is_never_noted) is None
    rows = [note(position, one(position)[1]) for position in (3, 4)]
    assert fresh.without_held(SHARD, rows) == rows[:1]
    assert fresh.without_held(SHARD + 1, rows) == rows
    assert fresh.take(SHARD, after=4, is_noted=is_never_noted) is None
    assert fresh.size_bytes == 0


def test_hold__no_more_than_its_bound() -> None:
    """Held are at most the bound and one group, added up or not."""
    group_bytes = held_bytes(one(1))
    fresh = Fresh(bytes_max=2 * group_bytes)
    for position in range(1, 9):
        fresh.hold(SHARD, [one(position)])
    assert fresh.size_bytes == 2 * group_bytes


@pytest.mark.parametrize("batch_count", [1, 50])
def test_hold__counts_what_it_takes(batch_count: int) -> None:
    """Segments of very few events take more than their numbers, and that is in the bound."""
    events = [PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: 1, 4: 2})]
    fresh = Fresh()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for position in range(1, 201):
        part = gather(*((origin_of("p"), events) for _ in range(batch_count)))
        fresh.hold(SHARD, [(note(position, part), part)])
        del part
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < after - before <= fresh.size_bytes <= 4 * (after - before)


def held_bytes(*written: tuple[Written, Gathered]) -> int:
    """Return what a group takes."""
    fresh = Fresh()
    fresh.hold(SHARD, written)
    return fresh.size_bytes


def test_knows__only_what_was_learned() -> None:
    """A segment says nothing new when its dimensions were met and its reports were written."""
    memory, (_, part) = ReportMemory(), one(1)
    assert not memory.knows(part)
    news = memory.find_new([part], accounts_of=lambda _: {70_000: "a0"}, reports_of=lambda *_: [])
    assert not memory.knows(part)
    memory.learn(news)
    assert memory.knows(part)
    by_call = gather((origin_of(""), [PlainEvent(dimension=1, end_ms=BEGIN_MS, tokens={1: 1})]))
    assert memory.knows(by_call)
    memory.forget()
    assert not memory.knows(part)
