"""Columns off the wire without a Python object for each value.

Packed numbers and embedded messages have the wire type of bytes. A copy of the descriptors in
which the columns are declared as bytes lets protobuf hand them over unread; numpy then reads all
varints of a batch at once. The copy is made from the generated descriptors at import of the
process, so the two cannot drift apart.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import Message

from meter.domain import limits
from meter.domain.event import Int64Array, Uint8Array
from meter.domain.outcome import Outcome
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

# Optional columns by their names on the wire, and in the journal.
EXTRA: Final = {
    "duration_ms": "duration_ms",
    "finish": "finish",
    "quality": "quality",
    "attempt": "attempt",
    "reported_input_count": "reported_input",
    "reported_output_count": "reported_output",
}
_COLUMNS: Final = ("dimensions_index", "end_offset_ms", *EXTRA)
# What is left unread, by message: every column of numbers, and every row; and what is looked up by
# its bytes.
_UNREAD: Final = {
    "UsageColumns": ("dimensions", *_COLUMNS),
    "TokenColumn": ("counts",),
    "UsageRows": ("events",),
    "RecordUsageRequest": ("events",),
    "UsagePlanes": ("accounts", "services"),
}
_VARINT_BYTES_MAX: Final = 10
_NARROW_BYTES: Final = 4
# A byte from here on says that its number goes on.
_MORE: Final = 0x80
# Small columns are read together, for numpy's cost of a call; large ones apart, for the cache.
_JOINED_BYTES_MAX: Final = 8_192


class UnusableBatch(Exception):
    """A batch as a whole cannot be read as events."""

    def __init__(self, outcome: Outcome) -> None:
        """Take the outcome of the whole batch."""
        super().__init__(outcome.name)
        self.outcome = outcome


class UnreadableColumn(ValueError):
    """A column's bytes are not a series of varints."""


def unread_message_class(name: str) -> Any:  # noqa: ANN401
    """Return the class of a message of meter.v1 whose unread parts are bytes."""
    pool = descriptor_pool.DescriptorPool()
    for module in (timestamp_pb2, outcome_pb2, usage_pb2, meter_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            for field in message.field:
                if field.name in _UNREAD.get(message.name, ()):
                    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                    field.ClearField("type_name")
        pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"tokenworks.meter.v1.{name}")
    return message_factory.GetMessageClass(descriptor)


def read_columns(columns: Sequence[Sequence[bytes]]) -> list[Int64Array]:
    """Return the numbers of each column, given as the chunks in which it came."""
    joined = [chunks[0] if len(chunks) == 1 else b"".join(chunks) for chunks in columns]
    if any(chunk and chunk[-1] >= _MORE for chunk in joined):
        raise UnreadableColumn("a column ends inside a number")
    if sum(map(len, joined)) > _JOINED_BYTES_MAX:
        return [_varints(np.frombuffer(chunk, np.uint8))[0] for chunk in joined]
    values, ends = _varints(np.frombuffer(b"".join(joined), np.uint8))
    borders = np.cumsum([len(chunk) for chunk in joined])
    return np.split(values, np.searchsorted(ends, borders[:-1]))


def _varints(data: Uint8Array) -> tuple[Int64Array, Int64Array]:
    """Return the numbers, and for each the place of its last byte, which is its highest part."""
    ends = np.flatnonzero(data < _MORE)
    values = data[ends]
    if len(ends) == len(data):
        return values.astype(np.int64), ends
    lengths = np.diff(ends, prepend=-1)
    longest = int(lengths.max())
    if longest > _VARINT_BYTES_MAX:
        raise UnreadableColumn("a number is longer than 10 bytes")
    # Up to four bytes hold 28 bits: half the memory to move.
    wide: npt.NDArray[Any] = values.astype(np.int32 if longest <= _NARROW_BYTES else np.int64)
    for back in range(1, longest):
        low = data.take(ends - back, mode="wrap") & 0x7F
        wide = np.where(lengths > back, (wide << 7) | low, wide)
    return wide.astype(np.int64), ends


def read_columns_message(columns: Any) -> dict[str, Int64Array]:  # noqa: ANN401
    """Return the columns of a UsageColumns, by name or, of tokens, by the class's number as text.

    Optional ones that are empty are left out. Raises UnusableBatch.
    """
    if (
        len(columns.dimensions) > limits.BATCH_DIMENSIONS_MAX
        or len(columns.tokens) > limits.BATCH_CLASSES_MAX
        # A number takes at least a byte: a bomb is refused before it is unpacked.
        or sum(map(len, columns.dimensions_index)) > 5 * limits.BATCH_EVENTS_MAX
    ):
        raise UnusableBatch(Outcome.BATCH_TOO_LARGE)
    try:
        values = _read(columns)
    except UnreadableColumn as error:
        raise UnusableBatch(Outcome.BATCH_MALFORMED) from error
    index = values["dimensions_index"]
    if len(index) > limits.BATCH_EVENTS_MAX:
        raise UnusableBatch(Outcome.BATCH_TOO_LARGE)
    if not _fits(columns, values, len(index)) or not are_indexes(index, len(columns.dimensions)):
        raise UnusableBatch(Outcome.BATCH_MALFORMED)
    return {EXTRA.get(k, k): v for k, v in values.items() if k not in EXTRA or len(v)}


def are_indexes(index: Int64Array, count: int) -> bool:
    """Tell whether all are places in a list of so many."""
    return not len(index) or (int(index.min()) >= 0 and int(index.max()) < count)


def _read(columns: Any) -> dict[str, Int64Array]:  # noqa: ANN401
    names: list[str] = [*_COLUMNS]
    chunks: list[list[bytes]] = [list(getattr(columns, name)) for name in _COLUMNS]
    unpacked = has_unread_fields(columns)
    for column in columns.tokens:
        names.append(str(column.token_class))
        chunks.append(list(column.counts))
        unpacked = unpacked or (not chunks[-1] and has_unread_fields(column))
    if len(set(names)) < len(names):
        raise UnusableBatch(Outcome.BATCH_MALFORMED)
    if unpacked:
        return _read_unpacked(columns)
    return dict(zip(names, read_columns(chunks), strict=True))


def _read_unpacked(columns: Any) -> dict[str, Int64Array]:  # noqa: ANN401
    """Read columns from a client that sends numbers one by one, which proto3 allows."""
    message = usage_pb2.UsageColumns.FromString(columns.SerializeToString())
    read = {name: np.array(getattr(message, name), np.int64) for name in _COLUMNS}
    for column in message.tokens:
        read[str(column.token_class)] = np.array(column.counts, np.int64)
    return read


def _fits(columns: Any, values: dict[str, Int64Array], count: int) -> bool:  # noqa: ANN401
    required = [v for name, v in values.items() if name not in EXTRA]
    optional: list[float] = [len(values[name]) for name in EXTRA]
    optional += [len(columns.request_id), len(columns.event_ids) / limits.EVENT_ID_BYTES]
    return all(len(v) == count for v in required) and all(n in (0, count) for n in optional)


def has_unread_fields(message: Message) -> bool:
    """Tell whether bytes were left over, as when numbers came one by one instead of packed."""
    from google.protobuf import unknown_fields  # noqa: PLC0415  loads slowly, seldom needed

    return len(unknown_fields.UnknownFieldSet(message)) > 0
