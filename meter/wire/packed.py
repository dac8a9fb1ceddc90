"""Columns off the wire without a Python object for each value.

Packed numbers and embedded messages have the wire type of bytes. A copy of the descriptors in
which the columns are declared as bytes lets protobuf hand them over unread; numpy then reads all
varints of a batch at once. The copy is made from the generated descriptors at import of the
process, so the two cannot drift apart.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import Message

from meter.domain.event import Int64Array
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

_PACKED_MESSAGES: Final = ("UsageColumns", "TokenColumn")
_VARINT_BYTES_MAX: Final = 10


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
    data = np.frombuffer(b"".join(joined), np.uint8)
    borders = np.cumsum([len(chunk) for chunk in joined])
    ends = np.flatnonzero(data < 0x80)  # noqa: PLR2004  the last byte of a varint
    places = np.searchsorted(ends, borders)
    filled = borders[borders > 0]
    if len(filled) and not (data[filled - 1] < 0x80).all():  # noqa: PLR2004
        raise UnreadableColumn("a column ends inside a number")
    return np.split(_varints(data, ends), places[:-1])


def _varints(data: np.ndarray[Any, np.dtype[np.uint8]], ends: Int64Array) -> Int64Array:
    values = data[ends].astype(np.int64)
    if len(ends) == len(data):
        return values
    lengths = np.diff(ends, prepend=-1)
    longest = int(lengths.max())
    if longest > _VARINT_BYTES_MAX:
        raise UnreadableColumn("a number is longer than 10 bytes")
    places = np.flatnonzero(lengths > 1)
    for back in range(1, longest):
        if back > 1:
            places = places[lengths[places] > back]
        low = data[ends[places] - back] & 0x7F
        values[places] = (values[places] << 7) | low
    return values


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
