"""What clients' libraries really sent, read as reports: OpenTelemetry's for OpenAI, OpenMeter's.

The bytes in `tests/fixtures/seen` are theirs, as they came to a meter.
"""

from pathlib import Path
from typing import Final

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from meter.domain.tokens import TokenClass
from meter.sources import cloud_events
from meter.sources.observation import Observation
from meter.sources.otlp import read_spans
from meter.sources.places import Places, read_places
from tests.otlp import span, traces

SEEN: Final = Path(__file__).parents[2] / "fixtures/seen"
INPUT, OUTPUT = TokenClass.INPUT, TokenClass.OUTPUT


def test_read_spans__of_opentelemetrys_library_for_openai() -> None:
    """The answer's id, less the engine's prefix, joins the span with the edge's request."""
    name = "openai-instrumentation-2.4b0-traces.binpb"
    request = ExportTraceServiceRequest.FromString((SEEN / name).read_bytes())
    (found,) = read_spans(request, Places())
    assert (found.profile, found.unreadable) == ("genai_span/1", [])
    told = [(it.request_id, it.tokens, it.dimensions.model) for it in found.observations]
    assert told == [(name, {INPUT: 8, OUTPUT: 3}, "tiny") for name in ("oi-1", "none")]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("event", [("om-1", {INPUT: 100})]),
        ("text", [("om-2", {OUTPUT: 7})]),
        ("batch", [("om-3", {INPUT: 5}), ("om-4", {OUTPUT: 2}), ("om-1", {INPUT: 100})]),
    ],
)
def test_read__of_what_openmeters_client_sent(
    name: str, counts: list[tuple[str, dict[int, int]]]
) -> None:
    """An event is a count of one class, named by its source and its id."""
    events = cloud_events.parse_structured((SEEN / f"openmeter-1.0.0b236-{name}.json").read_bytes())
    found = list(cloud_events.read(events, places=Places(), received_ms=1))
    reports = [it for it in found if isinstance(it, Observation)]
    assert len(reports) == len(found)
    assert [(it.report_id, it.tokens) for it in reports] == [
        (f"ce:my-app:{each}", tokens) for each, tokens in counts
    ]
    dimensions = {(it.dimensions.account, it.dimensions.model) for it in reports}
    assert dimensions == {("acme", "gpt-4o")}


@pytest.mark.parametrize(
    ("scope", "file", "is_doubtful"),
    [
        ("trt.llm", "", True),
        ("trt.llm", "[otlp]\nunseen = 'count'\n", False),
        ("vllm.llm_engine", "", False),
        ("anybody", "", False),
    ],
)
def test_read_spans__by_a_table_that_was_never_seen(
    scope: str, file: str, *, is_doubtful: bool
) -> None:
    """What nobody has seen running bills nobody, unless the operator says that it does."""
    made = span({"gen_ai.usage.prompt_tokens": 4, "gen_ai.usage.completion_tokens": 2})
    (found,) = read_spans(traces(made, scope=scope, resource={}), read_places(file))
    assert [it.is_doubtful for it in found.observations] == [is_doubtful]
