"""Exports of OpenTelemetry as engines and gateways make them, built by hand."""

import base64
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

ARRIVED_NS = time.time_ns()
VLLM_SCOPE = "vllm.llm_engine"
VLLM_RESOURCE = {
    "vllm.instrumenting_module_name": "vllm.llm_engine",
    "tokenworks.model": "m",
    "tokenworks.tier": "high",
}


def attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    """Return attributes of any type that a test needs."""
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def span(
    values: Mapping[str, Any],
    *,
    trace_state: str = "tokenworks=acme",
    ended_ns: int | None = None,
    took_ns: int = 2 * 10**9,
    span_id: bytes = b"",
    trace_id: bytes = b"",
    is_failed: bool = False,
) -> Span:
    """Return a span that has ended, now unless said."""
    end_ns = time.time_ns() if ended_ns is None else ended_ns
    return Span(
        trace_id=trace_id or os.urandom(16),
        span_id=span_id or os.urandom(8),
        name="llm_request",
        kind=Span.SPAN_KIND_SERVER,
        trace_state=trace_state,
        start_time_unix_nano=max(0, end_ns - took_ns),
        end_time_unix_nano=end_ns,
        attributes=attributes(values),
        status=Status(code=Status.STATUS_CODE_ERROR) if is_failed else None,
    )


def vllm(request_id: str, context: int, generated: int, **changes: Any) -> Span:  # noqa: ANN401
    """Return the span of an engine request as vLLM 0.33 has it.

    All arrive at the same time, as answers to one prompt do, unless it is said when they ended.
    """
    if "ended_ns" not in changes:
        end_ns = time.time_ns()
        changes |= {"ended_ns": end_ns, "took_ns": end_ns - ARRIVED_NS}
    return span(
        {
            "gen_ai.usage.prompt_tokens": context,
            "gen_ai.usage.completion_tokens": generated,
            "gen_ai.request.id": request_id,
            "gen_ai.request.top_p": 1.0,
            "gen_ai.request.max_tokens": 4_096,
            "gen_ai.request.temperature": 0.7,
            "gen_ai.request.n": 1,
            "gen_ai.latency.time_in_queue": 0.001,
            "gen_ai.latency.time_to_first_token": 0.05,
            "gen_ai.latency.e2e": 2.0,
        },
        **changes,
    )


def traces(
    *spans: Span, scope: str = VLLM_SCOPE, resource: Mapping[str, Any] | None = None
) -> ExportTraceServiceRequest:
    """Return an export of spans of one scope and resource."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(attributes(VLLM_RESOURCE if resource is None else resource))
    scoped = group.scope_spans.add(spans=spans)
    scoped.scope.name = scope
    return request


def logs(
    *records: Mapping[str, Any],
    scope: str = "",
    resource: Mapping[str, Any] | None = None,
    time_ns: int | None = None,
) -> ExportLogsServiceRequest:
    """Return an export of log records, by their attributes."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(attributes(resource or {}))
    now = time.time_ns() if time_ns is None else time_ns
    scoped = group.scope_logs.add(
        log_records=[LogRecord(time_unix_nano=now, attributes=attributes(each)) for each in records]
    )
    scoped.scope.name = scope
    return request


def to_json(request: ExportTraceServiceRequest | ExportLogsServiceRequest) -> bytes:
    """Return an export in OTLP's JSON, where ids are hexadecimal and kinds are numbers."""
    whole = json_format.MessageToDict(request, use_integers_for_enums=True)
    for scoped in (it for group in whole.get("resourceSpans", ()) for it in group["scopeSpans"]):
        for each in scoped["spans"]:
            for name in ("traceId", "spanId"):
                each[name] = base64.b64decode(each[name]).hex()
    return json.dumps(whole).encode()


def _value(value: Any) -> AnyValue:  # noqa: ANN401
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))
    return AnyValue(string_value=str(value))
