"""The boundary to objects of other people's making, whose own code runs when they are read."""

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Unfit(ValueError):
    """An argument that the wire cannot carry; the message is its kind, one of a closed set."""


def guarded(reading: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call something that reads foreign objects; whatever it raises becomes `Unfit`."""
    try:
        return reading(*args, **kwargs)
    except Unfit:
        raise
    except Exception as error:
        # A property, `__index__` or `__eq__` may raise anything, and the caller must not see it.
        raise Unfit("unreadable_argument") from error


def items_of(mapping: Mapping[Any, object]) -> object:
    """Return the items of a mapping as they are now; a text, which is unfit, where that fails."""
    try:
        return guarded(lambda: tuple(mapping.items()))
    except Unfit:
        return "unreadable"
