"""What takes time, told to whoever traces the installation; nothing is told while nobody does.

Like the log it is the process's own: `install` comes first, before anything runs.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeAlias

Value: TypeAlias = str | int | float
Attributes: TypeAlias = Mapping[str, Value]


class Trace(Protocol):
    """Where in a trace something happens: opaque, made by a tracer, and handed back to it."""


class Tracer(Protocol):
    """Writes spans; safe to share between threads. Of its own it raises nothing."""

    def call(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]]
    ) -> AbstractContextManager[None]:
        """Span a gRPC call, by its full name, as its caller's metadata says where it belongs."""
        ...

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[None]:
        """Span a block, within what is at hand."""
        ...

    def find_trace(self) -> Trace | None:
        """Return where we are, None outside of any span and in one that nobody keeps."""
        ...

    def record(
        self, name: str, *, seconds: float, trace: Trace | None, attributes: Attributes
    ) -> None:
        """Write a span that has just ended, and took so long; without a trace it begins one."""
        ...


class _Process:
    """What this process traces with."""

    tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Trace with this from now on, or no more."""
    _Process.tracer = tracer


def find_tracer() -> Tracer | None:
    """Return what is traced with, None while nobody traces."""
    return _Process.tracer


def span(name: str, **attributes: Value) -> AbstractContextManager[None]:
    """Span a block, if anybody traces."""
    tracer = _Process.tracer
    return nullcontext() if tracer is None else tracer.span(name, attributes)
