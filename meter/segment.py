"""Events to journal bytes and back. The format is documented in `docs/internals/journal.md`.

The bytes are a function of the events alone: absent columns and columns of defaults are the same,
token classes come in the order of their numbers, and all-zero classes are left out. Columns are
packed at a whole number of half bytes, least significant plane first: on token counts that lies
within a tenth of entropy coding, and costs a fiftieth of the time.

A segment of corrections has the column `sign` and is of version 2, so that a server which knows no
signs stops and waits for its upgrade instead of counting what was taken back. All others are of
version 3 once no server of before runs, and of version 1 until then.

Whoever looks for few of very many events reads a segment in parts: its head, then of the columns
what lies at the rows in question.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from meter.domain.event import DEFAULTS, SIGN, EventBatch, Int64Array, IntArray, Origin
from meter.domain.limits import EVENT_ID_BYTES, SEGMENT_EVENTS_MAX
from meter.planes import narrow
from meter.segment_columns import Column, unpack
from meter.segment_columns import pack as pack_column

VERSION: Final = 1
SIGNED_VERSION: Final = 2
# Names each producer once, and keeps apart what of few values is above those of all others.
NAMED_ONCE_VERSION: Final = 3
_VERSIONS: Final = (VERSION, SIGNED_VERSION, NAMED_ONCE_VERSION)
_HEADER = struct.Struct("<BI")
# What comes of reading a body that is damaged.
READ_FAULTS: Final = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    OverflowError,
    RecursionError,
    struct.error,
)
# So many bytes tell how long a body's head is.
HEAD_START_BYTES: Final = _HEADER.size
_FIRST_COLUMN: Final = b'"columns":[["dimension",'


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a segment holds: the batches' origins with their event counts, and the columns.

    `columns` has `dimension` (database ids), `end_ms`, and by name what is not default;
    `tokens` maps class numbers to counts. All arrays are over the whole segment, and as narrow as
    their numbers allow.
    """

    origins: Sequence[tuple[Origin, int]]
    columns: Mapping[str, IntArray]
    tokens: Mapping[int, IntArray]
    event_ids: bytes
    request_ids: Sequence[str]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.columns["dimension"])

    @property
    def is_correction(self) -> bool:
        """Tell whether it takes events back, and counts others in their place."""
        return SIGN in self.columns


@dataclass(frozen=True, slots=True)
class Segment(Gathered):
    """A segment as it is read back: all arrays are int64."""

    columns: Mapping[str, Int64Array]
    tokens: Mapping[int, Int64Array]

    def column(self, name: str) -> Int64Array:
        """Return a column, made of its default where it is absent."""
        present = self.columns.get(name)
        if present is not None:
            return present
        return np.full(len(self), DEFAULTS[name], np.int64)


def gather(
    batches: Sequence[tuple[Origin, EventBatch]],
    *,
    dimension_ids: Callable[[EventBatch], IntArray],
) -> Gathered:
    """Return batches as one segment, at least one event; what is all default is left out.

    `dimension_ids` gives each event's database id.
    """
    origins, parts = zip(*batches, strict=True)
    counts = [len(batch) for batch in parts]
    columns: dict[str, IntArray] = {
        "dimension": narrow(np.concatenate([dimension_ids(batch) for batch in parts])),
        "end_ms": np.concatenate([batch.end_ms for batch in parts]),
    }
    present = set().union(*(batch.extra for batch in parts))
    for name, default in DEFAULTS.items():
        if name in present:
            values = _joined([it.extra.get(name) for it in parts], counts=counts, default=default)
            if (values != default).any():
                columns[name] = values
    tokens = {}
    for number in sorted(set().union(*(batch.tokens for batch in parts))):
        numbers = _joined([it.tokens.get(number) for it in parts], counts=counts, default=0)
        if numbers.any():
            tokens[number] = numbers
    return Gathered(
        origins=list(zip(origins, counts, strict=True)),
        columns=columns,
        tokens=tokens,
        event_ids=_event_ids(batches),
        request_ids=_request_ids(batches),
    )


def pack(segment: Gathered, *, newest_version: int = NAMED_ONCE_VERSION) -> bytes:
    """Return a segment's body, of no newer version than all servers of its database read."""
    version = SIGNED_VERSION if segment.is_correction else newest_version
    parts: list[memoryview] = []
    columns: list[Sequence[str | int | None]] = []
    first = ("dimension", "end_ms")
    named = {
        **{name: segment.columns[name] for name in first},
        **{f"tokens.{number}": counts for number, counts in segment.tokens.items()},
        **{name: values for name, values in segment.columns.items() if name not in first},
    }
    for name, values in named.items():
        is_parted = version >= NAMED_ONCE_VERSION and name not in first
        column, planes = pack_column(name, values, is_parted=is_parted)
        columns.append(column.said())
        parts += planes
    ids, texts = segment.event_ids, "\n".join(segment.request_ids).encode()
    origins = segment.origins
    say = _names_once if version >= NAMED_ONCE_VERSION else _names_in_full
    said: dict[str, object] = {
        **say(origins),
        "columns": columns,
        "event_ids": len(ids),
        "request_ids": len(texts),
    }
    left_out = [[at, *origin.left_out] for at, (origin, _) in enumerate(origins) if origin.left_out]
    if left_out:
        said["left_out"] = left_out
    header = json.dumps(said, separators=(",", ":")).encode()
    return b"".join([_HEADER.pack(version, len(header)), header, *parts, ids, texts])


def encode(
    batches: Sequence[tuple[Origin, EventBatch]],
    *,
    dimension_ids: Callable[[EventBatch], IntArray],
    newest_version: int = NAMED_ONCE_VERSION,
) -> bytes:
    """Return the body of the segment that batches make."""
    return pack(gather(batches, dimension_ids=dimension_ids), newest_version=newest_version)


def decode(body: bytes) -> Segment:
    """Read a segment back; raises ValueError on a version that this code does not know.

    A body that is damaged may raise what comes of it: `READ_FAULTS`.
    """
    version, size = _HEADER.unpack_from(body)
    _check(version)
    place = _HEADER.size + size
    header = json.loads(body[_HEADER.size : place])
    count = _count(header["batches"])
    columns: dict[str, Int64Array] = {}
    tokens: dict[int, Int64Array] = {}
    for fields in header["columns"]:
        column = Column(*fields)
        length = column.size_bytes(count)
        values = unpack(body[place : place + length], column, count)
        place += length
        if column.name.startswith("tokens."):
            tokens[int(column.name[7:])] = values
        else:
            columns[column.name] = values
    ids_end = place + header["event_ids"]
    texts = body[ids_end : ids_end + header["request_ids"]]
    left_out = {number: tuple(places) for number, *places in header.get("left_out", ())}
    return Segment(
        origins=[
            (_origin(fields, left_out=left_out.get(number, ())), fields[-1])
            for number, fields in enumerate(_in_full(header))
        ],
        columns=columns,
        tokens=tokens,
        event_ids=body[place:ids_end],
        request_ids=texts.decode().split("\n") if texts else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A column where it lies in a body: from `offset`, for `size_bytes`."""

    column: Column
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a body begins with: how many events it has, and where each column lies, by name."""

    event_count: int
    parts: Mapping[str, Part]


def head_size_bytes(start: bytes) -> int:
    """Return how many bytes a body's head takes, from its first `HEAD_START_BYTES` bytes."""
    return _HEADER.size + int(_HEADER.unpack_from(start)[1])


def read_head(body: bytes) -> Head:
    """Read the head of a body, of which at least that is there; raises ValueError as `decode`."""
    version, size = _HEADER.unpack_from(body)
    _check(version)
    place = _HEADER.size + size
    header = json.loads(body[_HEADER.size : place])
    count = _count(header["batches"])
    parts: dict[str, Part] = {}
    for fields in header["columns"]:
        column = Column(*fields)
        length = column.size_bytes(count)
        parts[column.name] = Part(column=column, offset=place, size_bytes=length)
        place += length
    return Head(event_count=count, parts=parts)


def read_first(body: bytes, *, count: int) -> Part:
    """Return where `dimension` lies, the first column, without reading all of the head.

    `count` is how many events the segment has. Raises ValueError as `decode`.
    """
    version, size = _HEADER.unpack_from(body)
    _check(version)
    # No text of the head has quotes like these: in a text they would be escaped.
    begin = body.index(_FIRST_COLUMN) + len(_FIRST_COLUMN)
    half_bytes, base, _ = body[begin : body.index(b"]", begin)].split(b",")
    column = Column("dimension", int(half_bytes), int(base), None)
    return Part(
        column=column,
        offset=_HEADER.size + size,
        size_bytes=column.size_bytes(count),
    )


def _count(batches: Sequence[Sequence[Any]]) -> int:
    """Return how many events there are; no more than can be, or a damaged head takes all memory."""
    count = sum(batch[-1] for batch in batches)
    if not isinstance(count, int) or not 0 <= count <= SEGMENT_EVENTS_MAX:
        raise ValueError(f"a segment of {count!r:.40} events; it is damaged")
    return count


def _check(version: int) -> None:
    if version not in _VERSIONS:
        message = f"segment version {version}; this server reads {_VERSIONS[-1]}: upgrade it"
        raise ValueError(message)


def _joined(columns: Sequence[IntArray | None], *, counts: Sequence[int], default: int) -> IntArray:
    """Return what batches have of a column, one behind the other; None is all default."""
    # As narrow as it can be: what is joined is as wide as the widest.
    kind = np.min_scalar_type(default) if default >= 0 else np.int64
    pairs = zip(columns, counts, strict=True)
    filled = [np.full(n, default, kind) if it is None else it for it, n in pairs]
    return narrow(np.concatenate(filled))


def _event_ids(batches: Sequence[tuple[Origin, EventBatch]]) -> bytes:
    if not any(batch.event_ids is not None and batch.event_ids.any() for _, batch in batches):
        return b""
    return b"".join(
        bytes(EVENT_ID_BYTES * len(batch)) if batch.event_ids is None else batch.event_ids.data
        for _, batch in batches
    )


def _request_ids(batches: Sequence[tuple[Origin, EventBatch]]) -> Sequence[str]:
    if not any(batch.request_ids and any(batch.request_ids) for _, batch in batches):
        return ()
    return [text for _, batch in batches for text in batch.request_ids or [""] * len(batch)]


def _names_in_full(origins: Sequence[tuple[Origin, int]]) -> dict[str, object]:
    return {
        "batches": [
            [
                origin.account_id,
                origin.key_id,
                origin.producer,
                origin.instance.hex(),
                origin.sequence,
                origin.received_ms,
                count,
            ]
            for origin, count in origins
        ]
    }


def _names_once(origins: Sequence[tuple[Origin, int]]) -> dict[str, object]:
    """Return what a head says of batches: keys and producers in the order in which they come."""
    keys: dict[tuple[str, str], int] = {}
    producers: dict[tuple[int, str, bytes], int] = {}
    batches = []
    first_ms = origins[0][0].received_ms
    for origin, count in origins:
        key = keys.setdefault((origin.account_id, origin.key_id), len(keys))
        who = (key, origin.producer, origin.instance)
        number = producers.setdefault(who, len(producers))
        batches.append((number, origin.sequence, origin.received_ms - first_ms, count))
    return {
        "keys": list(keys),
        "producers": [(key, name, instance.hex()) for key, name, instance in producers],
        "first_received_ms": first_ms,
        "batches": batches,
    }


def _in_full(header: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    """Return a head's batches, each with all names, however its version has them."""
    batches: Sequence[Sequence[Any]] = header["batches"]
    if "producers" not in header:
        return batches
    producers = [
        (*header["keys"][_place(key)], name, instance)
        for key, name, instance in header["producers"]
    ]
    first_ms = header["first_received_ms"]
    return [
        (*producers[_place(number)], sequence, first_ms + offset_ms, count)
        for number, sequence, offset_ms, count in batches
    ]


def _place(number: int) -> int:
    """Return a place in a list; from its end nothing is counted, which only damage does."""
    if number < 0:
        raise ValueError(f"place {number}; it is damaged")
    return number


def _origin(fields: Sequence[str | int], *, left_out: tuple[int, ...]) -> Origin:
    account_id, key_id, producer, instance, sequence, received_ms, _ = fields
    return Origin(
        account_id=str(account_id),
        key_id=str(key_id),
        producer=str(producer),
        instance=bytes.fromhex(str(instance)),
        sequence=int(sequence),
        received_ms=int(received_ms),
        left_out=left_out,
    )
