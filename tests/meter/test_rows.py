"""Rows that are read side by side: what protobuf says of each, and nothing else."""

from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from meter.domain import limits
from meter.domain.event import EventBatch
from meter.wire import rows
from meter.wire.packed import UnusableBatch
from meter.wire.rows import Unusual, read_rows
from meter.wire.translate import Translator
from tests.meter.plain_events import BEGIN_MS
from tests.meter.test_translate import messages
from tests.wire.session import event
from tokenworks.meter.v1 import usage_pb2

IDS = st.sampled_from(
    [
        "",
        "00112233-4455-6677-8899-aabbccddeeff",
        "00112233-4455-6677-8899-AABBCCDDEEFF",
        "00112233445566778899aabbccddeeff",
        "0011223-34455-6677-8899-aabbccddeeff",
        "00112233-4455-6677-8899-aabbccddeefg",
        "größer",
        "x" * 65,
        "a\nb",
    ]
)


@pytest.fixture(autouse=True, scope="module")
def few_are_read_together() -> Any:  # noqa: ANN401
    """Have all of these tests' batches read side by side, however small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meter.wire.translate._ROWS_TOGETHER_MIN", 0)
        yield


@st.composite
def events(draw: st.DrawFn) -> usage_pb2.UsageEvent:
    """Events as clients may send them, with ids of all kinds, with and without each field."""
    found = draw(messages(has_id=False))
    found.event_id = draw(IDS)
    for name in draw(st.sets(st.sampled_from(sorted(found.DESCRIPTOR.fields_by_name)))):
        found.ClearField(name)  # type: ignore[arg-type]
    return found


def said(found: tuple[EventBatch, Any]) -> dict[str, object]:
    """Return all that was read, as lists."""
    batch, wrong = found
    return {
        "dimensions": [batch.table[it] for it in batch.dimension.tolist()],
        "end_ms": batch.end_ms.tolist(),
        "tokens": {number: counts.tolist() for number, counts in batch.tokens.items()},
        "extra": {name: values.tolist() for name, values in batch.extra.items()},
        "event_ids": None if batch.event_ids is None else batch.event_ids.tolist(),
        "request_ids": None if batch.request_ids is None else list(batch.request_ids),
        "wrong": wrong.tolist(),
    }


def read_by_protobuf(raw: Sequence[bytes]) -> dict[str, object] | None:
    """Return what protobuf says of them, None where it takes one for no message."""
    try:
        events = [usage_pb2.UsageEvent.FromString(it) for it in raw]
        return said(Translator().from_rows_one_by_one(events))
    except DecodeError:
        return None


def read_together(raw: Sequence[bytes]) -> dict[str, object] | None:
    """Return what is read of them side by side, None where one is no message."""
    try:
        return said(Translator().from_unread_rows(raw))
    except DecodeError:
        return None


@given(found=st.lists(events(), max_size=6))
def test_read__is_what_protobuf_says(found: list[usage_pb2.UsageEvent]) -> None:
    """Whatever clients send: each event has its fields, and none of its neighbours'."""
    raw = [it.SerializeToString() for it in found]
    wanted = read_by_protobuf(raw)
    assert wanted is not None
    assert without_ids(read_together(raw)) == without_ids(wanted)
    assert without_ids(said(Translator().from_rows(found))) == without_ids(wanted)


@given(
    found=st.lists(st.tuples(events(), st.binary(max_size=6), st.integers(0, 60)), max_size=4),
    parts=st.lists(events(), max_size=2),
)
def test_read__broken_and_unusual_messages(
    found: list[tuple[usage_pb2.UsageEvent, bytes, int]], parts: list[usage_pb2.UsageEvent]
) -> None:
    """Bytes that were cut off, put in or put together are what protobuf takes them for."""
    raw = []
    for each, more, place in found:
        whole = each.SerializeToString()
        raw += [whole[:place] + more + whole[place:], whole[:place]]
    raw.append(b"".join(it.SerializeToString() for it in parts))
    assert without_ids(read_together(raw)) == without_ids(read_by_protobuf(raw))


def without_ids(said: dict[str, object] | None) -> dict[str, object] | None:
    """Return it with no ids where all are empty, which is the same."""
    ids: Any = None if said is None else said["event_ids"]
    if said is not None and ids is not None and not any(map(any, ids)):
        said["event_ids"] = None
    return said


ORDINARY = event(
    event_id="e1",
    duration_ms=7,
    request_id="r",
    reported_input_count=3,
    tokens={1: 300, 7: 5},
    end_ms=BEGIN_MS,
).SerializeToString()
TOKEN = usage_pb2.UsageEvent()
TOKEN.tokens.add(token_class=7, count=1)
NEGATIVE = usage_pb2.UsageEvent(attempt=-1)


@given(
    counts=st.lists(
        st.lists(
            st.sampled_from([0, 1, 127, 128, 2**14, 2**21, 2**28, 2**35]), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=5,
    ),
    first_class=st.sampled_from([1, 20, 127, 128]),
    nanos=st.lists(st.sampled_from([0, 1, 10**6, 999_999_999]), min_size=5, max_size=5),
    seconds=st.sampled_from([0, 1, 127, 128, 2**28 - 1, 2**28, BEGIN_MS // 1000, 2**35]),
)
def test_read__numbers_of_all_sizes(
    counts: list[list[int]], first_class: int, nanos: list[int], seconds: int
) -> None:
    """Events that differ in how many bytes their numbers take keep each its own."""
    raw = []
    for place, each in enumerate(counts):
        found = usage_pb2.UsageEvent()
        found.end_time.seconds, found.end_time.nanos = seconds, nanos[place]
        for token_class, count in zip((first_class, 2, 7), each, strict=True):
            found.tokens.add(count=count).token_class = token_class  # type: ignore[assignment]
        raw.append(found.SerializeToString())
    assert len(read_rows(raw)) == len(counts)
    assert without_ids(read_together(raw)) == without_ids(read_by_protobuf(raw))


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("byte", [0, 1, 8, 0x10, 0x12, 0x18, 0x7F, 0x80, 0xFF])
def test_read__a_byte_that_is_another(byte: int, at: int) -> None:
    """Of events that are all alike one is damaged: it is what protobuf says, and no other is."""
    for place in range(len(ORDINARY)):
        raw = [ORDINARY] * 3
        raw[at] = ORDINARY[:place] + bytes([byte]) + ORDINARY[place + 1 :]
        assert without_ids(read_together(raw)) == without_ids(read_by_protobuf(raw))


def test_read__ordinary_events_need_no_protobuf() -> None:
    """What clients send is read side by side: nothing of it is unusual."""
    assert len(read_rows([ORDINARY, TOKEN.SerializeToString(), b""])) == 3


@pytest.mark.parametrize(
    "unusual",
    [
        NEGATIVE.SerializeToString(),
        b"\x18\x01\x18\x02",
        b"\x18\x80\x80\x80\x80\x08",
        b"\x12\x02\x08\x01\x12\x02\x10\x01",
        b"\x12\x02\x18\x01",
        b"\x1a\x01\x00",
        b"\x0d\x00\x00\x00\x00",
        b"\xf8\x07\x01",
        b"\x0a\x05ab",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x2a\x03\x08\x01",
        b"\x12\x04\x08\x01\x0a\x05hello",
        b"\x18",
        b"\x0a",
        b"\x18\x80",
    ],
)
def test_read__unusual_messages_are_protobufs(unusual: bytes) -> None:
    """None is taken for what it is not, be it alone, first or last."""
    for raw in ([unusual], [ORDINARY, unusual], [unusual, ORDINARY], [ORDINARY, unusual, ORDINARY]):
        with pytest.raises(Unusual):
            read_rows(raw)
        assert without_ids(read_together(raw)) == without_ids(read_by_protobuf(raw))


@pytest.mark.parametrize("field", [0x0A, 0x42, 0x22])
def test_read__texts_that_are_no_text(field: int) -> None:
    """Bytes that are no UTF-8 are no message, as protobuf says."""
    broken = b"\x0a\x02\xff\xfe" if field == 0x22 else b"\xff\xfe"
    with pytest.raises(DecodeError):
        Translator().from_unread_rows([ORDINARY, bytes([field, len(broken)]) + broken])


def test_read__too_many_events_or_classes() -> None:
    """Neither is read: a batch has so many of either, and no more."""
    with pytest.raises(UnusableBatch, match="BATCH_TOO_LARGE"):
        Translator().from_unread_rows([b""] * (limits.BATCH_EVENTS_MAX + 1))
    many = usage_pb2.UsageEvent()
    for number in range(limits.BATCH_CLASSES_MAX):
        many.tokens.add(count=1).token_class = number  # type: ignore[assignment]
    assert Translator().from_unread_rows([many.SerializeToString()])[0].tokens
    many.tokens.add(count=1).token_class = 1_000  # type: ignore[assignment]
    with pytest.raises(UnusableBatch, match="BATCH_TOO_LARGE"):
        Translator().from_unread_rows([many.SerializeToString()])


def test_read__every_field_there_is() -> None:
    """A field that comes to the contract is read side by side, too, or batches of it are slow."""
    fields = usage_pb2.UsageEvent.DESCRIPTOR.fields
    assert {it.number for it in fields} == {tag >> 3 for tag in rows._EVENT}  # noqa: SLF001


@pytest.mark.parametrize("seconds", [2**63 - 1, 2**53, 10**15, 253_402_300_800])
def test_read__times_beyond_the_calendar(seconds: int) -> None:
    """A time that no calendar has is far ahead, and not one of long ago."""
    far = usage_pb2.UsageEvent()
    far.end_time.seconds = seconds
    raw = [ORDINARY, far.SerializeToString()]
    if seconds < 2**56:
        # Of more bytes than eight it is protobuf's.
        assert len(read_rows(raw)) == 2
    assert without_ids(read_together(raw)) == without_ids(read_by_protobuf(raw))
