"""What interceptors have in common: a handler of the same form, around another one's call."""

from collections.abc import Callable
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
