"""What stands around a method's handler is put there once, for all of its calls."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Final

import grpc

from meter.wire.handlers import OncePerMethod

KNOWN: Final = "/tokenworks.meter.v1.MeterService/RecordUsage"


class Noting(grpc.aio.ServerInterceptor):
    """Puts its name around a handler, and notes that it was asked."""

    def __init__(self, name: str, asked: list[str]) -> None:
        self._name = name
        self._asked = asked

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401
        """Ask for the handler within."""
        self._asked.append(self._name)
        handler = await continuation(handler_call_details)
        return None if handler is None else f"{self._name}({handler})"


async def find(details: Any) -> str | None:  # noqa: ANN401
    """Stand in for gRPC, which knows one method."""
    return "handler" if details.method == KNOWN else None


def test_intercept__asks_once_for_each_method() -> None:
    """The first one stands outside, and none is asked again; unknown names are not kept."""
    asked: list[str] = []
    once = OncePerMethod([Noting("outer", asked), Noting("inner", asked)])

    def ask(method: str) -> Any:  # noqa: ANN401
        details: Any = SimpleNamespace(method=method)
        return asyncio.run(once.intercept_service(find, details))

    assert [ask(KNOWN), ask(KNOWN)] == ["outer(inner(handler))"] * 2
    assert asked == ["outer", "inner"]
    assert [ask("/x"), ask("/x")] == [None, None]
    assert asked == ["outer", "inner"] * 3
