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

from meter.domain.event import Int64Array, Uint8Array
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

_PACKED_MESSAGES: Final = ("UsageColumns", "TokenColumn")
_VARINT_BYTES_MAX: Final = 10
_NARROW_BYTES: Final = 4
# A byte from here on says that its number goes on.
_MORE: Final = 0x80
# Small columns are read together, for numpy's cost of a call; large ones apart, for the cache.
_JOINED_BYTES_MAX: Final = 8_192


class UnreadableColumn(ValueError):
    """A column's bytes are not a series of varints."""


def unread_message_class(name: str) -> Any:  # noqa: ANN401
    """Return the class of a message of meter.v1 whose columns are lists of bytes."""
    pool = descriptor_pool.DescriptorPool()
    for module in (timestamp_pb2, outcome_pb2, usage_pb2, meter_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            if message.name in _PACKED_MESSAGES:
                _declare_columns_as_bytes(message)
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


def _declare_columns_as_bytes(message: descriptor_pb2.DescriptorProto) -> None:
    field_proto = descriptor_pb2.FieldDescriptorProto
    for field in message.field:
        is_text = field.type == field_proto.TYPE_STRING
        if field.label == field_proto.LABEL_REPEATED and field.name != "tokens" and not is_text:
            field.type = field_proto.TYPE_BYTES
            field.ClearField("type_name")


def has_unread_fields(message: Message) -> bool:
    """Tell whether bytes were left over, as when numbers came one by one instead of packed."""
    from google.protobuf import unknown_fields  # noqa: PLC0415  loads slowly, seldom needed

    return len(unknown_fields.UnknownFieldSet(message)) > 0
