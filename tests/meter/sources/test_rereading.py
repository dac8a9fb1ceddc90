"""Usage objects that were kept, read again by the tables of today."""

import json
from collections.abc import Iterator, Mapping
from itertools import chain

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from meter.domain.tokens import OUTPUT_CLASSES
from meter.sources import cloud_events, envoy, litellm
from meter.sources.observation import Observation, sort_out
from meter.sources.otlp import Reports, read_spans
from meter.sources.otlp_logs import read_logs
from meter.sources.places import Places
from meter.sources.rereading import find_reread
from tests.otlp import span, traces, vllm
from tests.wire import marked

INPUT, CACHE_READ, WRITE_5M, WRITE_30M, OUTPUT, REASONING = 1, 2, 3, 4, 7, 8
OPENAI = {
    "convention": "openai",
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 4},
}
FLAT = {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 4}
GATEWAY = {
    "convention": "envoy_ai_gateway",
    "input": 10,
    "cached_input": 4,
    "cache_creation_input": 2,
    "output": 5,
    "reasoning": 1,
}
SPAN = {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 5}
OF_A = {**SPAN, "request_id": "chatcmpl-a"}
OF_B = {
    "gen_ai.usage.prompt_tokens": 20,
    "gen_ai.usage.completion_tokens": 10,
    "request_id": "chatcmpl-b",
}
WRITTEN = {
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 5,
    "gen_ai.usage.cache_creation.input_tokens": 4,
}


@pytest.mark.parametrize(
    ("profile", "original", "tokens"),
    [
        ("litellm/1", OPENAI, {INPUT: 6, CACHE_READ: 4, OUTPUT: 5}),
        ("litellm/7", OPENAI, {INPUT: 6, CACHE_READ: 4, OUTPUT: 5}),
        ("litellm/1", {**OPENAI, "cache_hit": True}, {}),
        ("litellm/1", {**OPENAI, "completion_tokens": "x"}, None),
        ("events/1", OPENAI, {INPUT: 6, CACHE_READ: 4, OUTPUT: 5}),
        ("cloud_events/1", OPENAI, {INPUT: 6, CACHE_READ: 4, OUTPUT: 5}),
        ("cloud_events/1", {"tokens": {"input": 3, "reasoning": "4"}}, {INPUT: 3, REASONING: 4}),
        ("cloud_events/1", {"tokens": 3, "type": "completion"}, {OUTPUT: 3}),
        ("cloud_events/1", {"tokens": 0, "type": "input"}, {}),
        ("cloud_events/1", {"tokens": 3, "type": ""}, None),
        ("vllm_span/1", {**SPAN, "request_id": "chatcmpl-1"}, {INPUT: 10, OUTPUT: 5}),
        ("vllm_span/1", {"spans": [SPAN, SPAN]}, None),
        ("vllm_span/1", {"spans": [OF_A, OF_A]}, {INPUT: 10, OUTPUT: 10}),
        ("vllm_span/1", {"spans": [OF_A, OF_B, OF_A]}, {INPUT: 30, OUTPUT: 20}),
        ("genai_span/1", WRITTEN, None),
        ("genai_span/1", {**WRITTEN, "provider": ""}, {INPUT: 6, WRITE_30M: 4, OUTPUT: 5}),
        ("genai_span/1", {**WRITTEN, "provider": "anthropic"}, {INPUT: 6, WRITE_5M: 4, OUTPUT: 5}),
        ("envoy/1", {**FLAT, "convention": "openai"}, {INPUT: 6, CACHE_READ: 4, OUTPUT: 5}),
        ("envoy_log/1", {**FLAT, "convention": "openai"}, {INPUT: 6, CACHE_READ: 4, OUTPUT: 5}),
        ("envoy/1", {"prompt_tokens": 10, "convention": "openai"}, {INPUT: 10}),
        ("envoy/1", {**FLAT, "convention": "openai_responses"}, None),
        ("envoy/1", {**FLAT, "cached_tokens": 11, "convention": "openai"}, None),
        ("envoy/1", {**FLAT, "convention": "nobody's"}, None),
        ("envoy/1", GATEWAY, {INPUT: 4, CACHE_READ: 4, WRITE_5M: 2, OUTPUT: 4, REASONING: 1}),
        (
            "dynamo_log/1",
            {"input_tokens": 9, "output_tokens": 2, "cached_tokens": 8},
            {INPUT: 1, CACHE_READ: 8, OUTPUT: 2},
        ),
        ("of_nobody/1", SPAN, None),
    ],
)
def test_find_reread__of_each_table(
    profile: str, original: Mapping[str, object], tokens: Mapping[int, int] | None
) -> None:
    """The same object gives what it gave, or None where it does not tell enough."""
    assert find_reread(profile, original) == tokens


PLACES = Places()


def export_all() -> Iterator[Reports]:
    """Yield what spans and logs report."""
    for spans in marked.spans("1", "acme"):
        yield from read_spans(spans, PLACES)
    for records in marked.records("1", "acme"):
        yield from read_logs(records, PLACES, received_ms=1)


def report_all() -> Iterator[tuple[str, Observation]]:
    """Yield reports of each source with the profile that has read them."""
    for reports in export_all():
        yield from ((reports.profile, it) for it in reports.observations)
    events = json.dumps(list(marked.cloud_events("1", "acme"))).encode()
    read = {
        litellm.PROFILE: litellm.read(
            list(marked.litellm_records("1", "acme")), places=PLACES, received_ms=1
        ),
        cloud_events.PROFILE: cloud_events.read(
            cloud_events.parse_structured(events), places=PLACES, received_ms=1
        ),
        envoy.PROFILE: chain.from_iterable(
            envoy.read(it.http_logs.log_entry, node="n", places=PLACES, received_ms=1)
            for it in marked.envoy_messages("1", "acme")
        ),
    }
    for profile, seen in read.items():
        yield from ((profile, it) for it in sort_out(seen)[0])


def adds_up(report: Observation) -> bool:
    """Tell whether a report is one that the check lets pass."""
    generated = sum(n for number, n in report.tokens.items() if number in OUTPUT_CLASSES)
    asked = sum(report.tokens.values()) - generated
    told = ((report.reported_input, asked), (report.reported_output, generated))
    return 0 not in report.tokens and all(total in (-1, count) for total, count in told)


def test_find_reread__of_each_source() -> None:
    """What is kept of any report that can be counted gives the tokens that were counted."""
    reports = [(profile, it) for profile, it in report_all() if adds_up(it)]
    for profile, report in reports:
        assert find_reread(profile, report.original) == report.tokens, profile
    assert {profile.partition("/")[0] for profile, _ in reports} == {
        "cloud_events", "dynamo_log", "envoy", "envoy_log", "genai_span", "litellm",
        "litellm_span", "sglang_span", "trtllm_span", "vllm_span",
    }  # fmt: skip


def written(provider: str) -> Span:
    """Return a span of a request that wrote to a cache of somebody's."""
    return span(
        {
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.usage.cache_creation.input_tokens": 4,
            "gen_ai.provider.name": provider,
            "gen_ai.request.id": "a",
        }
    )


@pytest.mark.parametrize(
    ("scope", "spans"),
    [
        ("any", [written("anthropic")]),
        ("any", [written("a secret")]),
        ("vllm.x", [vllm("chatcmpl-a", 10, 1), vllm("chatcmpl-a", 10, 2)]),
        ("vllm.x", [vllm("cmpl-a-0", 10, 1), vllm("cmpl-a-1", 7, 3), vllm("cmpl-a-0", 10, 2)]),
    ],
)
def test_find_reread__of_spans(scope: str, spans: list[Span]) -> None:
    """What was joined of several spans, or written to a cache, is told by what is kept."""
    (reports,) = read_spans(traces(*spans, scope=scope, resource={}), PLACES)
    (report,) = reports.observations
    assert find_reread(reports.profile, report.original) == report.tokens
    assert "secret" not in json.dumps(report.original)
