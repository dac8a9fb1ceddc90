"""The guide for vLLM with OpenTelemetry: its settings, run as they stand.

They set up OpenTelemetry's real exporter, in the calls that vLLM makes of it. A real vLLM is asked
by `python -m tests.stacks.vllm`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.recorded import recorded_events
from tests.wire.session import Session
from tokenworks.client import TokenClass
from tokenworks.meter.v1 import meter_service_pb2

pytestmark = pytest.mark.stacks
PAGE: Final = (Path(__file__).parents[2] / "docs/guides/vllm-otlp.md").read_text("utf-8")
MODULE: Final = "vllm.llm_engine"
COUNTED: Final = {TokenClass.INPUT: 812, TokenClass.OUTPUT: 96}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A meter with the guide's account, and the guide's settings in this process's environment."""

    meter: RunningMeter
    session: Session
    headers: Mapping[str, str]

    def exporter(self, protocol: str) -> SpanExporter:
        """Make the exporter to where the guide says, in vLLM's words."""
        if protocol == "grpc":
            (place,) = re.findall("--otlp-traces-endpoint (.+)$", _block("sh serve"), re.MULTILINE)
            return GrpcExporter(
                endpoint=place.replace("tokenworks:4317", self.meter.otlp_grpc), insecure=True
            )
        (place,) = re.findall("`(http://tokenworks:4318/.*?)`", PAGE)
        exporter: SpanExporter = HttpExporter(
            endpoint=place.replace("tokenworks:4318", self.meter.otlp_http)
        )
        return exporter

    def serve(
        self, headers: Mapping[str, str], *, protocol: str = "grpc", engine_id: str = ""
    ) -> None:
        """Trace a request that came with these headers, as vLLM does, and export it."""
        provider = TracerProvider(
            resource=Resource.create({"vllm.instrumenting_module_name": MODULE})
        )
        provider.add_span_processor(BatchSpanProcessor(self.exporter(protocol)))
        context = TraceContextTextMapPropagator().extract(headers)
        request_id = engine_id or f"chatcmpl-{self.headers['x-request-id']}"
        span = provider.get_tracer(MODULE).start_span("llm_request", context, SpanKind.SERVER)
        span.set_attribute("gen_ai.usage.prompt_tokens", 812)
        span.set_attribute("gen_ai.usage.completion_tokens", 96)
        span.set_attribute("gen_ai.request.id", request_id)
        span.end()
        provider.shutdown()


@pytest.fixture
def stage(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """All of the guide, with this meter's addresses and key."""
    settings = {"otlp": "true", "tiers": "standard,free"}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=settings) as meter,
    ):
        shown = re.findall(r'^export (\w+)="?(.*?)"?$', _block("sh environment"), re.MULTILINE)
        assert len(shown) == _block("sh environment").count("\n")
        for name, value in shown:
            monkeypatch.setenv(name, value.replace("tw_your_key", meter.api_key))
        session = Session(meter)
        session.create_account("acme")
        headers = dict(re.findall(r"^(.+?): (.+)$", _block("text headers"), re.MULTILINE))
        yield Stage(meter=meter, session=session, headers=headers)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_settings__as_shown(stage: Stage, protocol: str) -> None:
    """A request that its caller did not sample is counted, for whom the headers say."""
    assert stage.headers["traceparent"].endswith("-00")
    stage.serve(stage.headers, protocol=protocol)
    (event,) = recorded_events(stage.meter.database_url)[stage.headers["x-request-id"]]
    assert (event.account, event.model, event.tier) == ("acme", "llama-70b", "standard")
    assert event.tokens == COUNTED


def test_headers__name_a_response(stage: Stage) -> None:
    """A request that vLLM calls by an id of its own is known by that of the edge."""
    stage.serve(stage.headers, engine_id="resp_8a1f_0")
    assert recorded_events(stage.meter.database_url).keys() == {stage.headers["x-request-id"]}


def test_settings__without_always_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same request is lost where vLLM follows its caller's sampling, as it does by itself."""
    monkeypatch.delenv("OTEL_TRACES_SAMPLER")
    stage.serve(stage.headers)
    assert not recorded_events(stage.meter.database_url)
    sampled = stage.headers["traceparent"].removesuffix("00") + "01"
    stage.serve({**stage.headers, "traceparent": sampled})
    assert recorded_events(stage.meter.database_url).keys() == {stage.headers["x-request-id"]}


def test_headers__without_a_trace(stage: Stage) -> None:
    """A `tracestate` alone is not handed on: the request waits in quarantine, and is not lost."""
    stage.serve({**stage.headers, "traceparent": ""})
    assert not recorded_events(stage.meter.database_url)
    listed = meter_service_pb2.ListQuarantineRequest(page_size=10)
    (entry,) = stage.session.call("ListQuarantine", listed).entries
    assert entry.event.request_id == stage.headers["x-request-id"]


def _block(name: str) -> str:
    found = re.search(rf"^```{re.escape(name)}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]
