"""Journal bytes: what goes in comes out, and the same events make the same bytes."""

import json
import struct
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meter import segment
from meter.domain.event import DEFAULTS, EventBatch, Int64Array, Origin
from meter.domain.tokens import TokenClass
from meter.planes import half_bytes_of
from meter.segment_columns import Column, find_rows, pack, take, unpack
from tests.meter.plain_events import (
    BEGIN_MS,
    PlainEvent,
    narrowed,
    recorded_events,
    table_of,
    to_batch,
    to_plain,
)

TABLE = table_of(4)
ORIGINS = st.builds(
    Origin,
    account_id=st.sampled_from(["", "acme"]),
    key_id=st.sampled_from(["key_1", "key_2"]),
    received_ms=st.integers(0, 2 * BEGIN_MS),
    producer=st.sampled_from(["", "vllm-0.a"]),
    instance=st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
    sequence=st.integers(0, 2**62),
    # Not in the bytes as they are here.
    digest=st.just(b""),
    left_out=st.one_of(st.just(()), st.just((0, 2))),
)
VERSIONS = st.sampled_from([segment.VERSION, segment.NAMED_ONCE_VERSION])
BATCHES = st.lists(st.lists(recorded_events(), min_size=1, max_size=20), min_size=1, max_size=4)


def handles(batch: EventBatch) -> Int64Array:
    """Stand for the database's ids: the handles themselves, far up."""
    return batch.dimension + 70_000


def encode(batches: list[list[PlainEvent]], *, origin: Origin | None = None) -> bytes:
    """Return the body for batches that all have one origin."""
    origin = origin or Origin(account_id="", key_id="k", received_ms=0)
    parts = [(origin, to_batch(events, table=TABLE)) for events in batches]
    return segment.encode(parts, dimension_ids=handles)


@given(batches=BATCHES, origins=st.lists(ORIGINS, min_size=4, max_size=4), version=VERSIONS)
def test_decode__gives_back_what_was_encoded(
    batches: list[list[PlainEvent]], origins: list[Origin], version: int
) -> None:
    """Events and origins of any batches come out of the bytes of any version as they went in."""
    pairs = list(zip(origins, batches, strict=False))
    body = segment.encode(
        [(origin, to_batch(events, table=TABLE)) for origin, events in pairs],
        dimension_ids=handles,
        newest_version=version,
    )
    decoded = segment.decode(body)
    wanted = [event for _, events in pairs for event in events]
    found = to_plain(decoded)
    assert [(item.dimension - 70_000, item.end_ms) for item in found] == [
        (item.dimension, item.end_ms) for item in wanted
    ]
    assert [(it.tokens, it.extra, it.event_id, it.request_id) for it in found] == [
        (it.tokens, it.extra, it.event_id, it.request_id) for it in wanted
    ]
    assert decoded.origins == [(origin, len(events)) for origin, events in pairs]


@given(batches=BATCHES, origins=st.lists(ORIGINS, min_size=4, max_size=4))
def test_decode__versions_say_the_same(
    batches: list[list[PlainEvent]], origins: list[Origin]
) -> None:
    """What names producers once, and keeps high values apart, is what names all in full."""
    parts = [
        (origin, to_batch(events, table=TABLE))
        for origin, events in zip(origins, batches, strict=False)
    ]
    before, now = (
        segment.encode(parts, dimension_ids=handles, newest_version=version)
        for version in (segment.VERSION, segment.NAMED_ONCE_VERSION)
    )
    assert (before[0], now[0]) == (1, 3)
    old, new = segment.decode(before), segment.decode(now)
    assert old.origins == new.origins
    assert to_plain(old) == to_plain(new)


@given(
    low=st.lists(st.integers(0, 40), min_size=1, max_size=300),
    high=st.dictionaries(st.integers(0, 299), st.integers(0, 2**62), max_size=12),
    base=st.sampled_from([-1, 0, 7]),
    width=st.sampled_from([1, 17, 5_000]),
)
@example(low=[0] * 100, high={99: 1}, base=-1, width=1)
@example(low=[15] * 100, high={0: 16, 99: 2**62}, base=0, width=1)
def test_pack__high_values_lie_apart(
    low: list[int], high: dict[int, int], base: int, width: int
) -> None:
    """Whatever few values are above most, all come out, alone or together, in no more bytes."""
    values = np.array(low * width, np.int64)
    for place, value in high.items():
        values[place % len(values)] = value
    values += base
    column, planes = pack("duration_ms", values, is_parted=True)
    packed = b"".join(planes)
    assert len(packed) == column.size_bytes(len(values))
    whole, _ = pack("duration_ms", values, is_parted=False)
    assert unpack(packed, column, len(values)).tolist() == values.tolist()
    rows = np.arange(len(values), dtype=np.int64)[::-1]
    assert take(packed, column, count=len(values), rows=rows).tolist() == values[::-1].tolist()
    if len(values) < 4_096:
        assert len(packed) <= whole.size_bytes(len(values))


def test_encode__few_high_values_widen_no_column() -> None:
    """One long answer among ten thousand takes some bytes, and not half of one of each event."""
    counts = np.random.default_rng(1).integers(0, 256, 10_000).tolist()
    sizes = [
        len(encode([[PlainEvent(dimension=0, end_ms=1, tokens={7: it}) for it in (*counts, most)]]))
        for most in (255, 100_000)
    ]
    assert sizes[1] - sizes[0] < 20


def test_encode__producers_are_named_once() -> None:
    """Who sends many batches of a segment is named once; each is some bytes more."""
    origin = Origin("acme", "key_of_a_fleet", BEGIN_MS, "vllm-0.a", b"i" * 16, 1_000)
    batch = to_batch([PlainEvent(dimension=0, end_ms=1, tokens={})], table=TABLE)
    sizes = [
        len(segment.encode([(origin, batch)] * count, dimension_ids=handles)) for count in (1, 101)
    ]
    # Of that a number for the producer, its batch, when it came and its events; and its columns.
    assert sizes[1] - sizes[0] < 100 * 20


_NAMED: dict[str, Any] = {
    "keys": [["", "k"]],
    "producers": [[0, "p", ""]],
    "first_received_ms": 0,
    "batches": [[0, 1, 0, 2]],
    "columns": [["dimension", 0, 1, None], ["end_ms", 0, 1, None], ["tokens.1", 1, 0, None, 1, 1]],
    "event_ids": 0,
    "request_ids": 0,
}


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({"producers": [[-1, "p", ""]]}, b"\x21\x01\x01"),
        ({"producers": [[1, "p", ""]]}, b"\x21\x01\x01"),
        ({"batches": [[-1, 1, 0, 2]]}, b"\x21\x01\x01"),
        ({"batches": [[1, 1, 0, 2]]}, b"\x21\x01\x01"),
        ({"batches": [[0, 1, 0, 10**12]]}, b"\x21\x01\x01"),
        ({"keys": []}, b"\x21\x01\x01"),
        # A place behind the last, too few bytes, and more high values than there are values.
        ({}, b"\x21\x02\x01"),
        ({}, b"\x21\x01"),
        ({"columns": [*_NAMED["columns"][:2], ["tokens.1", 1, 0, None, 3, 1]]}, b"\x21" + bytes(9)),
        ({"columns": [*_NAMED["columns"][:2], ["tokens.1", 1, 0, None, -1, 1]]}, b"\x21"),
        (
            {"columns": [*_NAMED["columns"][:2], ["tokens.1", 1, 0, None, 1, 17]]},
            b"\x21" + bytes(9),
        ),
    ],
)
def test_decode__named_once_and_damaged(changes: dict[str, object], data: bytes) -> None:
    """Bytes of version 3 that cannot be are refused; those that can be are read."""

    def body(said: dict[str, object], packed: bytes) -> bytes:
        header = json.dumps(said).encode()
        return struct.pack("<BI", segment.NAMED_ONCE_VERSION, len(header)) + header + packed

    whole = segment.decode(body(_NAMED, b"\x21\x01\x01"))
    assert whole.tokens[1].tolist() == [1, 2 + 16]
    with pytest.raises(segment.READ_FAULTS):
        segment.decode(body({**_NAMED, **changes}, data))


@given(events=st.lists(recorded_events(), min_size=1, max_size=20))
def test_encode__defaults_and_absence_are_the_same_bytes(events: list[PlainEvent]) -> None:
    """Columns of defaults, classes of zeros and empty ids leave no trace in the bytes."""
    plain = to_batch(events, table=TABLE)
    full = EventBatch(
        table=TABLE,
        dimension=plain.dimension,
        end_ms=plain.end_ms,
        tokens={
            int(number): plain.tokens.get(number, np.zeros(len(plain), np.int64))
            for number in reversed(TokenClass)
        },
        extra={name: plain.column(name) for name in reversed(list(DEFAULTS))},
        event_ids=np.zeros((len(plain), 16), np.uint8)
        if plain.event_ids is None
        else plain.event_ids,
        request_ids=plain.request_ids,
    )
    origin = Origin(account_id="", key_id="k", received_ms=0)
    assert segment.encode([(origin, full)], dimension_ids=handles) == encode([events])


@given(batches=BATCHES)
def test_encode__grouping_only_shows_in_the_origins(batches: list[list[PlainEvent]]) -> None:
    """Events are the same whether they came in one batch or in several."""
    together = segment.decode(encode([[event for events in batches for event in events]]))
    assert to_plain(segment.decode(encode(batches))) == to_plain(together)


@given(batches=BATCHES, are_narrow=st.lists(st.booleans(), min_size=4, max_size=4))
def test_encode__width_of_columns_leaves_no_trace(
    batches: list[list[PlainEvent]], are_narrow: list[bool]
) -> None:
    """Columns of a byte, two or four, beside each other and wide ones, are the same bytes."""
    origin = Origin(account_id="", key_id="k", received_ms=0)
    parts = [to_batch(events, table=TABLE) for events in batches]
    mixed = [
        (origin, narrowed(part) if is_narrow else part)
        for part, is_narrow in zip(parts, are_narrow, strict=False)
    ]
    assert segment.encode(mixed, dimension_ids=handles) == encode(batches)


@given(
    ends=st.lists(
        st.one_of(
            st.integers(0, 40),
            st.sampled_from([2**31 - 1, 2**31, 2**31 + 1, 2**32, 2**40]),
            st.integers(0, 2**62),
        ),
        min_size=1,
        max_size=12,
    ),
    base=st.sampled_from([0, 1, BEGIN_MS]),
    is_sorted=st.booleans(),
)
@example(ends=[0, 2**32], base=0, is_sorted=True)
def test_encode__times_are_packed_as_the_document_says(
    ends: list[int], base: int, *, is_sorted: bool
) -> None:
    """Times are steps where these are narrower than the times, however wide either is."""
    times = [base + it for it in (sorted(ends) if is_sorted else ends)]
    body = encode([[PlainEvent(dimension=0, end_ms=it, tokens={}) for it in times]])
    steps = [0, *(later - earlier for earlier, later in pairwise(times))]
    whole, stepped = (
        Column("end_ms", half_bytes_of(max(numbers) - min(numbers)), min(numbers), start)
        for numbers, start in ((times, None), (steps, times[0]))
    )
    is_stepped = whole.half_bytes > 1 and stepped.half_bytes < whole.half_bytes
    head = segment.read_head(body)
    assert head.parts["end_ms"].column == (stepped if is_stepped else whole)
    assert [it.end_ms for it in to_plain(segment.decode(body))] == times


@pytest.mark.parametrize("width", range(0, 63, 3))
def test_decode__every_width(width: int) -> None:
    """Numbers of any width survive, at odd and even counts of events."""
    for count in (1, 2, 3):
        values = [(1 << width) - 1, 0, (1 << width) // 3][:count]
        events = [
            PlainEvent(dimension=0, end_ms=value, tokens={1: value} if value else {})
            for value in values
        ]
        assert [item.end_ms for item in to_plain(segment.decode(encode([events])))] == values


def test_encode__ordered_times_take_less_than_their_span() -> None:
    """Times that rise a little at each step cost half a byte or one, not the width of an hour."""
    steps = np.random.default_rng(1).integers(0, 200, 10_000)
    ordered = [
        PlainEvent(dimension=0, end_ms=int(end), tokens={}) for end in BEGIN_MS + np.cumsum(steps)
    ]
    body = encode([ordered])
    assert len(body) < 10_500
    assert to_plain(segment.decode(body)) == [replace(it, dimension=70_000) for it in ordered]


@given(ends=st.lists(st.integers(0, 2 * BEGIN_MS), min_size=1, max_size=30).map(sorted))
def test_decode__times_in_order(ends: list[int]) -> None:
    """Times that only rise, or only fall, come out as they went in."""
    for column in (ends, ends[::-1]):
        events = [PlainEvent(dimension=0, end_ms=end_ms, tokens={}) for end_ms in column]
        assert [it.end_ms for it in to_plain(segment.decode(encode([events])))] == column


def test_decode__unknown_version_is_refused() -> None:
    """Bytes of a later version are not guessed at."""
    body = encode([[PlainEvent(dimension=0, end_ms=1, tokens={})]])
    with pytest.raises(ValueError, match="segment version 4"):
        segment.decode(struct.pack("<B", 4) + body[1:])


@pytest.mark.parametrize("signs", [(-1,), (-1, 1)])
def test_encode__signs_are_of_version_2(signs: tuple[int, ...]) -> None:
    """Only a segment of corrections has signs, and a version that older servers refuse to count."""
    events = [PlainEvent(dimension=0, end_ms=1, tokens={1: 7}, extra={"sign": it}) for it in signs]
    body = encode([events])
    decoded = segment.decode(body)
    assert (body[0], decoded.is_correction) == (2, True)
    assert decoded.column("sign").tolist() == list(signs)
    plain = encode([[replace(event, extra={}) for event in events]])
    assert (plain[0], segment.decode(plain).is_correction) == (3, False)
    assert segment.decode(plain).column("sign").tolist() == [1] * len(signs)


@given(
    values=st.lists(st.integers(0, 2**62), min_size=1, max_size=60),
    shift=st.integers(0, 61),
    others=st.lists(st.integers(0, 2**62), max_size=20),
    data=st.data(),
)
def test_find_rows__are_those_that_hold_a_wanted_value(
    values: list[int], shift: int, others: list[int], data: st.DataObject
) -> None:
    """Whatever a column's width, the rows found are those whose values are wanted, read or not."""
    numbers = np.array([it >> shift for it in values], np.int64)
    events = [PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: 1}) for _ in values]
    body = segment.encode(
        [(Origin(account_id="", key_id="k", received_ms=0), to_batch(events, table=TABLE))],
        dimension_ids=lambda _: numbers,
    )
    head = segment.read_head(body[: segment.head_size_bytes(body)])
    part = head.parts["dimension"]
    packed = body[part.offset : part.offset + part.size_bytes]
    wanted = data.draw(st.lists(st.sampled_from(numbers.tolist()), max_size=20)) + others
    rows = find_rows(
        packed, part.column, count=head.event_count, wanted=np.array(sorted(set(wanted)), np.int64)
    )
    assert segment.read_first(body, count=head.event_count) == part
    assert rows.tolist() == [row for row, it in enumerate(numbers.tolist()) if it in wanted]
    every = np.arange(len(values), dtype=np.int64)[::-1]
    taken = take(packed, part.column, count=head.event_count, rows=every)
    assert taken.tolist() == numbers.tolist()[::-1]


@given(batches=BATCHES)
def test_read_head__says_where_each_column_lies(batches: list[list[PlainEvent]]) -> None:
    """Every column that is taken by its place has the values of the whole segment, read at once."""
    body = encode(batches)
    whole = segment.decode(body)
    head = segment.read_head(body)
    rows = np.arange(len(whole), dtype=np.int64)
    assert head.event_count == len(whole)
    columns = {**whole.columns, **{f"tokens.{it}": at for it, at in whole.tokens.items()}}
    assert head.parts.keys() == columns.keys()
    for name, part in head.parts.items():
        packed = body[part.offset : part.offset + part.size_bytes]
        taken = take(packed, part.column, count=len(whole), rows=rows)
        assert taken.tolist() == columns[name].tolist()


@pytest.mark.parametrize("count", [-1, 10**12, 1.5, None])
def test_decode__head_that_cannot_be_is_damaged(count: object) -> None:
    """A head that speaks of more events than there can be takes no memory for them."""
    header = json.dumps({"batches": [["", "k", 0, "", "", 0, count]], "columns": []}).encode()
    body = struct.pack("<BI", segment.VERSION, len(header)) + header
    for read in (segment.decode, segment.read_head):
        with pytest.raises(segment.READ_FAULTS):
            read(body)


def test_decode__what_was_left_out_of_a_batch() -> None:
    """The places of what was not counted are those of their batch; without any nothing is said."""
    batch = to_batch([PlainEvent(dimension=0, end_ms=1, tokens={1: 1})], table=TABLE)
    whole = Origin(account_id="a", key_id="k", received_ms=0, producer="p", sequence=1)
    part = whole._replace(sequence=2, left_out=(0, 2))
    body = segment.encode([(whole, batch), (part, batch)], dimension_ids=handles)
    assert [origin.left_out for origin, _ in segment.decode(body).origins] == [(), (0, 2)]
    assert b"left_out" not in segment.encode([(whole, batch)], dimension_ids=handles)
