"""Rows and columns off the wire: the same events, the same journal bytes; nothing misread."""

import uuid
from typing import Any, Final

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from meter import segment
from meter.domain.event import EventBatch, IntArray, Origin
from meter.wire.event_ids import id_bytes
from meter.wire.packed import UnreadableColumn, read_columns, unread_message_class
from meter.wire.translate import Translator, to_event
from tests.meter.plain_events import BEGIN_MS
from tests.wire.session import event, to_columns, to_planes
from tokenworks.meter.v1 import usage_pb2

INT32: Final = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-2, 300))
INT64: Final = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([s * (1 << b) + d for b in range(7, 63, 7) for s in (1, -1) for d in (-1, 0)]),
    st.integers(0, 127),
)
UNREAD_BATCH: Final = unread_message_class("UsageBatch")
_KEPT: Final = {
    "reported_input_count": "reported_input",
    "reported_output_count": "reported_output",
}
UNREAD_TOKENS: Final = unread_message_class("TokenColumn")


@st.composite
def messages(
    draw: st.DrawFn, *, has_id: bool, counts: st.SearchStrategy[int] = INT64
) -> usage_pb2.UsageEvent:
    """Events as clients may send them, valid or not."""
    fields: dict[str, Any] = {
        "served_model": draw(st.sampled_from(["", "m", "m-2025"])),
        "tier": draw(st.sampled_from(["high", "gold", ""])),
        "mode": draw(st.sampled_from([0, 1, 2, 9])),
        "pool": draw(st.sampled_from(["", "p"])),
        "region": draw(st.sampled_from(["", "eu"])),
        "duration_ms": draw(INT32),
        "finish": draw(st.integers(-1, 6)),
        "quality": draw(st.integers(-1, 5)),
        "attempt": draw(INT32),
        "request_id": draw(st.sampled_from(["", "r", "größer"])),
        "event_id": draw(st.uuids()).hex if has_id else "",
        "end_ms": BEGIN_MS + draw(st.integers(-20 * 86_400_000, 20 * 86_400_000)),
    }
    for name in ("reported_input_count", "reported_output_count"):
        if draw(st.booleans()):
            fields[name] = draw(INT32)
    numbers = st.sampled_from([*usage_pb2.TokenClass.values(), 99, -5])
    fields["tokens"] = draw(st.dictionaries(numbers, counts, max_size=4))
    account = draw(st.sampled_from(["acme", "team", ""]))
    return event(account, **fields)


def batches(
    counts: st.SearchStrategy[int] = INT64,
) -> st.SearchStrategy[list[usage_pb2.UsageEvent]]:
    """Batches in which all events have an id, or none."""
    return st.booleans().flatmap(
        lambda has_id: st.lists(messages(has_id=has_id, counts=counts), min_size=1, max_size=12)
    )


def read(form: usage_pb2.UsageColumns, *, translator: Translator) -> EventBatch:
    """Read columns as a stream does."""
    message = usage_pb2.UsageBatch(sequence=1, columns=form)
    return translator.from_columns(UNREAD_BATCH.FromString(message.SerializeToString()).columns)


def body(batch: EventBatch) -> bytes:
    """Return the journal bytes of a batch."""
    origin = Origin(account_id="", key_id="k", received_ms=0)
    return segment.encode([(origin, batch)], dimension_ids=lambda it: it.dimension)


@given(events=batches())
def test_read__rows_and_columns_give_the_same_journal_bytes(
    events: list[usage_pb2.UsageEvent],
) -> None:
    """The form in which events come leaves no trace, valid or not."""
    translator = Translator()
    in_rows, wrong = translator.from_rows(events)
    in_columns = read(to_columns(events), translator=translator)
    assert not wrong.any()
    assert body(in_rows) == body(in_columns)


@given(events=batches(st.integers(-(2**54), 2**54)))
def test_read__planes_give_the_same_journal_bytes(events: list[usage_pb2.UsageEvent]) -> None:
    """Nor does the form of the fastest senders, as far as its numbers reach; once and again."""
    translator = Translator()
    in_rows, _ = translator.from_rows(events)
    message = usage_pb2.UsageBatch(planes=to_planes(events)).SerializeToString()
    for _ in range(2):
        in_planes = translator.from_planes(UNREAD_BATCH.FromString(message).planes)
        assert body(in_planes) == body(in_rows)
        for name, (lowest, highest) in in_planes.spans.items():
            values: IntArray | None = in_planes.end_ms if name == "end_ms" else None
            values = in_planes.extra.get(str(name), values)
            values = in_planes.tokens[int(name)] if values is None else values
            zero_means_first = name in {"finish", "quality"}
            assert lowest <= values.min()
            assert values.max() <= max(highest, int(zero_means_first))


@given(events=batches())
def test_read__means_what_protobuf_reads(events: list[usage_pb2.UsageEvent]) -> None:
    """Each number of each event is the one that protobuf's own reader finds in the message."""
    batch = read(to_columns(events), translator=Translator())
    for place, message in enumerate(events):
        assert int(batch.end_ms[place]) == message.end_time.ToMilliseconds()
        assert int(batch.column("duration_ms")[place]) == message.duration_ms
        assert int(batch.column("attempt")[place]) == message.attempt
        assert int(batch.column("finish")[place]) == (message.finish or 1)
        assert int(batch.column("quality")[place]) == (message.quality or 1)
        counts = {item.token_class: item.count for item in message.tokens if item.count}
        found = {number: int(values[place]) for number, values in batch.tokens.items()}
        assert {number: count for number, count in found.items() if count} == counts
        where = batch.table[int(batch.dimension[place])]
        sent = message.dimensions
        assert where.served_model == (sent.served_model or sent.model)
        assert (where.account, where.tier, where.mode) == (sent.account, sent.tier, sent.mode or 1)


@given(events=st.lists(messages(has_id=True), min_size=1, max_size=4))
def test_to_event__keeps_everything(events: list[usage_pb2.UsageEvent]) -> None:
    """An event that is kept aside can be read again and is still the same event."""
    translator = Translator()
    batch, _ = translator.from_rows(events)
    again, _ = translator.from_rows([to_event(batch, place) for place in range(len(batch))])
    assert body(again) == body(batch)


@given(chunks=st.lists(st.lists(INT64, max_size=30), min_size=1, max_size=5))
def test_varints__equal_protobuf(chunks: list[list[int]]) -> None:
    """Any numbers in any number of chunks are read as protobuf reads them."""
    raw = b"".join(usage_pb2.TokenColumn(counts=part).SerializeToString() for part in chunks)
    wanted = usage_pb2.TokenColumn.FromString(raw)
    unread = UNREAD_TOKENS.FromString(raw)
    (values,) = read_columns([list(unread.counts)])
    assert values.tolist() == list(wanted.counts)
    assert values.dtype == np.int64


@given(columns=st.lists(st.lists(INT64, max_size=9), min_size=1, max_size=6))
def test_varints__columns_do_not_mix(columns: list[list[int]]) -> None:
    """Columns that are read together, empty ones among them, stay apart."""
    blobs = [
        list(UNREAD_TOKENS.FromString(usage_pb2.TokenColumn(counts=it).SerializeToString()).counts)
        for it in columns
    ]
    assert [values.tolist() for values in read_columns(blobs)] == columns


@given(raw=st.binary(min_size=1, max_size=40).filter(lambda it: b"\x80" not in it))
def test_varints__garbage_is_read_like_protobuf_or_refused(raw: bytes) -> None:
    """Arbitrary bytes are either the numbers that protobuf finds, or refused."""
    field = b"\x12" + bytes([len(raw)]) + raw
    try:
        wanted = list(usage_pb2.TokenColumn.FromString(field).counts)
    except DecodeError:
        with pytest.raises(UnreadableColumn):
            read_columns([[raw]])
        return
    assert read_columns([[raw]])[0].tolist() == wanted


@pytest.mark.parametrize(
    "raw", [b"\x80", b"\x01\xff", b"\xff" * 10 + b"\x01", b"\x80" * 10 + b"\x00", b"\xff" * 10]
)
def test_varints__broken_number_is_refused(raw: bytes) -> None:
    """A number that does not end, or is longer than any number, is no number."""
    for column in ([raw], [b"\x01", raw]):
        with pytest.raises(UnreadableColumn):
            read_columns([[b"\x05"], column])


def test_varints__number_does_not_run_into_the_next_column() -> None:
    """A column whose end is cut off does not borrow the next one's bytes."""
    with pytest.raises(UnreadableColumn):
        read_columns([[b"\x81"], [b"\x01"]])


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63), 10**15, -(10**15), 253_402_300_800])
def test_read__times_beyond_the_calendar(seconds: int) -> None:
    """A time that no calendar has is still a time: far, on its side, and kept as an event."""
    message = event(end_ms=BEGIN_MS)
    form = to_columns([message])
    message.end_time.seconds = form.base_time.seconds = seconds
    translator = Translator()
    for batch in (translator.from_rows([message])[0], read(form, translator=translator)):
        assert (int(batch.end_ms[0]) > BEGIN_MS) == (seconds > 0)
        assert to_event(batch, 0).end_time.ToMilliseconds() == int(batch.end_ms[0])


@pytest.mark.parametrize(
    "name",
    [
        *("end_offset_ms", "duration_ms", "finish", "quality", "attempt"),
        *("reported_input_count", "reported_output_count"),
    ],
)
def test_read__numbers_wider_than_their_field(name: str) -> None:
    """A number of 64 bits in a field of 32 is out of range, and can be kept aside as such."""
    translator = Translator()
    form = to_columns([event(end_ms=BEGIN_MS)])
    tag = bytes([8 * usage_pb2.UsageColumns.DESCRIPTOR.fields_by_name[name].number + 2])
    for value in (2**40, 2**63 - 1, -(2**63)):
        form.ClearField(name)  # type: ignore[arg-type]
        packed = usage_pb2.TokenColumn(counts=[value]).SerializeToString()
        raw = form.SerializeToString() + tag + packed[1:]
        unread = UNREAD_BATCH()
        unread.columns.ParseFromString(raw)
        batch = translator.from_columns(unread.columns)
        kept, _ = translator.from_rows([to_event(batch, 0)])
        column = kept.end_ms if name == "end_offset_ms" else kept.column(_KEPT.get(name, name))
        assert abs(int(column[0])) >= 2**31 - 1


@pytest.mark.parametrize(
    "name",
    [
        *("dimensions_index", "end_offset_ms", "duration_ms", "finish", "quality", "attempt"),
        *("reported_input_count", "reported_output_count"),
    ],
)
def test_read__one_column_sent_number_by_number(name: str) -> None:
    """A client may pack some columns and not others: none is taken for absent."""
    packed = to_columns(
        [
            event(
                finish=usage_pb2.FINISH_FAILED,
                quality=usage_pb2.QUALITY_PARTIAL,
                duration_ms=5,
                attempt=2,
                reported_input_count=3,
                reported_output_count=0,
                end_ms=BEGIN_MS + step,
            )
            for step in (0, 2, 6)
        ]
    )
    field = usage_pb2.UsageColumns.DESCRIPTOR.fields_by_name[name]
    one_by_one = b"".join(
        bytes([8 * field.number]) + usage_pb2.TokenColumn(counts=[value]).SerializeToString()[2:]
        for value in getattr(packed, name)
    )
    form = usage_pb2.UsageColumns()
    form.CopyFrom(packed)
    form.ClearField(name)  # type: ignore[arg-type]
    unread = UNREAD_BATCH()
    unread.columns.ParseFromString(form.SerializeToString() + one_by_one)
    translator = Translator()
    assert body(translator.from_columns(unread.columns)) == body(
        read(packed, translator=translator)
    )


@pytest.mark.parametrize(
    ("event_id", "kept"),
    [
        ("", bytes(16)),
        ("00112233445566778899aabbccddeeff", bytes.fromhex("00112233445566778899aabbccddeeff")),
        ("00112233-4455-6677-8899-AABBCCDDEEFF", bytes.fromhex("00112233445566778899aabbccddeeff")),
    ],
)
def test_id_bytes__uuid_is_itself(event_id: str, kept: bytes) -> None:
    """A UUID's text in either form is kept as its bytes; none as zeros."""
    assert id_bytes(event_id) == kept


@given(first=st.text(max_size=64), second=st.text(max_size=64))
def test_id_bytes__different_texts_differ(first: str, second: str) -> None:
    """Ids that are not UUIDs stay apart, whatever their text."""

    def plain(text: str) -> object:
        try:
            return uuid.UUID(text).bytes
        except ValueError:
            return text

    assert (id_bytes(first) == id_bytes(second)) == (plain(first) == plain(second))
    assert len(id_bytes(first)) == 16
