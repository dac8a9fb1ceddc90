"""Calls as spans: the outermost interceptor of a server that traces."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from meter.spans import Tracer

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
        if handler is None or not method.startswith("/tokenworks."):
            return handler
        forms = (handler.request_deserializer, handler.response_serializer)
        if handler.stream_stream is not None:
            wrapped = self._answered(method, handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(wrapped, *forms)
        if handler.unary_stream is not None:
            wrapped = self._listed(method, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(wrapped, *forms)
        wrapped = self._answered(method, handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(wrapped, *forms)

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
