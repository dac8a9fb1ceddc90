"""Exports of OpenTelemetry over the wire: by its real exporter, by HTTP, and by hand."""

import gzip
import http.client
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import status_pb2
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.otlp import logs, span, to_json, traces, vllm
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.apart import Apart
from tests.wire.session import CALL_SECONDS_MAX, LOOK_SECONDS
from tests.wire.talk import wait_until
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT
EXPORT_TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
EXPORT_LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
PROTOBUF, JSON = "application/x-protobuf", "application/json"
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def otlp_meter(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMeter]:
    """A meter that takes exports of OpenTelemetry."""
    folder = tmp_path_factory.mktemp("otlp")
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings={"otlp": "true"}) as running,
    ):
        yield running


@pytest.fixture
def session(otlp_meter: RunningMeter) -> Apart:
    """A session with an account of the test's own, acme."""
    found = Apart(otlp_meter, number=next(_NUMBERS))
    found.create_account("acme")
    return found


def export(session: Apart, request: Any, *, method: str = EXPORT_TRACES) -> bytes:  # noqa: ANN401
    """Export by gRPC to the port for OTLP; return the answer's bytes."""
    with grpc.insecure_channel(session.meter.otlp_grpc) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        return call(request.SerializeToString(), metadata=session.metadata, timeout=60)


def post(
    meter: RunningMeter,
    body: bytes,
    *,
    path: str = "/v1/traces",
    content_type: str = PROTOBUF,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Post to the HTTP port for OTLP; return status, body and headers."""
    connection = http.client.HTTPConnection(meter.otlp_http, timeout=60)
    try:
        given = {"authorization": f"Bearer {meter.api_key}", "content-type": content_type}
        connection.request("POST", path, body, given | dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def state(session: Apart, tier: str = "high") -> str:
    """Return the `tracestate` of the test's account."""
    return f"tokenworks={session.own('acme')}:{tier}"


def as_vllm_traces(session: Apart, *, sampler: Any = None) -> TracerProvider:  # noqa: ANN401
    """Return a provider that exports as vLLM's does, each span at once."""
    provider = TracerProvider(
        resource=Resource(
            {"vllm.instrumenting_module_name": "vllm.llm_engine", "tokenworks.model": "m"}
        ),
        sampler=sampler or ParentBased(ALWAYS_ON),
    )
    exporter = OTLPSpanExporter(
        endpoint=f"http://{session.meter.otlp_grpc}", insecure=True, headers=session.metadata
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def trace_request(provider: TracerProvider, session: Apart, *, flags: str = "01") -> None:
    """Make the span of a request that came with a trace, in vLLM's calls of the SDK."""
    traceparent = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-{flags}"
    context = TraceContextTextMapPropagator().extract(
        {"traceparent": traceparent, "tracestate": state(session)}
    )
    request_id = session.own("traced")
    tracer = provider.get_tracer("vllm.llm_engine")
    with tracer.start_as_current_span("llm_request", context, SpanKind.SERVER) as each:
        each.set_attribute("gen_ai.usage.prompt_tokens", 10)
        each.set_attribute("gen_ai.usage.completion_tokens", 4)
        each.set_attribute("gen_ai.request.id", f"chatcmpl-{request_id}")


def test_export__by_the_real_exporter(session: Apart) -> None:
    """A request that the edge has marked with its tenant is on that tenant's account."""
    provider = as_vllm_traces(session)
    trace_request(provider, session)
    provider.shutdown()
    assert session.counted() == {("acme", "high", INPUT): 10, ("acme", "high", OUTPUT): 4}


@pytest.mark.parametrize("is_always_on", [False, True])
def test_export__caller_who_does_not_sample(session: Apart, is_always_on: bool) -> None:  # noqa: FBT001
    """Such a request is lost where the engine follows its caller, and there where it does not."""
    provider = as_vllm_traces(session, sampler=ALWAYS_ON if is_always_on else None)
    trace_request(provider, session, flags="00")
    provider.shutdown()
    assert session.counted() == (
        {("acme", "high", INPUT): 10, ("acme", "high", OUTPUT): 4} if is_always_on else {}
    )


def test_export__lost_answer(session: Apart) -> None:
    """What is sent again since its answer was lost counts once; each answer is empty."""
    request = traces(
        *(vllm(f"chatcmpl-{session.own(n)}", 10, 4, trace_state=state(session)) for n in "abc")
    )
    assert export(session, request) == export(session, request) == b""
    assert session.counted() == {("acme", "high", INPUT): 30, ("acme", "high", OUTPUT): 12}


def test_export__four_answers_to_one_prompt(session: Apart) -> None:
    """The prompt counts once, and all that was generated."""
    spans = [
        vllm(f"chatcmpl-{session.own('n4')}", 10, n, trace_state=state(session))
        for n in (1, 2, 3, 4)
    ]
    export(session, traces(*spans))
    assert session.counted() == {("acme", "high", INPUT): 10, ("acme", "high", OUTPUT): 10}


def test_export__answers_one_by_one(session: Apart) -> None:
    """Answers of one prompt that come in exports of their own add up, within seconds."""
    for generated in (1, 2, 3, 4):
        each = vllm(f"chatcmpl-{session.own('apart')}", 10, generated, trace_state=state(session))
        for _ in range(2):
            export(session, traces(each))
    wait_until_counted(session, {("acme", "high", INPUT): 10, ("acme", "high", OUTPUT): 10})


def wait_until_counted(session: Apart, expected: dict[tuple[str, str, int], int]) -> None:
    """Return when so much is counted: what comes later is added within seconds."""
    deadline = time.monotonic() + CALL_SECONDS_MAX
    while session.counted() != expected:
        assert time.monotonic() < deadline, session.counted()
        time.sleep(LOOK_SECONDS)


def test_export__id_of_another_call(session: Apart) -> None:
    """Answers of a later call are not added to a request: they wait, and are released as one."""
    end_ns = time.time_ns()

    def answer(count: int, *, arrived_ns: int) -> Span:
        return vllm(
            f"chatcmpl-{session.own('again')}",
            10,
            count,
            trace_state=state(session),
            ended_ns=end_ns,
            took_ns=end_ns - arrived_ns,
        )

    export(session, traces(answer(1, arrived_ns=end_ns - 9_000)))
    for count in (2, 3):
        later = traces(answer(count, arrived_ns=end_ns - 5_000))
        for _ in range(2):
            export(session, later)
    expected = {("acme", "high", INPUT): 10, ("acme", "high", OUTPUT): 1}
    assert session.counted() == expected
    held = session.quarantine()
    assert [it.outcome for it in held] == [outcome_pb2.OUTCOME_REQUEST_ID_REUSED] * 2
    assert len({it.event.request_id for it in held}) == 1
    for entry in held:
        request = meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=entry.quarantine_id)
        session.call("ReleaseQuarantine", request)
    wait_until_counted(session, {("acme", "high", INPUT): 20, ("acme", "high", OUTPUT): 1 + 2 + 3})


def test_export__empty_and_without_usage(session: Apart) -> None:
    """Nothing, and what has no usage, is success and counts nothing."""
    assert export(session, ExportTraceServiceRequest()) == b""
    assert export(session, traces(span({"http.route": "/"}, trace_state=state(session)))) == b""
    assert not session.counted()


def test_export__tenants_and_tiers_that_nobody_knows(session: Apart) -> None:
    """They are taken, since nobody would send them again, and wait in quarantine."""
    unknown = f"tokenworks={session.own('nobody')}:high"
    answer = export(
        session,
        traces(
            vllm(f"chatcmpl-{session.own('u1')}", 1, 1, trace_state=unknown),
            vllm(f"chatcmpl-{session.own('u2')}", 1, 1, trace_state=state(session, tier="gold")),
            vllm(f"chatcmpl-{session.own('u3')}", 1, 1, trace_state=state(session)),
        ),
    )
    assert answer == b""
    assert session.counted() == {("acme", "high", INPUT): 1, ("acme", "high", OUTPUT): 1}
    assert len(session.quarantine()) == 2


def test_export__what_cannot_be_read(session: Apart) -> None:
    """It is success to who sends it, counted in a metric, and named in the log without content."""
    secret = "SECRET-PROMPT"
    values = {"gen_ai.usage.prompt_tokens": secret, "gen_ai.prompt": secret}
    assert export(session, traces(span(values, trace_state=state(session)))) == b""
    connection = http.client.HTTPConnection(session.meter.http, timeout=60)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    assert 'tokenworks_reports_unreadable_total{source="span"} 1.0' in page
    log = session.meter.log.read_text("utf-8")
    assert "a count of a span is no whole number" in log
    assert secret not in page + log


def test_export__same_request_by_span_and_log(session: Apart) -> None:
    """A span and an access log's record of one request, in one gateway and engine, count once."""
    record = {
        "access_log_type": "DownstreamEnd",
        "header:x-request-id": session.own("both"),
        "header:x-tokenworks-account": session.own("acme"),
        "header:x-tokenworks-tier": "high",
        "path": "/v1/chat/completions",
        "response_code": "200",
        "response_flags": "-",
        "duration_ms": "2000",
        "metadata:tokenworks": json.dumps(
            {"model": "m", "prompt_tokens": 10, "completion_tokens": 4}
        ),
    }
    request = logs(record, resource={"log_name": "tokenworks", "node_name": "edge-1"})
    each = vllm(f"chatcmpl-{session.own('both')}", 10, 4, trace_state=state(session))
    for _ in range(2):
        assert export(session, request, method=EXPORT_LOGS) == b""
        assert export(session, traces(each)) == b""
    assert session.counted() == {("acme", "high", INPUT): 10, ("acme", "high", OUTPUT): 4}


def test_export__response_that_a_gateway_reports_too(session: Apart) -> None:
    """A span has an id of the engine's own; by the edge's, both reports are of one request."""
    request_id = session.own("response")
    record = {
        "access_log_type": "DownstreamEnd",
        "header:x-request-id": request_id,
        "header:x-tokenworks-account": session.own("acme"),
        "header:x-tokenworks-tier": "high",
        "path": "/v1/responses",
        "response_code": "200",
        "response_flags": "-",
        "duration_ms": "2000",
        "metadata:tokenworks": json.dumps({"model": "m", "input_tokens": 10, "output_tokens": 4}),
    }
    each = vllm("resp_8a1f_0", 10, 4, trace_state=f"{state(session)}:{request_id}")
    assert export(session, traces(each)) == b""
    request = logs(record, resource={"log_name": "tokenworks", "node_name": "edge-1"})
    assert export(session, request, method=EXPORT_LOGS) == b""
    assert session.counted() == {("acme", "high", INPUT): 10, ("acme", "high", OUTPUT): 4}
    assert not session.quarantine()


def test_export__what_others_may_have_reported_by_another_id(session: Apart) -> None:
    """It is set aside, since nobody can tell; a person who knows has it counted, once."""
    values = {
        "gen_ai.usage.input_tokens": 7,
        "litellm.call_id": session.own("call"),
        "litellm.team.id": session.own("acme"),
    }
    export(session, traces(vllm("resp_8a1f_0", 10, 4, trace_state=state(session))))
    export(session, traces(span(values, trace_state=""), scope="litellm"))
    assert not session.counted()
    entries = session.quarantine()
    doubtful = outcome_pb2.OUTCOME_REPORT_DOUBTFUL
    assert [each.outcome for each in entries] == [doubtful, doubtful]
    release = meter_service_pb2.ReleaseQuarantineRequest
    for each in entries:
        session.call("ReleaseQuarantine", release(quarantine_id=each.quarantine_id))
    assert session.counted() == {("acme", "high", INPUT): 17, ("acme", "high", OUTPUT): 4}


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
@pytest.mark.parametrize("is_packed", [False, True])
def test_post__both_forms(session: Apart, content_type: str, is_packed: bool) -> None:  # noqa: FBT001
    """Protobuf and JSON, packed or not, are the same report: sent in each form it counts once."""
    request = traces(vllm(f"chatcmpl-{session.own('h')}", 10, 4, trace_state=state(session)))
    for form in (content_type, PROTOBUF):
        body = to_json(request) if form == JSON else request.SerializeToString()
        packed = gzip.compress(body) if is_packed else body
        headers = {"content-encoding": "gzip"} if is_packed else {}
        status, answer, told = post(session.meter, packed, content_type=form, headers=headers)
        assert (status, told["content-type"]) == (200, form)
        assert answer == (b"{}" if form == JSON else b"")
    assert ExportTraceServiceResponse.FromString(b"") == ExportTraceServiceResponse()
    assert session.counted() == {("acme", "high", INPUT): 10, ("acme", "high", OUTPUT): 4}


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
def test_post__what_cannot_be_read(otlp_meter: RunningMeter, content_type: str) -> None:
    """The error is OTLP's Status in the form of the question."""
    status, answer, _ = post(otlp_meter, b"\xff{", content_type=content_type)
    told = (
        json_format.Parse(answer, status_pb2.Status())
        if content_type == JSON
        else status_pb2.Status.FromString(answer)
    )
    assert (status, told.code) == (400, grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert told.message


def test_post__without_a_key(otlp_meter: RunningMeter) -> None:
    """Who shows no key is refused, as by gRPC."""
    status, _, told = post(otlp_meter, b"", headers={"authorization": ""})
    assert (status, told["www-authenticate"]) == (401, "Bearer")


def test_export__database_away(private_cluster: Cluster, tmp_path: Any) -> None:  # noqa: ANN401
    """While the database is away the exporter is told to come back, and then it is recorded."""
    with (
        private_cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings={"otlp": "true"}) as running,
    ):
        session = Apart(running, number=next(_NUMBERS))
        session.create_account("acme")
        request = traces(vllm(f"chatcmpl-{session.own('away')}", 10, 4, trace_state=state(session)))
        private_cluster.stop()
        with pytest.raises(grpc.RpcError) as refused:
            export(session, request)
        status, _, told = post(running, request.SerializeToString())
        private_cluster.start()
        # Who is told a delay waits no longer each time, and has soon tried six times.
        assert (status, told["retry-after"]) == (503, None)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        told_by: Any = refused.value.trailing_metadata()
        details = dict(told_by)["grpc-status-details-bin"]
        assert b"google.rpc.RetryInfo" in details

        def is_recorded() -> bool:
            try:
                export(session, request)
            except grpc.RpcError:
                return False
            return True

        wait_until(is_recorded)
        assert session.counted() == {("acme", "high", INPUT): 10, ("acme", "high", OUTPUT): 4}


def test_exporter__says_success(session: Apart) -> None:
    """OpenTelemetry's exporter takes our answer for success."""
    provider = as_vllm_traces(session)
    seen: list[Any] = []
    exporter = provider._active_span_processor._span_processors[0].span_exporter  # type: ignore[attr-defined]  # noqa: SLF001
    exporter_export = exporter.export
    exporter.export = lambda spans: seen.append(exporter_export(spans))
    trace_request(provider, session)
    provider.shutdown()
    assert seen == [SpanExportResult.SUCCESS]
