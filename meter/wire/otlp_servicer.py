"""OpenTelemetry's collector services, by gRPC and by HTTP: what is exported is read as usage.

A call is answered once what it brought is recorded. Its answer never has a `partial_success`: who
sent the rest would not send it again, so what cannot be counted waits in quarantine.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from meter.domain.clock import Clock
from meter.domain.credential import Credential
from meter.domain.errors import MeterError
from meter.domain.limits import MESSAGE_BYTES_MAX
from meter.sources.otlp import DimensionMemory, Reports, read_spans
from meter.sources.otlp_logs import read_logs
from meter.sources.otlp_messages import UnreadTraces
from meter.sources.places import Places
from meter.wire.door import RegistryDoor
from meter.wire.http_reports import HttpAnswer, HttpReport, Route
from meter.wire.observed import ObservedIntake
from meter.wire.status import code_of, unreadable
from meter.wire.unreadable import UnreadableReports

TRACES: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
LOGS: Final = "opentelemetry.proto.collector.logs.v1.LogsService"
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
# What takes longer than some milliseconds to read is read beside the loop.
_INLINE_BYTES_MAX: Final = 64 * 1024
# JSON in JSON, no deeper than telemetry is.
_DEPTH_MAX: Final = 64

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Take: TypeAlias = Callable[[Any, Credential], Awaitable[None]]
_TracesRequest: Final = trace_service_pb2.ExportTraceServiceRequest
_TracesResponse: Final = trace_service_pb2.ExportTraceServiceResponse
_LogsRequest: Final = logs_service_pb2.ExportLogsServiceRequest
_LogsResponse: Final = logs_service_pb2.ExportLogsServiceResponse


class OtlpServicer:
    """Takes exports of traces and of logs."""

    def __init__(
        self,
        intake: ObservedIntake,
        *,
        places: Places,
        faults: UnreadableReports,
        door: RegistryDoor,
        clock: Clock,
    ) -> None:
        """Take where reports go, and where the spans have what."""
        self._intake = intake
        self._places = places
        self._faults = faults
        self._door = door
        self._clock = clock
        self._memory = DimensionMemory()
        # Several that read would only wait for each other, switching all the time.
        self._turn = asyncio.Lock()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the services of traces and of logs."""
        _add(server, TRACES, self._serve(self.take_traces, _TracesResponse), UnreadTraces)
        _add(server, LOGS, self._serve(self.take_logs, _LogsResponse), _LogsRequest)

    async def stop(self) -> None:
        """Do nothing: who was not answered sends it again."""

    def routes(self) -> list[Route]:
        """Return what takes the same by HTTP, as protobuf and as JSON."""
        return [
            _route(
                "/v1/traces", _TracesRequest, _TracesResponse, self.take_traces, wire=UnreadTraces
            ),
            _route("/v1/logs", _LogsRequest, _LogsResponse, self.take_logs),
        ]

    async def take_traces(self, request: Any, credential: Credential) -> None:  # noqa: ANN401
        """Record the usage in an export of traces; raises Overloaded, Unavailable."""
        await self._take(
            lambda: read_spans(request, self._places, memory=self._memory), request, credential
        )

    async def take_logs(self, request: Any, credential: Credential) -> None:  # noqa: ANN401
        """Record the usage in an export of logs; raises as `take_traces`."""
        received_ms = self._clock.now_ms()
        await self._take(
            lambda: read_logs(request, self._places, received_ms=received_ms), request, credential
        )

    async def _take(
        self,
        read: Callable[[], list[Reports]],
        request: Message,
        credential: Credential,
    ) -> None:
        is_small = request.ByteSize() <= _INLINE_BYTES_MAX
        for reports in read() if is_small else await self._read_beside(read):
            if reports.unreadable:
                self._faults.note(reports.source, reports.unreadable)
            if reports.observations:
                await self._intake.take(
                    reports.observations,
                    credential=credential,
                    source=reports.source,
                    profile=reports.profile,
                )

    async def _read_beside(self, read: Callable[[], list[Reports]]) -> list[Reports]:
        async with self._turn:
            return await asyncio.to_thread(read)

    def _serve(
        self, take: _Take, response: type[Message]
    ) -> Callable[[Any, _Context], Awaitable[Message]]:
        async def export(request: Any, _context: _Context) -> Message:  # noqa: ANN401
            await take(request, self._door.caller())
            return response()

        return export


def _add(
    server: grpc.aio.Server, service: str, export: Callable[..., Any], request: type[Message]
) -> None:
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=request.FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    )
    handlers = {"Export": handler}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])


def _route(
    path: str,
    request: type[Message],
    response: type[Message],
    take: _Take,
    *,
    wire: type[Message] | None = None,
) -> Route:
    """Return what takes exports by HTTP; `wire` has the same form, and is how protobuf is read."""

    async def answer(report: HttpReport) -> HttpAnswer:
        is_json = report.content_type == _JSON
        read, kind = (from_json, request) if is_json else (from_bytes, wire or request)
        message = read(report.body, kind)
        await take(message, report.credential)
        return _to_answer(response(), status=200, is_json=is_json)

    return Route(
        path=path,
        answer=answer,
        content_types=frozenset({_PROTOBUF, _JSON}),
        body_bytes_max=MESSAGE_BYTES_MAX,
        format_error=_format_error,
        # OpenTelemetry's exporter tries six times. Told a second, it has given up after five; told
        # nothing, it waits twice as long each time, and lasts through half a minute.
        is_own_pace=True,
    )


def from_bytes(body: bytes, request: type[Message]) -> Message:
    """Read an export; raises InvalidArgument (MESSAGE_UNREADABLE)."""
    try:
        return request.FromString(body)
    except DecodeError as error:
        raise unreadable() from error


def from_json(body: bytes, request: type[Message]) -> Message:
    """Read an export in OTLP's JSON, where ids are hexadecimal; raises InvalidArgument."""
    message = request()
    try:
        json_format.Parse(body, message, ignore_unknown_fields=True, max_recursion_depth=_DEPTH_MAX)
        for group in getattr(message, "resource_spans", ()):
            for scoped in group.scope_spans:
                for span in scoped.spans:
                    span.trace_id, span.span_id = _hex(span.trace_id), _hex(span.span_id)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise unreadable() from error
    return message


def _hex(read: bytes) -> bytes:
    """Return the bytes of an id whose digits were read as base64; raises ValueError."""
    return bytes.fromhex(base64.b64encode(read).decode("ascii"))


def _format_error(error: MeterError, *, status: int, content_type: str) -> HttpAnswer:
    told = status_pb2.Status(code=code_of(error).value[0], message=error.message)
    return _to_answer(told, status=status, is_json=content_type == _JSON)


def _to_answer(message: Message, *, status: int, is_json: bool) -> HttpAnswer:
    if is_json:
        text = json_format.MessageToJson(message, indent=None)
        return HttpAnswer(status=status, content_type=_JSON, body=text.encode())
    return HttpAnswer(status=status, content_type=_PROTOBUF, body=message.SerializeToString())
