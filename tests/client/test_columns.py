"""Events to bytes: what the fast way and the careful way make of arguments."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Final
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.fake_meter import events_from_columns
from tokenworks.client import Finish, Mode, Quality, Source, TokenClass, limits
from tokenworks.client.columns import ColumnEncoder, Encoded
from tokenworks.client.events import TEXT_CLASSES, Raw, RawEvent
from tokenworks.meter.v1 import usage_pb2 as pb

NOW_NS: Final = 1_795_000_000_123_456_789
NOW_MS: Final = 1_795_000_000_123
ID: Final = UUID("00112233-4455-6677-8899-aabbccddeeff")
DEFAULTS: Final = ("acme", "m1", "", "high", 1, "p1", "")


class Tier(StrEnum):
    """A caller's own names of tiers."""

    HIGH = "high"


class Index:
    """An integer of an array library, as far as Python is concerned."""

    def __index__(self) -> int:
        return 7


class Hostile:
    """An object whose own code fails however it is looked at."""

    def __index__(self) -> int:
        raise LookupError("no")

    def __hash__(self) -> int:
        raise LookupError("no")

    def __eq__(self, other: object) -> bool:
        raise LookupError("no")

    def __bool__(self) -> bool:
        raise LookupError("no")

    def __len__(self) -> int:
        raise LookupError("no")


@pytest.mark.parametrize("token_class", list(TokenClass) + list(Finish) + list(Mode))
def test_vocabulary__has_the_numbers_of_the_protocol(token_class: TokenClass) -> None:
    """Each name stands for the number that the protocol gives it."""
    prefix = {TokenClass: "TOKEN_CLASS", Finish: "FINISH", Mode: "MODE"}[type(token_class)]
    assert getattr(pb, f"{prefix}_{token_class.name}") == token_class


@pytest.mark.parametrize(("words", "enum", "prefix"), [
    (TokenClass, pb.TokenClass, "TOKEN_CLASS_"), (Finish, pb.Finish, "FINISH_"),
    (Mode, pb.Mode, "MODE_"), (Quality, pb.Quality, "QUALITY_"),
])  # fmt: skip
def test_vocabulary__is_complete(
    words: type[TokenClass], enum: type[pb.TokenClass], prefix: str
) -> None:
    """No value of the protocol is without a name here, and none has another number."""
    named = {f"{prefix}{word.name}": int(word) for word in words}
    assert {f"{prefix}UNSPECIFIED": 0} | named == dict(enum.items())


def test_encode__plain_events_share_a_batch() -> None:
    """Plain arguments come out as they went in, with defaults where nothing was said."""
    encoded = _encode(
        _raw(input=10, output=3),
        _raw(dimensions=("b", "m2", "m3", "low", 2, "p2", "eu"), reasoning=4, duration_ms=12,
             finish=Finish.FAILED, quality=Quality.PARTIAL, request_id="r", attempt=2,
             end_time=1_794_999_999.5, reported_input_count=0, reported_output_count=4),
    )  # fmt: skip
    first, second = _events(encoded)
    assert first == _event(tokens={1: 10, 7: 3}) | {"account": "acme", "tier": "high"}
    assert second == {
        "account": "b", "model": "m2", "tier": "low", "mode": 2, "end_ms": 1_794_999_999_500,
        "duration_ms": 12, "tokens": {8: 4}, "finish": 4, "quality": 2, "request_id": "r",
        "attempt": 2, "event_id": b"", "reported_input_count": 0, "reported_output_count": 4,
    }  # fmt: skip
    assert len(encoded.batches) == 1


def test_encode__defaults_cost_no_column() -> None:
    """What is the same for nearly everybody takes no bytes."""
    columns = pb.UsageColumns.FromString(_encode(_raw(), _raw()).batches[0].payload)
    present = {descriptor.name for descriptor, _ in columns.ListFields()}
    assert present == {"base_time", "dimensions", "dimensions_index", "end_offset_ms"}


def test_encode__repeated_dimensions_are_sent_once() -> None:
    """Events with the same dimensions refer to one entry."""
    other = ("b", None, None, None, None, None, None)
    encoded = _encode(_raw(), _raw(dimensions=other), _raw(), _raw(dimensions=other))
    columns = pb.UsageColumns.FromString(encoded.batches[0].payload)
    assert list(columns.dimensions_index) == [0, 1, 0, 1]
    assert [dimensions.account for dimensions in columns.dimensions] == ["acme", "b"]


# arguments that are unusual, and what becomes of them
MENDED: Final[Mapping[str, tuple[dict[str, object], dict[str, object]]]] = {
    "whole floats": ({"input": 12.0}, {"tokens": {1: 12}}),
    "integers of array libraries": ({"input": Index()}, {"tokens": {1: 7}}),
    "nothing instead of a count": ({"input": None, "output": 1}, {"tokens": {7: 1}}),
    "truth values": ({"input": True}, {"tokens": {1: 1}}),
    "a negative count, for the meter to judge": ({"input": -5}, {"tokens": {1: -5}}),
    "a count above the limit, likewise": ({"input": 10**12}, {"tokens": {1: 10**12}}),
    "a count of more than 64 bits": ({"input": 2**70}, {"tokens": {1: 2**63 - 1}}),
    "a count of less than -64 bits": ({"input": -(2**70)}, {"tokens": {1: -(2**63)}}),
    "a duration of more than 32 bits": ({"duration_ms": 2**40}, {"duration_ms": 2**31 - 1}),
    "a duration with a fraction": ({"duration_ms": 12.7}, {"duration_ms": 13}),
    "a duration of truth": ({"duration_ms": True}, {"duration_ms": 1}),
    "a duration of 300 digits": ({"duration_ms": 1e300}, {"duration_ms": 2**31 - 1}),
    "an attempt of less than -32 bits": ({"attempt": -(2**40)}, {"attempt": -(2**31)}),
    "a total of more than 32 bits": (
        {"reported_input_count": 2**31},
        {"reported_input_count": 2**31 - 1},
    ),
    "an unknown finish": ({"finish": 99}, {"finish": 99}),
    "a finish of more than 32 bits": ({"finish": 2**31}, {"finish": 2**31 - 1}),
    "an unknown quality": ({"quality": 77}, {"quality": 77}),
    "an enumeration of texts": (
        {"dimensions": (None, None, None, Tier.HIGH, None, None, None)},
        {"tier": "high"},
    ),
    "a mode of more than 32 bits": (
        {"dimensions": (None, None, None, None, 2**31, None, None)},
        {"mode": 2**31 - 1},
    ),
    "a text without UTF-8": ({"request_id": "a\ud800b"}, {"request_id": "a?b"}),
    "a name without UTF-8": (
        {"dimensions": ("\ud800", None, None, None, None, None, None)},
        {"account": "?"},
    ),
    "an endless text": ({"request_id": "x" * 10**6}, {"request_id": "x" * 512}),
    "an endless name": (
        {"dimensions": ("x" * 10**6, None, None, None, None, None, None)},
        {"account": "x" * 512},
    ),
    "a time in seconds": ({"end_time": 1_000_000_000}, {"end_ms": 10**12}),
    "a time with a fraction that has no exact float": (
        {"end_time": 1_090_061_256.103},
        {"end_ms": 1_090_061_256_103},
    ),
    "a time with finer parts, which are dropped": (
        {"end_time": 1_794_999_999.9996},
        {"end_ms": 1_794_999_999_999},
    ),
    "a time of an array library": ({"end_time": Index()}, {"end_ms": 7000}),
    "a time before 1970": ({"end_time": -0.5}, {"end_ms": -500}),
    "a time beyond the year 9999": ({"end_time": 1e15}, {"end_ms": limits.TIME_MS_MAX}),
    "a time of a thousand digits": ({"end_time": -(10**999)}, {"end_ms": limits.TIME_MS_MIN}),
    "an aware datetime": (
        {"end_time": datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))},
        {"end_ms": 1_767_225_600_000},
    ),
    "a UUID": ({"event_id": ID}, {"event_id": ID.bytes}),
    "16 bytes": ({"event_id": ID.bytes}, {"event_id": ID.bytes}),
    "bytes that may change": ({"event_id": bytearray(ID.bytes)}, {"event_id": ID.bytes}),
    "the text of a UUID": ({"event_id": str(ID)}, {"event_id": ID.bytes}),
    "other classes": ({"tokens": ((20, 5), (41, 6))}, {"tokens": {20: 5, 41: 6}}),
    "text classes among the others": ({"tokens": ((7, 5),), "input": 1}, {"tokens": {1: 1, 7: 5}}),
    "a class of a later version": ({"tokens": ((999, 5),)}, {"tokens": {999: 5}}),
}

UNFIT: Final[Mapping[str, tuple[dict[str, object], str]]] = {
    "a text as a count": ({"input": "12"}, "whole_number_expected"),
    "a fraction as a count": ({"output": 1.5}, "whole_number_expected"),
    "not a number": ({"input": float("nan")}, "whole_number_expected"),
    "an infinite duration": ({"duration_ms": float("inf")}, "unreadable_argument"),
    "a duration that is not a number": ({"duration_ms": float("nan")}, "unreadable_argument"),
    "a text as a duration": ({"duration_ms": "12"}, "whole_number_expected"),
    "a list as a count": ({"reasoning": []}, "whole_number_expected"),
    "a number as an account": ({"dimensions": (4, *[None] * 6)}, "text_expected"),
    "a list as an account": ({"dimensions": ([], *[None] * 6)}, "text_expected"),
    "bytes as a request id": ({"request_id": b"r"}, "text_expected"),
    "a text as a mode": (
        {"dimensions": (*[None] * 4, "batch", None, None)},
        "whole_number_expected",
    ),
    "a time that is not a number": ({"end_time": float("nan")}, "end_time_not_finite"),
    "an endless time": ({"end_time": float("-inf")}, "end_time_not_finite"),
    "a time without zone": (
        {"end_time": datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)},
        "end_time_without_zone",
    ),
    "a text as a time": ({"end_time": "2026-01-01"}, "whole_number_expected"),
    "15 bytes as an id": ({"event_id": bytes(15)}, "event_id_not_16_bytes"),
    "a number as an id": ({"event_id": 5}, "event_id_not_16_bytes"),
    "a word as an id": ({"event_id": "five"}, "unreadable_argument"),
    "a class twice": ({"tokens": ((1, 5),), "input": 1}, "class_given_twice"),
    "tokens that are no mapping": ({"tokens": "unreadable"}, "tokens_not_a_mapping"),
    "a text as a class": ({"tokens": (("input", 5),)}, "whole_number_expected"),
    "a hostile count": ({"input": Hostile()}, "unreadable_argument"),
    "a hostile account": ({"dimensions": (Hostile(), *[None] * 6)}, "text_expected"),
    "a hostile time": ({"end_time": Hostile()}, "unreadable_argument"),
    "a hostile id": ({"event_id": Hostile()}, "event_id_not_16_bytes"),
}


@pytest.mark.parametrize("case", MENDED)
def test_encode__unusual_arguments_travel(case: str) -> None:
    """What the wire can carry in any way is sent, beside ordinary events that it does not harm."""
    arguments, expected = MENDED[case]
    encoded = _encode(_raw(input=1), _raw(**arguments), _raw(input=1))
    assert not encoded.unfit
    assert Counter(map(str, _events(encoded))) == Counter(
        map(str, [_event(tokens={1: 1}), _event() | expected, _event(tokens={1: 1})])
    )


@pytest.mark.parametrize("case", UNFIT)
def test_encode__unfit_arguments_are_named(case: str) -> None:
    """What has no place on the wire is counted by its kind, and harms no other event."""
    arguments, kind = UNFIT[case]
    encoded = _encode(_raw(input=1), _raw(**arguments), _raw(input=1))
    assert encoded.unfit == {kind: 1}
    assert _events(encoded) == [_event(tokens={1: 1})] * 2


def test_encode__all_unfit_makes_no_batch() -> None:
    """Nothing is sent where nothing is left."""
    assert _encode(_raw(input="x")).batches == []


def test_encode__ids_are_never_invented() -> None:
    """Events with and without an id travel apart, since a batch has all or none."""
    encoded = _encode(_raw(input=1), _raw(input=2, event_id=ID), _raw(input=3))
    assert [batch.event_count for batch in encoded.batches] == [2, 1]
    assert {event["event_id"] for event in _events(encoded)} == {b"", ID.bytes}


def test_encode__unknown_class_touches_no_other_event() -> None:
    """A class that the meter may not know has no column in the batch of those without it."""
    encoded = _encode(_raw(input=1), _raw(tokens=((999, 5),)))
    batches = [pb.UsageColumns.FromString(batch.payload) for batch in encoded.batches]
    assert [[column.token_class for column in batch.tokens] for batch in batches] == [[1], [999]]


def test_encode__far_times_share_few_batches() -> None:
    """Times too far apart for one batch's offsets are sorted into as few as they need."""
    encoded = _encode(*[_raw(end_time=(0, 1_795_000_000)[i % 2]) for i in range(1000)])
    assert [batch.event_count for batch in encoded.batches] == [500, 500]


def test_encode__far_times_alone_are_cut_to_what_a_timestamp_holds() -> None:
    """Times that no calendar has become its last or first, where no ordinary event is beside."""
    assert _events(_encode(_raw(end_time=1e15)))[0]["end_ms"] == limits.TIME_MS_MAX
    assert _events(_encode(_raw(end_time=-1e15)))[0]["end_ms"] == limits.TIME_MS_MIN


def test_encode__large_batch_is_split() -> None:
    """No batch exceeds its bytes, however long the texts."""
    encoded = _encode(*[_raw(request_id="é" * 512)] * 5000)
    assert len(encoded.batches) > 1
    assert max(len(batch.payload) for batch in encoded.batches) <= limits.BATCH_BYTES_MAX
    assert sum(batch.event_count for batch in encoded.batches) == 5000


def test_encode__more_dimensions_than_are_kept() -> None:
    """Dimensions beyond those kept for reuse are encoded as well."""
    encoder = ColumnEncoder(defaults=DEFAULTS)
    seen: set[object] = set()
    for start in range(0, limits.DIMENSIONS_CACHED_MAX + 10_000, 10_000):
        raws = [_raw(dimensions=(f"a{start + i}", *[None] * 6)) for i in range(10_000)]
        seen.update(event["account"] for event in _events(encoder.encode(raws)))
    assert len(seen) == 70_000 + 10_000


_numbers = st.integers(0, 10**9) | st.integers() | st.none() | st.floats() | st.booleans()
_texts = st.none() | st.text(max_size=5) | st.text(st.characters(codec=None), max_size=3)
_arguments = st.fixed_dictionaries(
    {
        "dimensions": st.tuples(
            _texts, _texts, _texts, _texts, st.none() | st.integers(), _texts, _texts
        )
    },
    optional={
        "input": _numbers,
        "output": _numbers,
        "tokens": st.none() | st.tuples(st.tuples(st.integers(-3, 50), st.integers())),
        "end_time": st.none() | st.floats() | st.integers() | st.datetimes(),
        "duration_ms": _numbers,
        "finish": _numbers,
        "request_id": _texts,
        "event_id": st.none() | st.binary(max_size=17) | st.uuids(),
        "reported_input_count": _numbers,
    },
)


@settings(deadline=None)
@given(st.lists(_arguments, min_size=1, max_size=20))
def test_encode__every_event_is_sent_or_named(cases: list[dict[str, object]]) -> None:
    """Whatever the arguments, each event ends in one batch that the wire can carry, or is named."""
    encoded = _encode(*[_raw(**case) for case in cases])
    assert sum(encoded.unfit.values()) + len(_events(encoded)) == len(cases)
    assert [len(list(_parsed(b.payload))) for b in encoded.batches] == [
        batch.event_count for batch in encoded.batches
    ]


def _raw(**arguments: object) -> RawEvent:
    """Return one event's arguments as `record` takes them down."""
    defaults: dict[str, object] = {
        "recorded_ns": NOW_NS,
        "dimensions": (None,) * 7,
        **{token_class.name.lower(): 0 for token_class in TEXT_CLASSES},
        "tokens": None,
        "end_time": None,
        "duration_ms": 0,
        "finish": Finish.COMPLETED,
        "quality": Quality.FINAL,
        "request_id": "",
        "attempt": 0,
        "event_id": None,
        "reported_input_count": None,
        "reported_output_count": None,
        "usage": None,
    }
    return tuple(Raw(**(defaults | arguments)))


def _event(*, tokens: Mapping[int, int] | None = None) -> dict[str, object]:
    """Return what arrives of an event of which nothing was said."""
    return {
        "account": "acme", "model": "m1", "tier": "high", "mode": 1, "end_ms": NOW_MS,
        "duration_ms": 0, "tokens": dict(tokens or {}), "finish": 1, "quality": 1,
        "request_id": "", "attempt": 0, "event_id": b"", "reported_input_count": -1,
        "reported_output_count": -1,
    }  # fmt: skip


def _encode(*raws: RawEvent) -> Encoded:
    return ColumnEncoder(defaults=DEFAULTS).encode(raws)


def _parsed(payload: bytes) -> Sequence[dict[str, object]]:
    return list(events_from_columns(pb.UsageColumns.FromString(payload)))


def _events(encoded: Encoded) -> list[dict[str, object]]:
    return [event for batch in encoded.batches for event in _parsed(batch.payload)]


USAGE: Final = {"convention": "openai", "prompt_tokens": 10, "completion_tokens": 5}


def test_encode__usage_objects_travel_where_others_report_too() -> None:
    """A usage object comes to its event's place; a client without a source sends none."""
    raws = [_raw(), _raw(usage=USAGE), _raw(tokens=((20, 3),), usage=USAGE)]
    for some in (raws[:2], raws):
        encoded = ColumnEncoder(defaults=DEFAULTS, source=Source.ASGI).encode(some)
        (first, *others) = _events(encoded)
        assert "usage" not in first
        assert [each["usage"] for each in others] == [USAGE] * (len(some) - 1)
        assert all("usage" not in each for each in _events(_encode(*some)))


def test_encode__large_usage_objects_are_split() -> None:
    """Batches are halved until their objects fit; one that fits nowhere goes without."""
    large = {**USAGE, "iterations": [{"input_tokens": 10**17}] * 64}
    too_large = {**USAGE, "iterations": [{"input_tokens": 10**17}] * 200_000}
    encoder = ColumnEncoder(defaults=DEFAULTS, source=Source.ASGI)
    encoded = encoder.encode([_raw(usage=large)] * 2_000 + [_raw(usage=too_large)])
    assert len(encoded.batches) > 1
    events = _events(encoded)
    assert [each.get("usage") for each in events].count(large) == 2_000
    assert len(events) == 2_001


def test_encode__says_who_reports_where_one_is_named() -> None:
    """A client without a source sends the bytes that it always sent."""
    plain = ColumnEncoder(defaults=DEFAULTS).encode([_raw()]).batches[0].payload
    named = ColumnEncoder(defaults=DEFAULTS, source=Source.ASGI).encode([_raw()]).batches[0].payload
    assert pb.UsageColumns.FromString(named).source == pb.SOURCE_ASGI
    assert named == plain + pb.UsageColumns(source=pb.SOURCE_ASGI).SerializeToString()
