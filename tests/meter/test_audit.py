"""The audit's own sums: against a dictionary filled event by event, against usage, and damaged."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter import segment
from meter.counting.aggregate import aggregate
from meter.counting.audit import Catalogue, CutMarks, Ledger, Sku, UsageRows, Window
from meter.counting.block import SUM_NAMES
from meter.counting.repeats import BatchNumbers, EventIds, Repeat
from meter.counting.windows import Extent, Weights, cut_into_windows
from meter.domain.event import Origin
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import BAND_EDGES, TokenClass
from tests.meter.plain_events import BEGIN_MS, PlainEvent, recorded_events, table_of, to_batch

GENERATED = {7, 8, 22, 32, 41}
TABLE = table_of(4)
WINDOW = Window(start_ms=BEGIN_MS, end_ms=BEGIN_MS + 3 * INTERVAL_MS)
# Two dimensions of one account and sku (as two pools have it), and two of others.
PAIRS = {1: (1, 1), 2: (1, 1), 3: (1, 2), 4: (2, 1)}
SKU = Sku(model="m", served_model="m", tier="high", mode=1, region="")
CATALOGUE = Catalogue(
    accounts=["a", "b"],
    skus={1: SKU, 2: replace(SKU, model="n")},
    dimension_id=np.array(list(PAIRS), np.int64),
    account_number=np.array([account for account, _ in PAIRS.values()], np.int64),
    sku_id=np.array([sku for _, sku in PAIRS.values()], np.int64),
)
NO_USAGE = UsageRows(
    **{
        name: np.zeros(0, np.int64)
        for name in (
            "account_number",
            "interval_start_ms",
            "sku_id",
            "band",
            "finish_class",
            "cut_id",
        )
    },
    sums=np.zeros((0, len(SUM_NAMES)), np.int64),
)
SIGNED = st.lists(st.tuples(recorded_events(), st.sampled_from([1, 1, -1])), max_size=30)
Key = tuple[str, str, int, int, int, str]


def to_segment(events: Sequence[PlainEvent], *, origin: Origin | None = None) -> segment.Segment:
    """Return the events as they come out of the journal."""
    origin = origin or Origin(account_id="", key_id="k", received_ms=0)
    batch = to_batch(events, table=TABLE)
    body = segment.encode([(origin, batch)], dimension_ids=lambda it: it.dimension + 1)
    return segment.decode(body)


def signed(pairs: Iterable[tuple[PlainEvent, int]]) -> list[PlainEvent]:
    """Return events with their signs."""
    return [
        replace(event, extra=event.extra | ({"sign": sign} if sign < 0 else {}))
        for event, sign in pairs
    ]


def add_slowly(events: Iterable[PlainEvent]) -> dict[Key, int]:
    """Add up one event after the other, by the words of the contract; without zeros."""
    sums: dict[Key, int] = defaultdict(int)
    for event in events:
        if not WINDOW.start_ms <= event.end_ms < WINDOW.end_ms:
            continue
        account, sku = PAIRS[event.dimension + 1]
        sign = event.extra.get("sign", 1)
        prompt = sum(count for number, count in event.tokens.items() if number not in GENERATED)
        generated = sum(count for number, count in event.tokens.items() if number in GENERATED)
        finish = {1: 1, 2: 1, 3: 2, 4: 3}[event.extra.get("finish", 1)]
        band = len([edge for edge in BAND_EDGES if prompt >= edge])
        start = event.end_ms // INTERVAL_MS * INTERVAL_MS
        row = ("ab"[account - 1], "mn"[sku - 1], start, band, finish)
        for number, count in event.tokens.items():
            sums[*row, TokenClass(number).name.lower()] += sign * count
        sums[*row, "request_count"] += sign
        sums[*row, "delivered_output_count"] += sign * generated if finish == 1 else 0
        is_final = event.extra.get("quality", 1) == 1
        sums[*row, "estimated_count"] += 0 if is_final else sign * (prompt + generated)
    return {key: count for key, count in sums.items() if count}


def ledger_of(*segments: segment.Segment, usage: UsageRows = NO_USAGE) -> Ledger:
    """Return a ledger of segments that carry cut 1."""
    ledger = Ledger(WINDOW, catalogue=CATALOGUE, usage=usage)
    for part in segments:
        ledger.add(part, cut_id=1)
    return ledger


def usage_of(*segments: segment.Segment) -> UsageRows:
    """Return the rows that the follower's own adding makes of segments, all in the window."""
    delta = aggregate(segments)
    pairs = [PAIRS[number] for number in delta.dimension_id.tolist()]
    sums = np.zeros((len(delta), len(SUM_NAMES)), np.int64)
    for token_class, counts in delta.tokens.items():
        sums[:, SUM_NAMES.index(token_class.name.lower())] = counts
    for name in ("request_count", "delivered_output_count", "estimated_count"):
        sums[:, SUM_NAMES.index(name)] = getattr(delta, name)
    return UsageRows(
        account_number=np.array([account for account, _ in pairs], np.int64),
        interval_start_ms=delta.interval_start_ms,
        sku_id=np.array([sku for _, sku in pairs], np.int64),
        band=delta.band,
        finish_class=delta.finish_class,
        cut_id=np.ones(len(delta), np.int64),
        sums=sums,
    )


@given(st.lists(SIGNED.filter(bool), max_size=4))
def test_ledger__against_event_by_event(parts: list[list[tuple[PlainEvent, int]]]) -> None:
    """Every sum of every key is what adding one event after the other gives, signs included."""
    events = [signed(part) for part in parts]
    found = {
        (it.account_id, it.sku.model, it.interval_start_ms, it.band, it.finish_class, it.name): (
            it.journal
        )
        for it in ledger_of(*map(to_segment, events)).differences()
        if it.sku is not None and it.usage == 0
    }
    assert found == add_slowly(event for part in events for event in part)


def event(
    *, dimension: int = 0, at: int = 0, event_id: bytes = b"", sign: int = 1, **tokens: int
) -> PlainEvent:
    """Return an event of the window; `at` is ms from its begin."""
    return PlainEvent(
        dimension=dimension,
        end_ms=BEGIN_MS + at,
        tokens={int(TokenClass[name.upper()]): count for name, count in tokens.items()},
        extra={} if sign > 0 else {"sign": sign},
        event_id=event_id,
    )


@given(st.lists(recorded_events(), min_size=1, max_size=30))
def test_ledger__agrees_with_the_follower(events: list[PlainEvent]) -> None:
    """The two ways of adding up come to the same: nothing differs."""
    inside = [
        replace(it, end_ms=WINDOW.start_ms + it.end_ms % (WINDOW.end_ms - WINDOW.start_ms))
        for it in events
    ]
    part = to_segment(inside)
    assert list(ledger_of(part, usage=usage_of(part)).differences()) == []


def test_differences__name_the_first_one() -> None:
    """A count that is one too high is named by interval, account, sku and name, with both."""
    part = to_segment([event(input=5), event(dimension=3, at=INTERVAL_MS, input=7, output=2)])
    usage = usage_of(part)
    usage.sums[1, SUM_NAMES.index("output")] += 1
    (found,) = ledger_of(part, usage=usage).differences()
    assert (found.interval_start_ms, found.account_id, found.name) == (
        BEGIN_MS + INTERVAL_MS,
        "b",
        "output",
    )
    assert (found.journal, found.usage, found.cut_id) == (2, 3, 1)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("band", 9),
        ("band", 300),
        ("band", -1),
        ("finish_class", 0),
        ("finish_class", 77),
        ("cut_id", 2),
        ("cut_id", 99),
        ("sku_id", 2),
        ("sku_id", 55),
        ("account_number", 2),
        ("account_number", 0),
        ("interval_start_ms", BEGIN_MS + INTERVAL_MS),
    ],
)
def test_differences__a_row_with_another_key(column: str, value: int) -> None:
    """A row of usage whose key was changed to anything is missing here and too much there."""
    part = to_segment([event(input=5)])
    usage = replace(usage_of(part), **{column: np.array([value], np.int64)})
    found = [it for it in ledger_of(part, usage=usage).differences() if it.name == "input"]
    assert sorted((it.journal, it.usage) for it in found) == [(0, 5), (5, 0)]


def test_ledger__another_cut() -> None:
    """The same sums under another cut are a difference: usage below a cut never changes."""
    part = to_segment([event(input=5)])
    ledger = Ledger(WINDOW, catalogue=CATALOGUE, usage=usage_of(part))
    ledger.add(part, cut_id=2)
    found = [(it.cut_id, it.journal, it.usage) for it in ledger.differences() if it.name == "input"]
    assert found == [(1, 0, 5), (2, 5, 0)]


def test_ledger__what_does_not_exist() -> None:
    """Dimensions and token classes that nobody knows are told, and all else is added up."""
    part = to_segment([event(input=5), event(dimension=3, input=7)])
    unknown = replace(
        part,
        columns={**part.columns, "dimension": part.columns["dimension"] + np.array([0, 40])},
        tokens={**part.tokens, 99: np.array([1, 1])},
    )
    ledger = ledger_of(unknown)
    assert ledger.totals()[0]["input"] == 5
    assert (ledger.unknown_dimensions, ledger.unknown_classes) == ({44}, {99})


def test_ledger__numbers_too_large_for_doubles() -> None:
    """A damaged count of nine digits more is still added up to the last token."""
    part = to_segment([event(output=1), event(output=2)])
    huge = replace(part, tokens={7: np.array([2**60, 1], np.int64)})
    assert ledger_of(huge).totals()[0]["output"] == 2**60 + 1


def test_cut_of__the_first_at_or_above() -> None:
    """A segment's usage carries the first cut taken at or above it, else the one that is open."""
    marks = CutMarks(newest_id=7, by_shard={0: ([3, 5, 7], [10, 10, 20])})
    assert [marks.cut_of(0, position) for position in (1, 10, 11, 20, 21)] == [3, 3, 7, 7, 8]
    assert marks.cut_of(1, 1) == 8


ID = bytes(range(16))
OTHER = bytes(range(1, 17))


def repeats(*parts: tuple[str, Sequence[PlainEvent]], ids: EventIds | None = None) -> list[Repeat]:
    """Return what is repeated among segments, each of one producer ("" for a call)."""
    ids = ids or EventIds()
    ledger = Ledger(WINDOW, catalogue=CATALOGUE, usage=NO_USAGE)
    found: list[Repeat] = []
    for position, (producer, events) in enumerate(parts, 1):
        origin = Origin(
            account_id="a", key_id="k", received_ms=0, producer=producer, sequence=position
        )
        part = to_segment(events, origin=origin)
        found += ids.add(
            part,
            ledger.account_numbers(part),
            shard=0,
            position=position,
            span_ms=(WINDOW.start_ms, WINDOW.end_ms),
        )
    return [*found, *ids.end_window(WINDOW.end_ms)]


def test_ids__of_two_producers() -> None:
    """An id that two producers reported for one account is named with both batches and times."""
    (found,) = repeats(
        ("p", [event(event_id=OTHER), event(event_id=ID, at=3)]),
        ("q", [event(event_id=ID, at=INTERVAL_MS)]),
    )
    assert (found.event_id, found.account_number, found.is_of_two_producers) == (ID, 1, True)
    places = [(it.producer, it.sequence, it.position, at) for it, at in found.places]
    assert places == [("p", 1, 1, BEGIN_MS + 3), ("q", 2, 2, BEGIN_MS + INTERVAL_MS)]


@pytest.mark.parametrize(
    "parts",
    [
        [("p", [event(event_id=ID)]), ("q", [event(event_id=OTHER)])],
        [("p", [event(), event()]), ("q", [event()])],
        # Accounts choose ids on their own.
        [("p", [event(event_id=ID)]), ("q", [event(event_id=ID, dimension=3)])],
        # Voided, and voided and replaced.
        [("p", [event(event_id=ID)]), ("", [event(event_id=ID, sign=-1)])],
        [("p", [event(event_id=ID)]), ("", [event(event_id=ID, sign=-1), event(event_id=ID)])],
        # One of two was voided.
        [
            ("p", [event(event_id=ID)]),
            ("q", [event(event_id=ID)]),
            ("", [event(event_id=ID, sign=-1)]),
        ],
    ],
)
def test_ids__no_repeat(parts: list[tuple[str, list[PlainEvent]]]) -> None:
    """Other ids, no ids, other accounts and what was corrected are no repeats."""
    assert repeats(*parts) == []


def test_ids__of_one_producer() -> None:
    """A producer that names two of its events alike is told apart from two that report one."""
    (found,) = repeats(("p", [event(event_id=ID)]), ("p", [event(event_id=ID, at=1)]))
    assert (found.is_of_two_producers, found.is_counted_by_id) == (False, False)
    (called,) = repeats(("", [event(event_id=ID)]), ("", [event(event_id=ID, at=1)]))
    assert (called.is_of_two_producers, called.is_counted_by_id) == (False, True)


def test_ids__across_the_edge_of_a_window() -> None:
    """What two report on both sides of an edge, within 15 minutes, is found, and told once."""
    ids = EventIds()
    last = 3 * INTERVAL_MS - 1
    assert repeats(("p", [event(event_id=ID, at=last), event(event_id=OTHER)]), ids=ids) == []
    ledger = Ledger(WINDOW, catalogue=CATALOGUE, usage=NO_USAGE)
    origin = Origin(account_id="a", key_id="k", received_ms=0, producer="q", sequence=1)
    events = [event(event_id=ID, at=last + 5), event(event_id=OTHER, at=last + 5)]
    part = to_segment(events, origin=origin)
    span = (WINDOW.end_ms, WINDOW.end_ms + INTERVAL_MS)
    numbers = ledger.account_numbers(part)
    assert list(ids.add(part, numbers, shard=0, position=9, span_ms=span)) == []
    (found,) = ids.end_window(span[1])
    assert [(it.producer, it.position) for it, _ in found.places] == [("p", 1), ("q", 9)]
    assert list(ids.end_window(span[1] + INTERVAL_MS)) == []


def test_ids__told_once() -> None:
    """What was told and is held for the next window is not told again with it."""
    ids, last = EventIds(), 3 * INTERVAL_MS - 1
    parts = [(producer, [event(event_id=ID, at=last)]) for producer in ("p", "q")]
    assert len(repeats(*parts, ids=ids)) == 1
    assert list(ids.end_window(WINDOW.end_ms + INTERVAL_MS)) == []


def test_ids__of_two_accounts() -> None:
    """One id that is repeated for each of two accounts is two repeats."""
    parts = [
        (producer, [event(event_id=ID, dimension=dimension)])
        for producer, dimension in (("p", 0), ("q", 0), ("r", 3), ("s", 3))
    ]
    found = repeats(*parts)
    assert sorted((it.account_number, len(it.places)) for it in found) == [(1, 2), (2, 2)]


def test_ids__more_than_fit() -> None:
    """Above its bound of memory it compares what it has, and goes on with the newest half."""
    ids = EventIds(ids_max=4)
    many = [event(event_id=bytes([number] * 16), at=number) for number in range(1, 6)]
    again = [event(event_id=bytes([number] * 16), at=number) for number in (1, 5)]
    found = repeats(("p", many), ("q", again), ids=ids)
    assert [it.event_id[0] for it in found] == [5]
    assert ids.shortened_count == 1


@given(st.permutations(list(range(1, 13))), st.integers(1, 12))
def test_numbers__in_any_order(order: list[int], again: int) -> None:
    """Each number of a producer is new once, in whatever order; a second time it is told."""
    numbers = BatchNumbers(released={})
    assert not any(numbers.add(("a", "p"), sequence) for sequence in order)
    assert not numbers.add(("a", "q"), again)
    assert numbers.add(("a", "p"), again)


def test_numbers__released_from_quarantine() -> None:
    """An event that was released carries its batch's number: as often as that happened."""
    numbers = BatchNumbers(released={("a", "p", 4): 2})
    assert [numbers.add(("a", "p"), 4) for _ in range(4)] == [False, False, False, True]


def weights(*rows: tuple[int, int, int]) -> Weights:
    """Return weights: interval, rows and events of each."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Weights(
        start_ms=table[:, 0] * INTERVAL_MS, row_count=table[:, 1], event_count=table[:, 2]
    )


def spans(weights: Weights, *extents: tuple[int, int], until: int = 10_000) -> list[list[int]]:
    """Return windows by their first and last interval."""
    lying = [
        Extent(
            shard=0,
            first_position=1,
            last_position=1,
            first_ms=first * INTERVAL_MS,
            last_ms=last * INTERVAL_MS,
        )
        for first, last in extents
    ]
    span = Window(start_ms=0, end_ms=until * INTERVAL_MS)
    windows = cut_into_windows(weights, extents=lying, span=span)
    return [[it.start_ms // INTERVAL_MS, it.end_ms // INTERVAL_MS] for it in windows]


def test_windows__days_and_less() -> None:
    """A window is a day at most, less where there is much, one interval at least; none is empty."""
    assert spans(weights((5, 10, 10), (95, 1, 1), (300, 1, 1))) == [[5, 96], [300, 384]]
    heavy = weights((1, 200_000, 1), (2, 200_000, 1), (3, 1, 9_000_000), (4, 1, 1))
    assert spans(heavy) == [[1, 2], [2, 3], [3, 4], [4, 96]]
    # A segment that spans days may hold events of any of them.
    assert spans(weights((90, 1, 1)), (90, 200)) == [[90, 96], [96, 192], [192, 288]]
    assert spans(weights((90, 1, 1)), (90, 200), until=100) == [[90, 96], [96, 100]]
    assert spans(weights()) == []
