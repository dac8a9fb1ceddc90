"""Exports of traces whose attributes are not read before somebody asks for one. Pure.

A span has ten attributes and more, of which few are looked at; an object for each, its name and its
value costs more than all the rest. A copy of OpenTelemetry's descriptors in which they are declared
as bytes lets protobuf hand them over unread: both have the same form on the wire. The copy is made
at import of the process, so the two cannot drift apart.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

# Of these nothing is looked at but attributes: events of a span may have prompts in them.
_UNREAD: Final = frozenset({"attributes", "events", "links"})
# Before a name: the number and wire type of `KeyValue.key`; then its length, while it is short.
_KEY: Final = 0x0A
_KEY_BYTES_MAX: Final = 0x7F
_HEAD_BYTES: Final = 2

_read_pair: Final = common_pb2.KeyValue.FromString


def _unread_class() -> Any:  # noqa: ANN401
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2, trace_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            if message.name == "Span":
                for field in message.field:
                    if field.name in _UNREAD:
                        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                        field.ClearField("type_name")
        pool.Add(file)
    name = trace_service_pb2.ExportTraceServiceRequest.DESCRIPTOR.full_name
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


UnreadTraces: Final = _unread_class()


def to_unread(request: Any) -> Any:  # noqa: ANN401  an export of traces
    """Return an export with its attributes unread; one that is so already is returned itself."""
    if isinstance(request, UnreadTraces):
        return request
    return UnreadTraces.FromString(request.SerializeToString())


def name_of(attribute: bytes) -> bytes:
    """Return the name of an unread attribute; raises DecodeError where it cannot be read."""
    if len(attribute) > _HEAD_BYTES and attribute[0] == _KEY and attribute[1] <= _KEY_BYTES_MAX:
        # Nearly always: all that write them put the name first.
        return attribute[_HEAD_BYTES : _HEAD_BYTES + attribute[1]]
    return str(_read_pair(attribute).key).encode()


def value_of(attribute: bytes) -> Any:  # noqa: ANN401  an AnyValue
    """Return the value of an unread attribute; raises DecodeError where it cannot be read."""
    return _read_pair(attribute).value
