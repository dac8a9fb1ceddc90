"""Calls as spans: the outermost interceptor of a server that traces."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from meter.spans import Tracer
from meter.wire.handlers import is_served, wrap_handler

_Context = grpc.aio.ServicerContext


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Spans each call of ours from its first byte to its status."""

    def __init__(self, tracer: Tracer) -> None:
        """Take what writes spans."""
        self._tracer = tracer

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401
        """Return the handler within a span."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not is_served(method):
            return handler
        return wrap_handler(
            handler,
            unary=partial(self._answered, method),
            listing=partial(self._listed, method),
            streaming=partial(self._answered, method),
        )

    def _answered(self, method: str, call: Callable[[Any, Any], Awaitable[Any]]) -> Any:  # noqa: ANN401
        async def wrapped(request: Any, context: _Context[Any, Any]) -> Any:  # noqa: ANN401
            with self._tracer.call(method, context.invocation_metadata() or ()):
                return await call(request, context)

        return wrapped

    def _listed(self, method: str, call: Callable[[Any, Any], AsyncIterator[Any]]) -> Any:  # noqa: ANN401
        async def wrapped(request: Any, context: _Context[Any, Any]) -> AsyncIterator[Any]:  # noqa: ANN401
            with self._tracer.call(method, context.invocation_metadata() or ()):
                async for answer in call(request, context):
                    yield answer

        return wrapped
