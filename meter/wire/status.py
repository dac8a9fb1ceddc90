"""The one place where errors become gRPC status, with ErrorInfo and, where it helps, RetryInfo."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from meter.call_context import begin_call
from meter.domain import errors
from meter.domain.errors import MeterError, Reason
from meter.domain.limits import MESSAGE_BYTES_MAX
from meter.domain.times import to_iso
from meter.metrics import Metrics
from meter.runtime.clock import SystemClock
from meter.runtime.driven_clock import DrivenClock
from meter.runtime.ids import random_bytes
from meter.wire.handlers import is_served, wrap_handler
from meter.wire.packed import unread_message_class
from meter.wire.refusals import RefusalLog

_log = logging.getLogger(__name__)
DOMAIN: Final = "tokenworks"
DETAILS_KEY: Final = "grpc-status-details-bin"
REASON_KEY: Final = "tokenworks-error-reason"
SANDBOX_KEY: Final = "tokenworks-sandbox-clock"
# A message goes twice, once as base64, and a caller's library takes 8 KiB of metadata: what is
# larger it throws away with the reason. In bytes as gRPC writes them.
_WORDS_BYTES_MAX: Final = 3_000

_CODES: Final[dict[type[MeterError], grpc.StatusCode]] = {
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Refused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}

# Events of a call are read side by side, as the rows of a stream are.
_UNREAD: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "/tokenworks.meter.v1.MeterService/RecordUsage": unread_message_class(
        "RecordUsageRequest"
    ).FromString
}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a message whose bytes could not be read."""

    error: MeterError


def safely(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Return a deserializer that hands faults on as values: raised there, they lose their cause."""

    def read(raw: bytes) -> Any:  # noqa: ANN401
        if len(raw) > MESSAGE_BYTES_MAX:
            return Unreadable(
                errors.Overloaded(
                    Reason.MESSAGE_TOO_LARGE,
                    f"The message has {len(raw)} bytes. Send at most {MESSAGE_BYTES_MAX}.",
                    limit_bytes=str(MESSAGE_BYTES_MAX),
                )
            )
        if deserialize is None:
            return raw
        try:
            return deserialize(raw)
        except DecodeError:
            return Unreadable(unreadable())

    return read


def invalid(field: str, rule: str) -> errors.InvalidArgument:
    """Return the error for a field of a message that must be something else."""
    return errors.InvalidArgument(
        Reason.ARGUMENT_INVALID, f"{field} must be {rule}.", field=field, rule=rule
    )


def unreadable() -> errors.InvalidArgument:
    """Return the error for bytes that are no message of this service."""
    return errors.InvalidArgument(
        Reason.MESSAGE_UNREADABLE, "The bytes are not a message of this service."
    )


def readable(request: Any) -> Any:  # noqa: ANN401
    """Return the request, or raise what kept it from being read."""
    if isinstance(request, Unreadable):
        raise request.error
    return request


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler: errors of the tree become their status, any other one INTERNAL.

    In a sandbox every answer and every error tells where its clock stands.
    """

    def __init__(self, metrics: Metrics, *, driven: DrivenClock | None = None) -> None:
        """Take the metrics in which failed calls are counted, and a sandbox's clock."""
        self._metrics = metrics
        self._driven = driven
        self._refusals = RefusalLog(SystemClock().monotonic_seconds)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401
        """Return the handler with its errors translated."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not is_served(method):
            return handler
        # A stream reads its messages itself, without touching the columns.
        is_stream = handler.stream_stream is not None
        return wrap_handler(
            handler,
            unary=partial(self._unary, method),
            listing=partial(self._listing, method),
            streaming=partial(self._streaming, method),
            make_deserializer=lambda it: safely(None if is_stream else _UNREAD.get(method, it)),
        )

    def _unary(self, method: str, call: Callable[[Any, Any], Awaitable[Any]]) -> Any:  # noqa: ANN401
        async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401
            begin_call(method)
            try:
                answer = await call(readable(request), context)
            except Exception as error:  # noqa: BLE001  the RPC edge
                del request
                return await self._fail(context, error)
            self._mark(context)
            return answer

        return wrapped

    def _listing(self, method: str, call: Callable[[Any, Any], AsyncIterator[Any]]) -> Any:  # noqa: ANN401
        async def wrapped(
            request: Any,  # noqa: ANN401
            context: grpc.aio.ServicerContext[Any, Any],
        ) -> AsyncIterator[Any]:
            begin_call(method)
            try:
                async for answer in call(readable(request), context):
                    yield answer
            except Exception as error:  # noqa: BLE001  the RPC edge
                del request
                await self._fail(context, error)
            self._mark(context)

        return wrapped

    def _streaming(self, method: str, call: Callable[[Any, Any], Awaitable[None]]) -> Any:  # noqa: ANN401
        async def wrapped(
            requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
        ) -> None:
            begin_call(method)
            try:
                await call(requests, context)
            except Exception as error:  # noqa: BLE001  the RPC edge
                await self._fail(context, error)
            self._mark(context)

        return wrapped

    async def _fail(
        self, context: grpc.aio.ServicerContext[Any, Any], error: Exception
    ) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        known = as_meter_error(error)
        if known is error:
            self._refusals.note(known, code=code_of(known).name)
        # The call and the error that ends it hold each other until garbage is looked for: what was
        # sent must not hang on them by the frames that it has passed.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = known
        self._metrics.calls_failed.labels(error.reason).inc()
        message = _bounded(error.message)
        await context.abort(
            code_of(error),
            message,
            (
                (DETAILS_KEY, _status(error, message).SerializeToString()),
                (REASON_KEY, str(error.reason)),
                *self._marks(),
            ),
        )

    def _mark(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self._driven is not None:
            context.set_trailing_metadata(self._marks())

    def _marks(self) -> tuple[tuple[str, str], ...]:
        if self._driven is None:
            return ()
        return ((SANDBOX_KEY, to_iso(self._driven.now_ms())),)


def code_of(error: MeterError) -> grpc.StatusCode:
    """Return the gRPC code of an error; INTERNAL for what is our fault."""
    return _CODES.get(type(error), grpc.StatusCode.INTERNAL)


def as_meter_error(error: Exception) -> MeterError:
    """Return the error that is told: the same one, or INTERNAL for what is our fault, logged."""
    if not isinstance(error, MeterError) or error.reason is Reason.INTERNAL:
        return _internal(error)
    return error


def _internal(error: Exception) -> MeterError:
    error_id = random_bytes(8).hex()
    _log.error("call_failed", exc_info=error, extra={"error_id": error_id})
    return MeterError(
        Reason.INTERNAL,
        f"The server failed; its log has error_id {error_id}.",
        error_id=error_id,
    )


def _bounded(message: str) -> str:
    """Return as much of a message as arrives."""
    size_bytes = 0
    for place, char in enumerate(message):
        is_plain = " " <= char <= "~" and char != "%"
        size_bytes += 1 if is_plain else 3 * len(char.encode())
        if size_bytes > _WORDS_BYTES_MAX:
            return f"{message[:place]}…"
    return message


def _status(error: MeterError, message: str) -> status_pb2.Status:
    info = any_pb2.Any()
    info.Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    )
    status = status_pb2.Status(code=code_of(error).value[0], message=message, details=[info])
    if error.retry_seconds is not None and error.reason is not Reason.MESSAGE_TOO_LARGE:
        seconds, rest = divmod(error.retry_seconds, 1)
        delay = duration_pb2.Duration(seconds=int(seconds), nanos=round(rest * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status
