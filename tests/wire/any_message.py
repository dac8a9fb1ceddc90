"""Messages of any content, drawn from what the contract says of their fields."""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

_DEPTH_MAX: Final = 3
_TEXTS: Final = st.one_of(
    st.sampled_from(
        ["", "acme", "llama-4", "high", "2026-10", "EUR", "0", "-1", "1e400", "\x00", "٣", "🧾"]
    ),
    st.text(max_size=20),
    st.sampled_from(["x" * 5_000, "a/b", "../..", "' OR 1=1 --", "%s%n", "{}", "NaN", "Infinity"]),
)
_INTEGERS: Final = st.sampled_from([0, 1, 2, 3, 1_000, 2**31 - 1])
_LONGS: Final = _INTEGERS | st.sampled_from([-1, 2**53, 2**63 - 1, -(2**63)])
_Field = FieldDescriptor
_SCALARS: Final[dict[int, st.SearchStrategy[Any]]] = {
    _Field.TYPE_STRING: _TEXTS,
    _Field.TYPE_BYTES: st.binary(max_size=40),
    _Field.TYPE_BOOL: st.booleans(),
    _Field.TYPE_ENUM: st.sampled_from([0, 1, 2, 3, 7, 99, -1, 2**31 - 1]),
    _Field.TYPE_DOUBLE: st.floats(),
    _Field.TYPE_INT32: _INTEGERS | st.just(-(2**31)),
    _Field.TYPE_INT64: _LONGS,
    _Field.TYPE_SINT32: _INTEGERS,
    _Field.TYPE_SINT64: _LONGS,
    _Field.TYPE_UINT32: _INTEGERS,
    _Field.TYPE_UINT64: _INTEGERS | st.just(2**64 - 1),
}


def any_message(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Messages of a type: each field is there or not, with values at and beyond its bounds."""
    return _messages(descriptor, depth=0)


def _messages(descriptor: Descriptor, *, depth: int) -> st.SearchStrategy[Message]:
    fields = [it for it in descriptor.fields if it.message_type is None or depth < _DEPTH_MAX]

    @st.composite
    def build(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Message:
        message: Message = GetMessageClass(descriptor)()
        for field in fields:
            if draw(st.booleans()):
                _fill(message, field, draw=draw, depth=depth)
        return message

    return build()


def _fill(
    message: Message,
    field: FieldDescriptor,
    *,
    draw: Callable[[st.SearchStrategy[Any]], Any],
    depth: int,
) -> None:
    place = getattr(message, field.name)
    values = (
        _SCALARS[field.type]
        if field.message_type is None
        else _messages(field.message_type, depth=depth + 1)
    )
    if field.is_repeated:
        drawn = draw(st.lists(values, max_size=3))
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return
        place.extend(drawn)
    elif field.message_type is None:
        setattr(message, field.name, draw(values))
    else:
        place.CopyFrom(draw(values))
        place.SetInParent()
