"""OpenTelemetry's exporters through what goes wrong: answers that get lost, a meter that dies."""

import http.client
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session
from tokenworks.meter.v1 import usage_pb2

pytestmark = pytest.mark.stacks
INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT
_SPANS = 40
_SETTINGS = {"otlp": "true"}


@pytest.fixture
def session(cluster: Cluster, tmp_path: Path) -> Iterator[Session]:
    """A session on a meter that takes exports, with an account."""
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=_SETTINGS) as running,
    ):
        found = Session(running)
        found.create_account("acme")
        yield found


@contextmanager
def _forgetful(meter: RunningMeter) -> Iterator[tuple[str, list[int]]]:
    """An address that forwards to the meter, and loses each first answer; and what was answered."""
    answered: list[int] = []

    class Forward(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            connection = http.client.HTTPConnection(meter.otlp_http, timeout=60)
            connection.request("POST", self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            told = answer.read()
            answered.append(answer.status)
            if len(answered) == 1:
                self.close_connection = True
                self.connection.close()
                return
            self.send_response(answer.status)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", answered
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _provider(exporter: SpanExporter) -> TracerProvider:
    provider = TracerProvider(
        resource=Resource(
            {"vllm.instrumenting_module_name": "vllm.llm_engine", "tokenworks.model": "m"}
        )
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100))
    return provider


def _serve(provider: TracerProvider) -> None:
    """Make the spans of some requests, as vLLM does."""
    tracer = provider.get_tracer("vllm.llm_engine")
    for number in range(_SPANS):
        headers = {
            "traceparent": f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01",
            "tracestate": "tokenworks=acme:high",
        }
        context = TraceContextTextMapPropagator().extract(headers)
        with tracer.start_as_current_span("llm_request", context, SpanKind.SERVER) as span:
            span.set_attribute("gen_ai.usage.prompt_tokens", 10)
            span.set_attribute("gen_ai.usage.completion_tokens", 4)
            span.set_attribute("gen_ai.request.id", f"chatcmpl-{number}")


def _expected(count: int) -> dict[Any, int]:
    return {("acme", "high", INPUT): 10 * count, ("acme", "high", OUTPUT): 4 * count}


def test_http_exporter__loses_an_answer(session: Session) -> None:
    """What OpenTelemetry's exporter by HTTP sends again, since no answer came, counts once."""
    exporters = pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http.trace_exporter", reason="make stacks"
    )
    compression = pytest.importorskip("opentelemetry.exporter.otlp.proto.http").Compression
    with _forgetful(session.meter) as (address, answered):
        provider = _provider(
            exporters.OTLPSpanExporter(
                endpoint=f"http://{address}/v1/traces",
                headers=dict(session.metadata),
                compression=compression.Gzip,
            )
        )
        _serve(provider)
        provider.shutdown()
    assert len(answered) >= 2
    assert set(answered) == {200}
    assert session.counted() == _expected(_SPANS)


class _Waits(threading.Event):
    """Takes down for how long an exporter would wait, and has it wait no longer."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once."""
        assert timeout is not None
        self.seconds.append(timeout)
        return False


def _has_waited_by_itself(waits: _Waits) -> None:
    """Hold that it tried six times, and waited twice as long each time, by a fifth."""
    assert len(waits.seconds) == 5
    for number, seconds in enumerate(waits.seconds):
        assert 0.8 * 2**number <= seconds <= 1.2 * 2**number


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_exporter__database_away(private_cluster: Cluster, tmp_path: Path, protocol: str) -> None:
    """While the database is away nothing that we answer has an exporter give up early."""
    http = pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http.trace_exporter", reason="make stacks"
    )
    waits, kept = _Waits(), InMemorySpanExporter()
    provider = _provider(kept)
    _serve(provider)
    provider.shutdown()
    with (
        private_cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=_SETTINGS) as meter,
    ):
        session = Session(meter)
        session.create_account("acme")
        exporter: Any
        if protocol == "grpc":
            exporter = OTLPSpanExporter(
                endpoint=f"http://{meter.otlp_grpc}",
                insecure=True,
                headers=session.metadata,
                timeout=60,
            )
            exporter._shutdown_in_progress = waits  # noqa: SLF001
        else:
            exporter = http.OTLPSpanExporter(
                endpoint=f"http://{meter.otlp_http}/v1/traces",
                headers=dict(session.metadata),
                timeout=60,
            )
            exporter._client._shutdown_event = waits  # noqa: SLF001
        private_cluster.stop()
        assert exporter.export(kept.get_finished_spans()) is SpanExportResult.FAILURE
        private_cluster.start()
        exporter.shutdown()
    _has_waited_by_itself(waits)


def test_grpc_exporter__meter_killed_in_mid_stream(session: Session) -> None:
    """What is exported while the meter dies and comes back counts once, as often as it is sent."""
    meter = session.meter
    exporter = OTLPSpanExporter(
        endpoint=f"http://{meter.otlp_grpc}",
        insecure=True,
        headers=session.metadata,
        channel_options=(("grpc.max_reconnect_backoff_ms", 200),),  # type: ignore[arg-type]
    )
    kept = InMemorySpanExporter()
    provider = _provider(kept)
    _serve(provider)
    provider.shutdown()
    spans = kept.get_finished_spans()
    half = threading.Event()

    def export() -> None:
        # A queue that outlives its process, as a collector's, sends until it is told success.
        for number in range(0, _SPANS, 4):
            while exporter.export(spans[number : number + 4]) is not SpanExportResult.SUCCESS:
                pass
            if number >= _SPANS // 2:
                half.set()

    exporting = threading.Thread(target=export)
    exporting.start()
    half.wait()
    meter.kill()
    meter.restart()
    exporting.join()
    exporter.shutdown()
    assert len(spans) == _SPANS
    assert Session(meter).counted() == _expected(_SPANS)
