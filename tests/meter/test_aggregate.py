"""Adding up: against a dictionary filled event by event, and whatever the split and order."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter import segment
from meter.counting.aggregate import UsageDelta, aggregate, merge, regroup
from meter.domain.event import Origin
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import BAND_EDGES
from tests.meter.plain_events import BEGIN_MS, PlainEvent, recorded_events, table_of, to_batch

INPUT, CACHE_READ, OUTPUT, REASONING, AUDIO_OUTPUT = 1, 2, 7, 8, 22
GENERATED = {7, 8, 22, 32, 41}
TABLE = table_of(4)
Key = tuple[int, int, int, int]
Sums = dict[Key, dict[str, int]]
EVENTS = st.lists(recorded_events(), min_size=1, max_size=40)


def to_segment(events: Sequence[PlainEvent]) -> segment.Segment:
    """Return the events as they come out of the journal."""
    origin = Origin(account_id="", key_id="k", received_ms=0)
    batch = to_batch(events, table=TABLE)
    return segment.decode(
        segment.encode([(origin, batch)], dimension_ids=lambda it: it.dimension + 1)
    )


def add_slowly(events: Iterable[PlainEvent]) -> Sums:
    """Add up one event after the other, by the words of the contract."""
    sums: Sums = defaultdict(lambda: defaultdict(int))
    for event in events:
        prompt = sum(count for number, count in event.tokens.items() if number not in GENERATED)
        generated = sum(count for number, count in event.tokens.items() if number in GENERATED)
        finish_class = {1: 1, 2: 1, 3: 2, 4: 3}[event.extra.get("finish", 1)]
        band = len([edge for edge in BAND_EDGES if prompt >= edge])
        start = event.end_ms // INTERVAL_MS * INTERVAL_MS
        row = sums[(event.dimension + 1, start, band, finish_class)]
        for number, count in event.tokens.items():
            row[f"class {number}"] += count
        row["requests"] += 1
        row["delivered"] += generated if finish_class == 1 else 0
        row["estimated"] += prompt + generated if event.extra.get("quality", 1) != 1 else 0
    return sums


def to_sums(*deltas: UsageDelta) -> Sums:
    """Return deltas added together, by key, without zeros."""
    sums: Sums = defaultdict(lambda: defaultdict(int))
    for delta in deltas:
        for place in range(len(delta)):
            row = sums[
                int(delta.dimension_id[place]),
                int(delta.interval_start_ms[place]),
                int(delta.band[place]),
                int(delta.finish_class[place]),
            ]
            row["requests"] += int(delta.request_count[place])
            row["delivered"] += int(delta.delivered_output_count[place])
            row["estimated"] += int(delta.estimated_count[place])
            for number, counts in delta.tokens.items():
                row[f"class {int(number)}"] += int(counts[place])
    return sums


def signed(event: PlainEvent, sign: int) -> PlainEvent:
    """Return the event as a correction has it."""
    return replace(event, extra={**event.extra, "sign": sign})


def without_rows_of_zeros(sums: Sums) -> Sums:
    """Return the sums without zeros, and without the keys of which nothing is left."""
    return {key: row for key, row in without_zeros(sums).items() if row}


def without_zeros(sums: Sums) -> Sums:
    """Return the sums with the zeros left out, so that absence and zero are one."""
    return {key: {name: it for name, it in row.items() if it} for key, row in sums.items()}


@given(events=EVENTS)
def test_aggregate__equals_adding_one_by_one(events: list[PlainEvent]) -> None:
    """The sums of every key are those of a dictionary filled by hand, and each key comes once."""
    delta = aggregate([to_segment(events)])
    assert without_zeros(to_sums(delta)) == without_zeros(add_slowly(events))
    assert len(delta) == len(add_slowly(events))


@given(events=EVENTS, data=st.data())
def test_aggregate__split_and_order_do_not_matter(
    events: list[PlainEvent], data: st.DataObject
) -> None:
    """Any order in any segments, added in any number of runs, gives the same sums."""
    shuffled = data.draw(st.permutations(events))
    borders = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
    starts, ends = [0, *borders], [*borders, len(events)]
    parts = [shuffled[a:b] for a, b in zip(starts, ends, strict=True) if a < b]
    whole = without_zeros(to_sums(aggregate([to_segment(events)])))
    assert without_zeros(to_sums(aggregate([to_segment(part) for part in parts]))) == whole
    deltas = [aggregate([to_segment(part)]) for part in parts]
    assert without_zeros(to_sums(*deltas)) == whole
    merged = merge(deltas)
    assert without_zeros(to_sums(merged)) == whole
    assert len(merged) == len(add_slowly(events)), "each key comes once"


@given(events=EVENTS)
def test_regroup__is_as_if_events_had_the_other_keys(events: list[PlainEvent]) -> None:
    """What falls under one key is added up, and its intervals stay apart."""
    delta = aggregate([to_segment(events)])
    dimension_id = delta.dimension_id % 2
    whole = regroup(
        delta,
        dimension_id=dimension_id,
        band=delta.band * 0,
        finish_class=delta.finish_class * 0 + 1,
    )
    expected: Sums = defaultdict(lambda: defaultdict(int))
    for (dimension, start, _, _), sums in to_sums(delta).items():
        for name, count in sums.items():
            expected[dimension % 2, start, 0, 1][name] += count
    assert without_zeros(to_sums(whole)) == without_zeros(expected)
    assert len(whole) == len(expected), "each key comes once"


@given(
    events=EVENTS,
    choices=st.lists(
        st.tuples(st.integers(0, 39), st.one_of(st.none(), recorded_events())), max_size=20
    ),
    data=st.data(),
)
def test_aggregate__corrections_leave_what_survives(
    events: list[PlainEvent],
    choices: list[tuple[int, PlainEvent | None]],
    data: st.DataObject,
) -> None:
    """Whatever is voided and replaced, and again, every sum of every key is the survivors'."""
    surviving: dict[int, PlainEvent] = dict(enumerate(events))
    segments = [to_segment(events)]
    for number, replacement in choices:
        taken = surviving.pop(number, None)
        if taken is None:
            continue
        rows = [signed(taken, -1)]
        if replacement is not None:
            surviving[number] = replacement
            rows.append(signed(replacement, 1))
        segments.append(to_segment(rows))
    wanted = without_zeros(add_slowly(surviving.values()))
    assert without_rows_of_zeros(to_sums(aggregate(segments))) == wanted
    border = data.draw(st.integers(1, len(segments)))
    parts = [part for part in (segments[:border], segments[border:]) if part]
    assert without_rows_of_zeros(to_sums(*map(aggregate, parts))) == wanted


@pytest.mark.parametrize(
    ("prompt", "band"),
    [
        (0, 0),
        (31_999, 0),
        (32_000, 1),
        (63_999, 1),
        (64_000, 2),
        (127_999, 2),
        (128_000, 3),
        (199_999, 3),
        (200_000, 4),
        (255_999, 4),
        (256_000, 5),
        (271_999, 5),
        (272_000, 6),
        (511_999, 6),
        (512_000, 7),
        (999_999, 7),
        (1_000_000, 8),
        (2_000_000_000, 8),
    ],
)
def test_aggregate__band_is_that_of_the_whole_prompt(prompt: int, band: int) -> None:
    """A prompt at an edge lies above it; cached tokens belong to the prompt, output does not."""
    half = prompt // 2
    tokens = {INPUT: prompt - half, CACHE_READ: half, OUTPUT: 40_000, REASONING: 5}
    event = PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens=tokens)
    assert aggregate([to_segment([event])]).band.tolist() == [band]


@pytest.mark.parametrize(
    ("end_ms", "start_ms"),
    [
        (BEGIN_MS - 1, BEGIN_MS - INTERVAL_MS),
        (BEGIN_MS, BEGIN_MS),
        (BEGIN_MS + INTERVAL_MS - 1, BEGIN_MS),
        (BEGIN_MS + INTERVAL_MS, BEGIN_MS + INTERVAL_MS),
    ],
)
def test_aggregate__interval_is_half_open(end_ms: int, start_ms: int) -> None:
    """A request that ends on an edge belongs to the interval that begins there."""
    event = PlainEvent(dimension=0, end_ms=end_ms, tokens={})
    assert aggregate([to_segment([event])]).interval_start_ms.tolist() == [start_ms]


@pytest.mark.parametrize(
    ("finish", "finish_class", "delivered"), [(1, 1, 12), (2, 1, 12), (3, 2, 0), (4, 3, 0)]
)
def test_aggregate__delivered_is_the_output_of_what_was_finished(
    finish: int, finish_class: int, delivered: int
) -> None:
    """Output of a cancelled or failed request is counted, but not as delivered."""
    event = PlainEvent(
        dimension=0,
        end_ms=BEGIN_MS,
        tokens={INPUT: 5, OUTPUT: 7, AUDIO_OUTPUT: 5},
        extra={"finish": finish},
    )
    delta = aggregate([to_segment([event])])
    assert delta.finish_class.tolist() == [finish_class]
    assert delta.delivered_output_count.tolist() == [delivered]


@pytest.mark.parametrize(("quality", "estimated"), [(1, 0), (2, 12), (3, 12)])
def test_aggregate__estimated_are_all_tokens_that_are_not_final(
    quality: int, estimated: int
) -> None:
    """Partial and estimated counts are in the sums, and shown for what they are."""
    event = PlainEvent(
        dimension=0, end_ms=BEGIN_MS, tokens={INPUT: 5, OUTPUT: 7}, extra={"quality": quality}
    )
    delta = aggregate([to_segment([event])])
    assert delta.estimated_count.tolist() == [estimated]
    assert sum(int(counts[0]) for counts in delta.tokens.values()) == 12


def test_aggregate__keys_far_apart() -> None:
    """Dimensions and times that lie so far apart that no table of all keys fits are sorted."""
    events = [
        PlainEvent(dimension=dimension, end_ms=end_ms, tokens={INPUT: 1})
        for dimension in (0, 3)
        for end_ms in (0, 2 * BEGIN_MS)
    ]
    assert len(add_slowly(events)) == 4
    assert without_zeros(to_sums(aggregate([to_segment(events)]))) == without_zeros(
        add_slowly(events)
    )


def test_aggregate__a_full_transaction_of_the_largest_counts_does_not_overflow() -> None:
    """Sums stay exact at the bound of what one transaction counts, all in one row."""
    one = PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={INPUT: 1_000_000_000})
    part = to_segment([one] * 10_000)
    delta = aggregate([part] * 200)
    assert delta.tokens[next(iter(delta.tokens))].tolist() == [2_000_000 * 1_000_000_000]
