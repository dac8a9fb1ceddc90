"""Where every call passes before it is served: as many of one API key as its bounds allow."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from meter.domain.errors import Unauthenticated, Unavailable
from meter.wire.bounds import Bounds, Share
from meter.wire.handlers import is_served, wrap_handler

Identify = Callable[["grpc.aio.ServicerContext[Any, Any]"], str]


class Turnstile(grpc.aio.ServerInterceptor):
    """Wraps every handler of the product's own services; stands inside `StatusInterceptor`."""

    def __init__(self, bounds: Bounds, *, identify: Identify) -> None:
        """Take the bounds; `identify` returns the number of the API key that calls, or raises.

        Raises Unauthenticated or Unavailable. Who has no key is bounded together with all others
        who have none, and then refused by whoever serves the call.
        """
        self._bounds = bounds
        self._identify = identify

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401
        """Return the handler with its bounds."""
        handler = await continuation(handler_call_details)
        if handler is None or not is_served(str(handler_call_details.method)):
            return handler
        return wrap_handler(
            handler, unary=self._unary, listing=self._listing, streaming=self._stream
        )

    def _share(self, context: "grpc.aio.ServicerContext[Any, Any]") -> Share:
        try:
            return self._bounds.of(self._identify(context))
        except (Unauthenticated, Unavailable):
            return self._bounds.of("")

    def _unary(self, call: Callable[[Any, Any], Awaitable[Any]]) -> Any:  # noqa: ANN401
        async def wrapped(request: Any, context: Any) -> Any:  # noqa: ANN401
            async with self._share(context).call():
                return await call(request, context)

        return wrapped

    def _listing(self, call: Callable[[Any, Any], AsyncIterator[Any]]) -> Any:  # noqa: ANN401
        async def wrapped(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
            async with self._share(context).call():
                async for answer in call(request, context):
                    yield answer

        return wrapped

    def _stream(self, call: Callable[[Any, Any], Awaitable[None]]) -> Any:  # noqa: ANN401
        async def wrapped(requests: Any, context: Any) -> None:  # noqa: ANN401
            async with self._share(context).stream():
                await call(requests, context)

        return wrapped
