"""Events in rows off the wire without a Python object for each field.

All events of a batch are read side by side: the first field of each, then the second, and so on,
numpy going on with those that have more. What protobuf allows and hardly a client writes, such as a
field twice, one of a later version, or a negative number, is left to protobuf itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from meter.domain import limits
from meter.domain.event import BoolArray, Int64Array, Uint8Array
from meter.domain.outcome import Outcome
from meter.wire.packed import UnusableBatch
from meter.wire.texts import PADDING_BYTES, WORD_BYTES, Texts, WordArray, own_bytes, words

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
_INT32_MAX: Final = 2**31 - 1
# Classes up to this number are looked up in a list.
_LISTED_MAX: Final = 1_000
# In a word, the bit of each byte that tells that its number goes on; with the tag in the first byte
# that is the shape of a field, whatever its number is.
_GOES_ON: Final = 0x8080_8080_8080_8080
_SHAPE: Final = _GOES_ON | 0xFF
# By its bytes, the shape of a pair's second field, which may be absent: of one byte there is none.
_TAILS: Final = np.array(
    [0, 0x100, *(_SECOND | _GOES_ON & (1 << 8 * size - 8) - 0x100 for size in range(2, 9))],
    np.uint64,
)
# Parts of 7, 14 and 28 bits lie in 8, 16 and 32: the higher of two moves down by what is between.
_JOINS: Final = [
    (np.uint64(low), np.uint64(low << 8 * 2**step), np.uint64(2**step))
    for step, low in enumerate(
        (0x007F_007F_007F_007F, 0x0000_3FFF_0000_3FFF, 0x0000_0000_0FFF_FFFF)
    )
]


class Unusual(ValueError):
    """Messages that protobuf has to read: they are right in an unusual way, or wrong."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of those messages `of` that have it, by their indexes.

    `value` is its number, or the length of its bytes, which begin at `place`. Of a field that
    stands once in a message the indexes ascend.
    """

    of: Int64Array
    value: Int64Array
    place: Int64Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """n events, a column each, as they came: nothing is checked, and texts are unread.

    A field that is absent is protobuf's default; `numbers` has only those that some event has, and
    a `reported` one is -1 where it is absent. `ids` and `request_ids` are None where no event has
    any. Tokens are items of events, which stand in `token_of` by their indexes.
    """

    dimensions: Texts
    seconds: Int64Array
    nanos: Int64Array
    numbers: dict[str, Int64Array]
    ids: Texts | None
    request_ids: Texts | None
    token_of: Int64Array
    token_class: Int64Array
    token_count: Int64Array

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.seconds)


def read_rows(events: Iterable[bytes]) -> Rows:
    """Read serialized UsageEvent messages; raises Unusual."""
    events = list(events)
    count = len(events)
    sizes = np.fromiter(map(len, events), np.int64, count)
    # Whoever reads on behind the end finds zeros, and that its message was over before.
    joined = b"".join([*events, bytes(PADDING_BYTES)])
    data = np.frombuffer(joined, np.uint8)
    end = sizes.cumsum()
    fields = _fields(data, end - sizes, end, known=_EVENT, often=_TOKENS)
    time, tokens = fields.get(_END_TIME), fields.get(_TOKENS)
    seconds, nanos = _pair(data, time)
    classes, counts = _pair(data, tokens)
    return Rows(
        dimensions=_texts(joined, fields.get(_DIMENSIONS), count),
        seconds=_column(time, seconds, count),
        nanos=_column(time, _int32(nanos), count),
        numbers={
            name: _column(it, _int32(it.value), count, default=-1 if "reported" in name else 0)
            for name, tag in _NUMBERS.items()
            if (it := fields.get(tag)) is not None
        },
        ids=_some_texts(joined, fields.get(_EVENT_ID), count),
        request_ids=_some_texts(joined, fields.get(_REQUEST_ID), count),
        token_of=np.zeros(0, np.int64) if tokens is None else tokens.of,
        token_class=_int32(classes),
        token_count=counts,
    )


def tokens_of(rows: Rows) -> tuple[dict[int, Int64Array], BoolArray]:
    """Return the counts of each class, and which of the events have a class twice.

    Raises UnusableBatch above `BATCH_CLASSES_MAX`.
    """
    count, number = len(rows), rows.token_class
    highest = int(number.max(initial=0))
    if highest <= _LISTED_MAX:
        classes = np.flatnonzero(np.bincount(number))
        column = np.zeros(highest + 1, np.int64)
        column[classes] = np.arange(len(classes))
        column = column.take(number)
    else:
        classes, column = np.unique(number, return_inverse=True)
    if len(classes) > limits.BATCH_CLASSES_MAX:
        raise UnusableBatch(Outcome.BATCH_TOO_LARGE)
    place = column * count + rows.token_of
    counts = np.zeros((len(classes), count), np.int64)
    counts.ravel()[place] = rows.token_count
    often = np.bincount(place, minlength=counts.size) > 1
    twice: BoolArray = np.logical_or.reduce(often.reshape(counts.shape))
    return dict(zip(classes.tolist(), counts, strict=True)), twice


def _fields(
    data: Uint8Array, place: Int64Array, end: Int64Array, *, known: set[int], often: int = 0
) -> dict[int, _Field]:
    """Return the fields of the messages between two places each, by tag; raises Unusual.

    Only a field with the tag `often` may stand in a message more than once.
    """
    steps: dict[int, list[_Field]] = {}
    of = np.arange(len(place))
    while len(place):
        left = end - place
        least = int(left.min())
        if least <= 0:
            if least < 0:
                raise Unusual("a message ends inside a field")
            is_open = left > 0
            of, place, end = of[is_open], place[is_open], end[is_open]
            continue
        tag = data.take(place)
        value, place = _varints(data, place + 1)
        first = int(tag[0])
        if (tag == first).all():
            tags = {first}
            steps.setdefault(first, []).append(_Field(of, value, place))
            if first & _KIND == _LENGTH:
                place = place + value
        else:
            tags = set(np.unique(tag).tolist())
            for each in tags:
                mine = tag == each
                field = _Field(of[mine], value[mine], place[mine])
                steps.setdefault(each, []).append(field)
            place = place + np.where(tag & _KIND == _LENGTH, value, 0)
        if not known.issuperset(tags):
            raise Unusual("a field that is not known")
    return {tag: _together(parts, once=tag != often) for tag, parts in steps.items()}


def _varints(data: Uint8Array, place: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the numbers that begin at these places, and the places behind them; raises Unusual."""
    low = data.take(place)
    if int(low.max(initial=0)) < _MORE:
        return low.astype(np.int64), place + 1
    word = words(data, place)
    # The bit that its last byte lacks, and from it all bits below.
    own = ~word & np.uint64(_GOES_ON)
    own &= -own
    if not own.all():
        raise Unusual("a number of more than eight bytes")
    own -= np.uint64(1)
    size = (np.bitwise_count(own) + np.uint8(1)) >> np.uint8(3)
    return _numbers(word & own, size_max=int(size.max())), place + size


def _numbers(word: WordArray, *, size_max: int) -> Int64Array:
    """Return the numbers whose bytes, of which none has more than `size_max`, words have."""
    word = word & np.uint64(~_GOES_ON & 2**64 - 1)
    for step, (low, high, shift) in enumerate(_JOINS):
        if size_max > 2**step:
            word = word & low | (word & high) >> shift
    return word.view(np.int64)


def _together(parts: list[_Field], *, once: bool) -> _Field:
    """Return a field's steps as one, in each of which a message stands once at most."""
    if len(parts) == 1:
        return parts[0]
    of = np.concatenate([it.of for it in parts])
    value = np.concatenate([it.value for it in parts])
    place = np.concatenate([it.place for it in parts])
    if not once:
        return _Field(of, value, place)
    order = of.argsort()
    of = of[order]
    if (of[1:] == of[:-1]).any():
        raise Unusual("a field that stands twice")
    return _Field(of, value[order], place[order])


def _pair(data: Uint8Array, field: _Field | None) -> tuple[Int64Array, Int64Array]:
    """Return the two numbers of a field that is a message of two; raises Unusual."""
    if field is None or not len(field.of):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    usual = _usual_pair(data, field)
    if usual is not None:
        return usual
    inner = _fields(data, field.place, field.place + field.value, known=_PAIR)
    count = len(field.of)
    first, second = inner.get(_FIRST), inner.get(_SECOND)
    return (
        _column(first, None if first is None else first.value, count),
        _column(second, None if second is None else second.value, count),
    )


def _usual_pair(data: Uint8Array, field: _Field) -> tuple[Int64Array, Int64Array] | None:
    """Return the numbers of messages of which all have the first in equally many bytes, else None.

    So are a time's seconds, from 1978 to 3058, and the classes of tokens.
    """
    head = words(data, field.place)
    example = int(head[0])
    ends = ~(example >> 8) & (_GOES_ON >> 8)
    head_size = 1 + (ends & -ends).bit_length() // 8
    size = field.value - head_size
    longest = int(size.max())
    if example & 0xFF != _FIRST or not ends or int(size.min()) < 0 or longest > WORD_BYTES:
        return None
    own = (1 << 8 * head_size) - 1
    if ((head ^ head[0]) & np.uint64(_SHAPE & own)).any():
        return None
    tail = words(data, field.place + head_size) & own_bytes(size).ravel()
    if (tail & np.uint64(_SHAPE) != _TAILS.take(size)).any():
        return None
    return (
        _numbers((head & np.uint64(own)) >> np.uint64(8), size_max=head_size - 1),
        _numbers(tail >> np.uint64(8), size_max=longest - 1),
    )


def _column(
    field: _Field | None, values: Int64Array | None, count: int, *, default: int = 0
) -> Int64Array:
    """Return a number for each of `count` messages, the default where it is absent."""
    if field is None or values is None:
        return np.full(count, default, np.int64)
    if len(values) == count:
        return values
    column = np.full(count, default, np.int64)
    column[field.of] = values
    return column


def _int32(values: Int64Array) -> Int64Array:
    if int(values.max(initial=0)) > _INT32_MAX:
        raise Unusual("a number of more than 32 bits")
    return values


def _texts(joined: bytes, field: _Field | None, count: int) -> Texts:
    """Return the bytes of each message's field, empty where it is absent."""
    begin = _column(field, None if field is None else field.place, count)
    return Texts(joined, begin, _column(field, None if field is None else field.value, count))


def _some_texts(joined: bytes, field: _Field | None, count: int) -> Texts | None:
    """Return the bytes of each message's field; None where there are none at all."""
    return None if field is None or not field.value.any() else _texts(joined, field, count)
