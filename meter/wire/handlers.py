"""What interceptors have in common: a handler of the same form, around another one's call."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import grpc

# Whose calls are served here: our own, and those that others have given to what they report.
_SERVED: Final = ("/tokenworks.", "/envoy.service.accesslog.", "/opentelemetry.proto.collector.")

# Takes what serves a call, and returns what serves it instead.
Around = Callable[[Any], Any]


def is_served(method: str) -> bool:
    """Tell whether a call is of a service that records or answers, by its full gRPC name.

    Health and reflection are not: they have neither door nor bounds.
    """
    return method.startswith(_SERVED)


def wrap_handler(
    handler: Any,  # noqa: ANN401  grpc.RpcMethodHandler, whose fields have no types
    *,
    unary: Around,
    listing: Around,
    streaming: Around,
    make_deserializer: Around = lambda deserializer: deserializer,
) -> Any:  # noqa: ANN401
    """Return a handler that serves by `unary`, `listing` or `streaming`, whichever its form is.

    A listing answers one request many times; no service of ours is asked many times for one answer.
    `make_deserializer` gets what reads a request, and returns what reads it instead.
    """
    coders = (make_deserializer(handler.request_deserializer), handler.response_serializer)
    if handler.stream_stream is not None:
        return grpc.stream_stream_rpc_method_handler(streaming(handler.stream_stream), *coders)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(listing(handler.unary_stream), *coders)
    return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), *coders)


class OncePerMethod(grpc.aio.ServerInterceptor):
    """Asks other interceptors once for each method: what they put around it serves all its calls.

    gRPC asks for each call, which costs a small call as much as what it brings.
    """

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        """Take them, the outermost first; none may look at a call's metadata."""
        self._interceptors = interceptors
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401
        """Return the method's handler behind all of them; None where there is no such method."""
        method = str(handler_call_details.method)
        handler = self._handlers.get(method)
        if handler is None:
            for interceptor in reversed(self._interceptors):
                continuation = partial(interceptor.intercept_service, continuation)
            handler = await continuation(handler_call_details)
            if handler is not None:
                # Only methods that there are: of names that somebody makes up there is no end.
                self._handlers[method] = handler
        return handler
