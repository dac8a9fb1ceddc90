"""What SGLang really sent, read as reports.

The exports in `tests/fixtures/seen` are SGLang's own; the spans that tell no usage were taken out,
since they name the machine. Each has its length before it, in 4 bytes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from meter.domain.tokens import TokenClass
from meter.sources.observation import Observation, Source
from meter.sources.otlp import Reports, read_spans
from meter.sources.places import read_places
from tests.otlp import span, traces

SEEN = Path(__file__).parents[2] / "fixtures/seen/sglang-0.5.23-traces.binpb"
INPUT, CACHE_READ, OUTPUT = TokenClass.INPUT, TokenClass.CACHE_READ, TokenClass.OUTPUT
_TRUNCATED, _CANCELLED = 2, 3
_LENGTH_BYTES = 4


def _exports() -> Iterator[ExportTraceServiceRequest]:
    content = SEEN.read_bytes()
    while content:
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES])
        yield ExportTraceServiceRequest.FromString(content[_LENGTH_BYTES:end])
        content = content[end:]


def _seen(*, places: str = "") -> list[Observation]:
    """Return what SGLang's exports report, in order."""
    found = [it for export in _exports() for it in read_spans(export, read_places(places))]
    assert {(it.source, it.profile) for it in found} == {(Source.SPAN, "sglang_span/1")}
    assert not any(it.unreadable for it in found)
    return [report for it in found for report in it.observations]


def test_read_spans__of_what_sglang_sent() -> None:
    """A request that the edge names is known by that, and its cached tokens are told."""
    report = next(it for it in _seen() if it.request_id == "edge-2")
    assert report.tokens == {INPUT: 1, CACHE_READ: 21, OUTPUT: 7}
    assert (report.finish, report.is_doubtful) == (_TRUNCATED, False)
    dimensions = report.dimensions
    assert (dimensions.account, dimensions.tier, dimensions.model) == ("acme", "high", "tiny")


def test_read_spans__of_requests_that_the_edge_did_not_name() -> None:
    """SGLang's ids are its own, or its caller's choice: they join nothing, and wait for a word."""
    unnamed = [it for it in _seen() if not it.is_choice]
    assert {it.request_id for it in unnamed} == {""}
    assert all(it.is_doubtful for it in unnamed)
    counted = [it for it in _seen(places="[otlp]\nunnamed = 'count'\n") if not it.is_choice]
    assert not any(it.is_doubtful for it in counted)
    assert len(counted) == len(unnamed) > 0


@pytest.mark.parametrize(
    ("request_id", "prompt", "generated"),
    [("edge-33", 34, 8), ("edge-34", 34, 8), ("edge-35", 22, 12)],
)
def test_read_spans__of_several_answers(request_id: str, prompt: int, generated: int) -> None:
    """SGLang tells a prompt again with each answer: it counts once, as its caller was told."""
    parts = [it for it in _seen() if it.request_id == request_id]
    assert all(it.is_choice for it in parts)
    assert len({it.arrival_ns for it in parts}) == 1, "else they would be taken for several calls"
    sums = {number: sum(it.tokens.get(number, 0) for it in parts) for number in TokenClass}
    assert sums[INPUT] + sums[CACHE_READ] == prompt
    assert sums[OUTPUT] == generated


def test_read_spans__of_several_answers_that_stand_alone() -> None:
    """Without a name the parts of a request sum up to it, too: nothing is told twice."""
    answers = [it for it in _seen(places="[otlp]\nunnamed = 'count'\n") if it.reported_input < 0]
    assert [it.tokens for it in answers if not it.is_choice] == [{OUTPUT: 7}] * 3


def test_read_spans__of_a_caller_who_left_sglang() -> None:
    """SGLang tells of callers who hang up: what was generated until then."""
    (left,) = (it for it in _seen() if it.finish == _CANCELLED)
    assert left.tokens == {INPUT: 1, CACHE_READ: 21, OUTPUT: 36}


@pytest.mark.parametrize(("told", "counted"), [(1, {INPUT: 4, OUTPUT: 2}), (2, {OUTPUT: 2})])
def test_read_spans__number_of_answers(told: int, counted: dict[int, int]) -> None:
    """The prompt is left to another span only where there are several answers."""
    made = span(
        {
            "gen_ai.usage.prompt_tokens": 4,
            "gen_ai.usage.completion_tokens": 2,
            "gen_ai.request.id": "r",
            "gen_ai.request.n": told,
        }
    )
    (found,) = read_spans(traces(made, scope="sglang server", resource={}), read_places(""))
    assert isinstance(found, Reports)
    assert found.observations[0].tokens == counted
