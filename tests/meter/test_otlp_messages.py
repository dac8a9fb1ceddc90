"""Attributes that are read when they are asked for, in each form that they may have."""

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from meter.sources.otlp import DimensionMemory, read_spans
from meter.sources.otlp_messages import UnreadTraces, name_of, to_unread, value_of
from meter.sources.places import Places
from tests.otlp import span, traces

COUNTS = {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 4}
TEN = AnyValue(int_value=10).SerializeToString()


def pair(name: str) -> bytes:
    """Return an attribute as it is written."""
    return KeyValue(key=name, value=AnyValue(int_value=10)).SerializeToString()


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        (pair("a.name"), "a.name"),
        (pair("n" * 127), "n" * 127),
        (pair("n" * 200), "n" * 200),
        (pair("größe"), "größe"),
        (b"\x12" + bytes([len(TEN)]) + TEN + b"\x0a\x01n", "n"),
        (b"", ""),
    ],
)
def test_name_of__each_form(attribute: bytes, name: str) -> None:
    """A name is found where it is short, long, no ASCII, after the value, or missing."""
    assert name_of(attribute) == name.encode()
    assert value_of(attribute).int_value == (10 if name else 0)


def test_name_of__damaged() -> None:
    """What is no attribute has no name."""
    with pytest.raises(DecodeError):
        name_of(b"\x12\x7f")


def test_read_spans__name_after_value() -> None:
    """A count is found in an attribute whose fields are in the other order."""
    request = to_unread(traces(span(COUNTS)))
    attributes = request.resource_spans[0].scope_spans[0].spans[0].attributes
    for place, attribute in enumerate(attributes):
        name = name_of(attribute)
        head = b"\x0a" + bytes([len(name)]) + name
        attributes[place] = attribute.removeprefix(head) + head
    (found,) = read_spans(UnreadTraces.FromString(request.SerializeToString()), Places())
    assert [it.reported_input for it in found.observations] == [10]


def test_read_spans__damaged_attribute() -> None:
    """A span with a damaged attribute is counted as unreadable; the next one is read."""
    request = to_unread(traces(span(COUNTS), span(COUNTS)))
    request.resource_spans[0].scope_spans[0].spans[0].attributes.append(b"\x12\x7f")
    (found,) = read_spans(request, Places())
    assert len(found.observations) == 1
    assert [it.reason for it in found.unreadable] == ["an attribute of a span is damaged"]


def test_dimension_memory__of_long_texts() -> None:
    """Texts without end are not kept."""
    memory = DimensionMemory()
    dimensions = Places().to_dimensions(model="m")
    memory.add(("short",), dimensions)
    memory.add(("long" * 1_000,), dimensions)
    assert memory.get(("short",)) is dimensions
    assert memory.get(("long" * 1_000,)) is None
