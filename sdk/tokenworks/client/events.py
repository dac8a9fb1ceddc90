"""One event: as `record` took it, unread, and as the wire can carry it."""

import math
import operator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeAlias, cast
from uuid import UUID

from tokenworks.client import limits
from tokenworks.client.foreign import Unfit
from tokenworks.client.usage_objects import UsageObject
from tokenworks.client.vocabulary import TokenClass

RawEvent: TypeAlias = tuple[object, ...]
"""An event's arguments in the order of `Raw`, exactly as the caller gave them."""

DimensionKey: TypeAlias = tuple[
    str | None, str | None, str | None, str | None, int | None, str | None, str | None
]
"""account, model, served_model, tier, mode, pool, region; None takes the client's default."""

TEXT_CLASSES: Final = (
    TokenClass.INPUT,
    TokenClass.CACHE_READ,
    TokenClass.CACHE_WRITE_5M,
    TokenClass.CACHE_WRITE_30M,
    TokenClass.CACHE_WRITE_1H,
    TokenClass.CACHE_WRITE_12H,
    TokenClass.OUTPUT,
    TokenClass.REASONING,
)
"""The classes that `record` has arguments for, in the order of `Raw`."""

NOT_STATED: Final = -1
"""Stands for an absent checksum in a column."""

_TEXT_PLACES: Final = {int(token_class): i for i, token_class in enumerate(TEXT_CLASSES)}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ID_SIZE_BYTES: Final = 16


class Raw(NamedTuple):
    """The order of a `RawEvent`. Nothing in it was looked at yet."""

    recorded_ns: object
    dimensions: object
    input: object
    cache_read: object
    cache_write_5m: object
    cache_write_30m: object
    cache_write_1h: object
    cache_write_12h: object
    output: object
    reasoning: object
    tokens: object
    end_time: object
    duration_ms: object
    finish: object
    quality: object
    request_id: object
    attempt: object
    event_id: object
    reported_input_count: object
    reported_output_count: object
    usage: object


class Event(NamedTuple):
    """An event whose every field fits the wire; whether it is right is for the meter to say."""

    end_ms: int
    """End of the request, milliseconds since 1970, within a Timestamp's range."""
    dimensions: DimensionKey
    counts: tuple[int, ...]
    """One for each of `TEXT_CLASSES`, 64 bits."""
    other_counts: dict[int, int]
    """Non-zero counts of the other classes, known or not."""
    duration_ms: int
    finish: int
    quality: int
    request_id: str
    attempt: int
    event_id: bytes
    """16 bytes, or empty."""
    reported_input_count: int
    """`NOT_STATED` where absent."""
    reported_output_count: int
    usage: UsageObject | None
    """What is kept of the provider's usage object."""


def read(raw: RawEvent) -> Event:
    """Turn arguments into an event, or raise `Unfit`.

    Numbers beyond the wire's width are cut to its edge and overlong strings shortened: both stay
    outside of what the meter accepts, so that it keeps the event in quarantine rather than the
    client losing it. Only what has no place on the wire at all is unfit.
    """
    event = Raw(*raw)
    counts, other_counts = _counts(event)
    return Event(
        end_ms=_end_ms(event.end_time, recorded_ns=event.recorded_ns),
        dimensions=_dimensions(event.dimensions),
        counts=counts,
        other_counts=other_counts,
        duration_ms=_duration_ms(event.duration_ms),
        finish=_int32(event.finish, absent=0),
        quality=_int32(event.quality, absent=0),
        request_id=_text(event.request_id) or "",
        attempt=_int32(event.attempt, absent=0),
        event_id=_event_id(event.event_id),
        reported_input_count=_int32(event.reported_input_count, absent=NOT_STATED),
        reported_output_count=_int32(event.reported_output_count, absent=NOT_STATED),
        # Made by `keep_usage` when it was recorded, and by nobody else.
        usage=cast("UsageObject | None", event.usage),
    )


def end_ms_from_seconds(seconds: float) -> int:
    """Milliseconds of a time in seconds: to the microsecond, finer parts of a millisecond dropped.

    Raises ValueError or OverflowError where it is not a finite number.
    """
    if isinstance(seconds, int):
        return seconds * 1000
    return round(seconds * 1_000_000) // 1000


def _counts(event: Raw) -> tuple[tuple[int, ...], dict[int, int]]:
    counts = [_int64(count) for count in event[2 : 2 + len(TEXT_CLASSES)]]
    other_counts: dict[int, int] = {}
    for token_class, count in _pairs(event.tokens):
        place = _TEXT_PLACES.get(token_class)
        if place is None:
            other_counts[token_class] = count
        elif counts[place]:
            raise Unfit("class_given_twice")
        else:
            counts[place] = count
    return tuple(counts), other_counts


def _pairs(tokens: object) -> list[tuple[int, int]]:
    if tokens is None:
        return []
    if not isinstance(tokens, tuple):
        raise Unfit("tokens_not_a_mapping")
    pairs = [(_int32(token_class, absent=0), _int64(count)) for token_class, count in tokens]
    return [(token_class, count) for token_class, count in pairs if count]


def _dimensions(values: object) -> DimensionKey:
    assert isinstance(values, tuple)
    account, model, served_model, tier, mode, pool, region = values
    return (
        _text(account),
        _text(model),
        _text(served_model),
        _text(tier),
        None if mode is None else _int32(mode, absent=0),
        _text(pool),
        _text(region),
    )


def _end_ms(end_time: object, *, recorded_ns: object) -> int:
    assert isinstance(recorded_ns, int)
    if end_time is None:
        return recorded_ns // 1_000_000
    if isinstance(end_time, datetime):
        if end_time.utcoffset() is None:
            raise Unfit("end_time_without_zone")
        return (end_time - _EPOCH) // timedelta(milliseconds=1)
    if isinstance(end_time, float) and not math.isfinite(end_time):
        raise Unfit("end_time_not_finite")
    seconds = float(end_time) if isinstance(end_time, float) else _whole(end_time)
    end_ms = end_ms_from_seconds(seconds)
    return min(max(end_ms, limits.TIME_MS_MIN), limits.TIME_MS_MAX)


def _duration_ms(value: object) -> int:
    # A difference of clocks has a fraction; nothing is charged by it.
    return _int32(round(value) if isinstance(value, float) else value, absent=0)


def _event_id(value: object) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return UUID(value).bytes
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, bytes | bytearray) and len(value) == _ID_SIZE_BYTES:
        return bytes(value)
    raise Unfit("event_id_not_16_bytes")


def _text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unfit("text_expected")
    # A lone surrogate has no UTF-8; "?" takes its place, so that the event is not lost for it.
    return value[: limits.STRING_CHARACTERS_MAX].encode("utf-8", "replace").decode("utf-8")


def _int32(value: object, *, absent: int) -> int:
    number = absent if value is None else _whole(value)
    return min(max(number, limits.INT32_MIN), limits.INT32_MAX)


def _int64(value: object) -> int:
    number = 0 if value is None else _whole(value)
    return min(max(number, limits.INT64_MIN), limits.INT64_MAX)


def _whole(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        # Also takes the integers of array libraries.
        return int(operator.index(value))  # type: ignore[arg-type]
    except TypeError as error:
        raise Unfit("whole_number_expected") from error
