"""Events in rows off the wire without a Python object for each field.

All events of a batch are read side by side: the first field of each, then the second, and so on,
numpy going on with those that have more. What protobuf allows and hardly a client writes, such as a
field twice, one of a later version, or a negative number, is left to protobuf itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from meter.domain import limits
from meter.domain.event import BoolArray, Int64Array, Uint8Array
from meter.domain.outcome import Outcome
from meter.wire.packed import UnusableBatch

# Fields of UsageEvent by their tags, which are the field's number above three bits that say how its
# bytes are to be read.
_EVENT_ID: Final = 0x0A
_END_TIME: Final = 0x12
_DIMENSIONS: Final = 0x22
_TOKENS: Final = 0x2A
_REQUEST_ID: Final = 0x42
_NUMBERS: Final = {
    "duration_ms": 0x18,
    "finish": 0x30,
    "quality": 0x38,
    "attempt": 0x48,
    "reported_input": 0x50,
    "reported_output": 0x58,
}
_EVENT: Final = {_EVENT_ID, _END_TIME, _DIMENSIONS, _TOKENS, _REQUEST_ID, *_NUMBERS.values()}
# Timestamp has seconds and nanoseconds, TokenCount a class and a count.
_FIRST: Final = 0x08
_SECOND: Final = 0x10
_PAIR: Final = {_FIRST, _SECOND}
# In a tag's low bits: the number that follows is a length. Of the tags above, all others are
# numbers.
_KIND: Final = 7
_LENGTH: Final = 2
_MORE: Final = 0x80
# Nine bytes hold 63 bits; only a negative number takes ten.
_VARINT_BYTES_MAX: Final = 9
_INT32_MAX: Final = 2**31 - 1


class Unusual(ValueError):
    """Messages that protobuf has to read: they are right in an unusual way, or wrong."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of those messages `of` that have it, by their indexes.

    `value` is its number, or the length of its bytes, which begin at `place`.
    """

    of: Int64Array
    value: Int64Array
    place: Int64Array

    def take(self, keep: BoolArray) -> "_Field":
        return _Field(self.of[keep], self.value[keep], self.place[keep])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """n events, a column each, as they came: nothing is checked, and texts are unread.

    A field that is absent is protobuf's default; `numbers` has only those that some event has, and
    a `reported` one is -1 where it is absent. `ids` and `request_ids` are None where no event has
    any. Tokens are items of events, which stand in `token_of` by their indexes.
    """

    dimensions: Sequence[bytes]
    seconds: Int64Array
    nanos: Int64Array
    numbers: dict[str, Int64Array]
    ids: Sequence[bytes] | None
    request_ids: Sequence[bytes] | None
    token_of: Int64Array
    token_class: Int64Array
    token_count: Int64Array


def read_rows(events: Sequence[bytes]) -> Rows:
    """Read serialized UsageEvent messages; raises Unusual."""
    count = len(events)
    joined = b"".join(events)
    # Whoever reads on behind the end finds zeros, and that its message was over before.
    data = np.frombuffer(joined + bytes(_VARINT_BYTES_MAX + 1), np.uint8)
    borders = np.zeros(count + 1, np.int64)
    np.cumsum(np.fromiter(map(len, events), np.int64, count), out=borders[1:])
    fields = _fields(data, borders[:-1], borders[1:], known=_EVENT, often=_TOKENS)
    seconds, nanos = _pair(data, fields.get(_END_TIME))
    classes, counts = _pair(data, fields.get(_TOKENS))
    return Rows(
        dimensions=_texts(joined, fields.get(_DIMENSIONS), count) or [b""] * count,
        seconds=_column(fields.get(_END_TIME), seconds, count),
        nanos=_column(fields.get(_END_TIME), _int32(nanos), count),
        numbers={
            name: _column(it, _int32(it.value), count, default=-1 if "reported" in name else 0)
            for name, tag in _NUMBERS.items()
            if (it := fields.get(tag)) is not None
        },
        ids=_texts(joined, fields.get(_EVENT_ID), count),
        request_ids=_texts(joined, fields.get(_REQUEST_ID), count),
        token_of=fields[_TOKENS].of if _TOKENS in fields else np.zeros(0, np.int64),
        token_class=_int32(classes),
        token_count=counts,
    )


def tokens_of(rows: Rows) -> tuple[dict[int, Int64Array], BoolArray]:
    """Return the counts of each class, and which of the events have a class twice.

    Raises UnusableBatch above `BATCH_CLASSES_MAX`.
    """
    count = len(rows.seconds)
    twice = np.zeros(count, np.bool_)
    classes = np.unique(rows.token_class)
    if len(classes) > limits.BATCH_CLASSES_MAX:
        raise UnusableBatch(Outcome.BATCH_TOO_LARGE)
    tokens: dict[int, Int64Array] = {}
    for number in classes.tolist():
        mine = rows.token_class == number
        of = rows.token_of[mine]
        counts = tokens[number] = np.zeros(count, np.int64)
        counts[of] = rows.token_count[mine]
        twice |= np.bincount(of, minlength=count) > 1
    return tokens, twice


def _fields(
    data: Uint8Array, place: Int64Array, end: Int64Array, *, known: set[int], often: int = 0
) -> dict[int, _Field]:
    """Return the fields of the messages between two places each, by tag; raises Unusual.

    Only a field with the tag `often` may stand in a message more than once.
    """
    steps: dict[int, list[_Field]] = {}
    of = np.arange(len(place))
    while True:
        is_open = place < end
        if not is_open.all():
            of, place, end = of[is_open], place[is_open], end[is_open]
        if not len(of):
            return {tag: _together(parts, once=tag != often) for tag, parts in steps.items()}
        tag = data[place]
        value, place = _varints(data, place + 1)
        step = _Field(of, value, place)
        first = int(tag[0])
        is_one = bool((tag == first).all())
        tags = [first] if is_one else np.unique(tag).tolist()
        if not known.issuperset(tags):
            raise Unusual("a field that is not known")
        for each in tags:
            steps.setdefault(each, []).append(step if is_one else step.take(tag == each))
        length = np.where(tag & _KIND == _LENGTH, value, 0)
        # A length may be any number of 63 bits: added first, it could come out as a small one.
        if (length > end - place).any():
            raise Unusual("a message ends inside a field")
        place = place + length


def _varints(data: Uint8Array, place: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the numbers that begin at these places, and the places behind them."""
    low = data[place]
    goes_on = low >= _MORE
    value = (low & 0x7F).astype(np.int64)
    place = place + 1
    for number in range(1, _VARINT_BYTES_MAX + 1):
        if not goes_on.any():
            return value, place
        if number == _VARINT_BYTES_MAX:
            break
        low = np.where(goes_on, data[place], 0)
        value |= (low & 0x7F).astype(np.int64) << 7 * number
        place = place + goes_on
        goes_on = low >= _MORE
    raise Unusual("a number of ten bytes")


def _together(parts: list[_Field], *, once: bool) -> _Field:
    """Return a field's steps as one, in each of which a message stands once at most."""
    if len(parts) == 1:
        return parts[0]
    of = np.concatenate([it.of for it in parts])
    if once and len(np.unique(of)) < len(of):
        raise Unusual("a field that stands twice")
    value = np.concatenate([it.value for it in parts])
    return _Field(of, value, np.concatenate([it.place for it in parts]))


def _pair(data: Uint8Array, field: _Field | None) -> tuple[Int64Array, Int64Array]:
    """Return the two numbers of a field that is a message of two."""
    if field is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    inner = _fields(data, field.place, field.place + field.value, known=_PAIR)
    count = len(field.of)
    first, second = inner.get(_FIRST), inner.get(_SECOND)
    return (
        _column(first, None if first is None else first.value, count),
        _column(second, None if second is None else second.value, count),
    )


def _column(
    field: _Field | None, values: Int64Array | None, count: int, *, default: int = 0
) -> Int64Array:
    """Return a number for each of `count` messages, the default where it is absent."""
    column = np.full(count, default, np.int64)
    if field is not None and values is not None:
        column[field.of] = values
    return column


def _int32(values: Int64Array) -> Int64Array:
    if int(values.max(initial=0)) > _INT32_MAX:
        raise Unusual("a number of more than 32 bits")
    return values


def _texts(joined: bytes, field: _Field | None, count: int) -> list[bytes] | None:
    """Return the bytes of each message's field, empty where it is absent; None where all are."""
    if field is None or not field.value.any():
        return None
    begin = _column(field, field.place, count)
    end = begin + _column(field, field.value, count)
    return [joined[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
