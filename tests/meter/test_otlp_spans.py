"""Spans of engines and gateways read as reports, by the table of whoever made them."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.tokens import TokenClass
from meter.sources.observation import Observation, Source
from meter.sources.otlp import finish_of, read_spans
from meter.sources.otlp_profiles import PROFILES
from meter.sources.otlp_requests import Edge, cut_id, edge_of, is_own_id
from meter.sources.places import Defaults, Places, read_places
from tests.otlp import VLLM_RESOURCE, span, traces, vllm

PLACES = Places()
INPUT, OUTPUT, REASONING = TokenClass.INPUT, TokenClass.OUTPUT, TokenClass.REASONING
CACHE_READ = TokenClass.CACHE_READ


def read(*spans: Any, places: Places = PLACES, **named: Any) -> list[Observation]:  # noqa: ANN401
    """Return the reports in an export of one profile, none of it unreadable."""
    found = read_spans(traces(*spans, **named), places)
    assert not any(each.unreadable for each in found)
    return [report for each in found for report in each.observations]


Case = tuple[str, Mapping[str, str], Mapping[str, Any], str, Source, Mapping[int, int]]
CASES: list[Case] = [
    (
        "vllm.llm_engine",
        {},
        {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 4},
        "vllm_span/1",
        Source.SPAN,
        {INPUT: 10, OUTPUT: 4},
    ),
    (
        "an.engine",
        {"vllm.instrumenting_module_name": "an.engine"},
        {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 4},
        "vllm_span/1",
        Source.SPAN,
        {INPUT: 10, OUTPUT: 4},
    ),
    (
        "sglang server",
        {},
        {
            "gen_ai.usage.prompt_tokens": 10,
            "gen_ai.usage.completion_tokens": 4,
            "gen_ai.usage.cached_tokens": 8,
        },
        "sglang_span/1",
        Source.SPAN,
        {INPUT: 2, CACHE_READ: 8, OUTPUT: 4},
    ),
    (
        "trt.llm",
        {},
        {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 0},
        "trtllm_span/1",
        Source.SPAN,
        {INPUT: 10},
    ),
    (
        "litellm",
        {},
        {
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 4,
            "gen_ai.usage.cache_read.input_tokens": 3,
            "gen_ai.usage.cache_creation.input_tokens": 2,
            "gen_ai.provider.name": "anthropic",
            "litellm.call_id": "c-1",
        },
        "litellm_span/1",
        Source.LITELLM,
        {INPUT: 5, CACHE_READ: 3, TokenClass.CACHE_WRITE_5M: 2, OUTPUT: 4},
    ),
    (
        "a.gateway",
        {},
        {
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 4,
            "gen_ai.usage.cache_write.input_tokens": 2,
            "gen_ai.usage.reasoning.output_tokens": 3,
        },
        "genai_span/1",
        Source.SPAN,
        {INPUT: 8, TokenClass.CACHE_WRITE_30M: 2, OUTPUT: 1, REASONING: 3},
    ),
]


@pytest.mark.parametrize(("scope", "resource", "values", "profile", "source", "tokens"), CASES)
def test_read_spans__each_profile(  # noqa: PLR0917  a column each
    scope: str,
    resource: Mapping[str, str],
    values: Mapping[str, Any],
    profile: str,
    source: Source,
    tokens: Mapping[int, int],
) -> None:
    """The scope and the resource say whose table holds; its classes are disjoint."""
    (found,) = read_spans(traces(span(values), scope=scope, resource=resource), PLACES)
    (report,) = found.observations
    assert (found.profile, found.source, report.tokens) == (profile, source, tokens)
    assert report.reported_input + report.reported_output == sum(tokens.values())


def test_read_spans__is_not_guessed_from_what_is_there() -> None:
    """Names of another generation in an engine's span are not its usage."""
    values = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 4}
    assert not read(span(values))


def test_read_spans__whole_report() -> None:
    """Account and tier come from `tracestate`, the rest from the resource, the id from the edge."""
    ended = 1_795_000_000_123_456_789
    each = vllm("chatcmpl-edge-7", 10, 4, ended_ns=ended, trace_state="x=1, tokenworks=acme:low")
    (report,) = read(each, resource={**VLLM_RESOURCE, "tokenworks.pool": "p"})
    assert report.report_id == f"otlp:{each.trace_id.hex()}:{each.span_id.hex()}"
    assert (report.request_id, report.is_choice) == ("edge-7", True)
    assert (report.end_ms, report.duration_ms) == (ended // 10**6, 2_000)
    dimensions = report.dimensions
    assert (dimensions.account, dimensions.tier, dimensions.model, dimensions.pool) == (
        "acme",
        "low",
        "m",
        "p",
    )
    assert report.original == {
        "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 4,
        "request_id": "chatcmpl-edge-7",
    }


def test_read_spans__defaults_and_names_of_others() -> None:
    """What nobody names is the operator's default, and a name of others stands for an account."""
    places = Places(defaults=Defaults(tier="high", region="eu"), accounts={"team-7": "acme"})
    values = {"gen_ai.usage.input_tokens": 1, "litellm.team.id": "team-7"}
    (report,) = read(span(values, trace_state=""), scope="litellm", resource={}, places=places)
    dimensions = report.dimensions
    assert (dimensions.account, dimensions.tier, dimensions.region) == ("acme", "high", "eu")


def test_read_spans__without_usage_is_passed_over() -> None:
    """Other spans, and those of agents that sum up their calls, are no reports."""
    whole = {
        "gen_ai.usage.input_tokens": 1,
        "gen_ai.operation.name": "invoke_agent",
    }
    assert not read(span({"http.route": "/"}), span({"gen_ai.request.id": "x"}))
    assert not read(span(whole), scope="an.agent", resource={})
    (report,) = read(
        span({**whole, "gen_ai.operation.name": "chat"}), scope="an.agent", resource={}
    )
    assert (report.tokens, report.reported_output) == ({INPUT: 1}, -1)


def test_read_spans__answers_to_one_prompt_are_one_report() -> None:
    """Of n answers the prompt counts once and what was generated adds up."""
    spans = [vllm("chatcmpl-a", 10, count) for count in (1, 2, 3, 4)]
    one, other = read(*spans, vllm("chatcmpl-b", 5, 5))
    assert (one.request_id, one.tokens) == ("a", {INPUT: 10, OUTPUT: 10})
    assert (one.reported_input, one.reported_output) == (10, 10)
    assert one.report_id == min(f"otlp:{it.trace_id.hex()}:{it.span_id.hex()}" for it in spans)
    assert (other.request_id, other.tokens) == ("b", {INPUT: 5, OUTPUT: 5})
    assert len(one.original["spans"]) == 4  # type: ignore[arg-type]


def test_read_spans__answers_of_a_later_call_are_its_own() -> None:
    """An id that is used again joins nothing: who arrives later is another call."""
    end_ns = 1_900_000_000_000_000_000
    first, later = (
        [
            vllm(engine_id, 10, count, ended_ns=end_ns, took_ns=took_ns)
            for engine_id, count in (("cmpl-a-0", 1), ("cmpl-a-0", 2), ("cmpl-a-1", 4))
        ]
        for took_ns in (3_000_000_000, 2_999_999_999)
    )
    reports = read(*first, *later)
    assert [(it.request_id, it.tokens) for it in reports] == [("a", {INPUT: 20, OUTPUT: 7})] * 2
    assert reports[0].arrival_ns + 1 == reports[1].arrival_ns


def test_read_spans__prompts_of_one_request_add_up() -> None:
    """A request for several completions has a span for each prompt, and all of it counts."""
    spans = [vllm("cmpl-a-0", 10, 1), vllm("cmpl-a-0", 10, 2), vllm("cmpl-a-1", 7, 3)]
    (report,) = read(*spans)
    assert (report.request_id, report.tokens) == ("a", {INPUT: 17, OUTPUT: 6})


def test_read_spans__response_is_of_the_request_that_the_edge_names() -> None:
    """Turns of a response are of one request, whatever id its caller chose; all of them count."""
    state = "tokenworks=acme:low:edge-7"
    spans = [
        vllm("resp_8a1f_0", 10, 1, trace_state=state),
        vllm("resp_8a1f_1", 13, 2, trace_state=state),
        vllm("resp_8a1f_0", 10, 1, trace_state="tokenworks=acme:low:edge-8"),
    ]
    one, other = sorted(read(*spans), key=lambda report: report.request_id)
    assert (one.request_id, one.tokens) == ("edge-7", {INPUT: 23, OUTPUT: 3})
    assert (other.request_id, other.tokens) == ("edge-8", {INPUT: 10, OUTPUT: 1})
    assert (one.dimensions.account, one.dimensions.tier) == ("acme", "low")
    assert not one.is_doubtful


def test_read_spans__response_of_which_the_edge_says_nothing() -> None:
    """Its id may be its caller's choice: each span is a request of its own, and none is lost."""
    reports = read(vllm("resp_8a1f_0", 10, 1), vllm("resp_8a1f_0", 20, 2))
    assert [it.request_id for it in reports] == ["", ""]
    assert not any(it.is_choice for it in reports)
    # Whether the middleware or a gateway has reported it, nobody knows.
    assert all(it.is_doubtful for it in reports)
    assert [it.tokens for it in reports] == [{INPUT: 10, OUTPUT: 1}, {INPUT: 20, OUTPUT: 2}]


def test_read_spans__of_which_the_operator_says_that_nobody_else_reports_them() -> None:
    """Nothing is doubtful then: a response that nobody names, and what LiteLLM has traced."""
    text = "[otlp]\nunnamed = 'count'\nlitellm = 'count'"
    for places, is_doubtful in ((PLACES, True), (read_places(text), False)):
        (response,) = read(vllm("resp_8a1f_0", 10, 1), places=places)
        values = {"gen_ai.usage.input_tokens": 10, "litellm.call_id": "c-1"}
        (call,) = read(span(values), scope="litellm", places=places)
        assert (response.is_doubtful, call.is_doubtful) == (is_doubtful, is_doubtful)
        (chat,) = read(vllm("chatcmpl-a", 10, 1), places=places)
        assert not chat.is_doubtful


def test_read_spans__edge_is_in_the_engines_id() -> None:
    """Where the engine's id has the edge's in it, that one counts, and no other is looked at."""
    (report,) = read(vllm("chatcmpl-edge-7", 10, 1, trace_state="tokenworks=acme:low:edge-8"))
    assert report.request_id == "edge-7"


def test_read_spans__twice_in_one_export() -> None:
    """A span that a collector heard of twice counts once, also where its answers add up."""
    each = vllm("chatcmpl-a", 10, 4)
    (report,) = read(each, each)
    assert report.tokens == {INPUT: 10, OUTPUT: 4}


@pytest.mark.parametrize(
    ("value", "count"), [(7, 7), (7.0, 7), ("7", 7), (0, 0), (-1, None), (7.5, None), ("x", None)]
)
def test_read_spans__a_count_of_any_type(value: object, count: int | None) -> None:
    """A whole number is one in whatever type it comes; what is none makes the span unreadable."""
    values = {"gen_ai.usage.prompt_tokens": value}
    (found,) = read_spans(traces(span(values)), PLACES)
    assert [it.reported_input for it in found.observations] == ([] if count is None else [count])
    assert len(found.unreadable) == (count is None)


def test_read_spans__parts_above_their_total() -> None:
    """They are reported as they are: their sum is not the total, and the event is set aside."""
    values = {"gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.cached_tokens": 8}
    (report,) = read(span(values), scope="sglang server", resource={})
    assert (report.tokens, report.reported_input) == ({CACHE_READ: 8}, 5)


def test_read_spans__without_an_id() -> None:
    """A span that cannot be told from another one is unreadable, not counted by chance."""
    each = vllm("a", 1, 1)
    each.span_id = b""
    (found,) = read_spans(traces(each), PLACES)
    assert not found.observations
    assert len(found.unreadable) == 1


@pytest.mark.parametrize(
    ("words", "is_failed", "finish"),
    [(["stop"], False, 1), (["length"], False, 2), (["abort"], False, 3), (["stop"], True, 4),
     ('[{"type": "length"}]', False, 2)],
)  # fmt: skip
def test_read_spans__how_it_ended(words: object, is_failed: bool, finish: int) -> None:  # noqa: FBT001
    """The engine's word for the end, or the span's status."""
    values = {"gen_ai.usage.prompt_tokens": 5, "gen_ai.response.finish_reasons": words}
    (report,) = read(span(values, is_failed=is_failed))
    assert report.finish == finish


@pytest.mark.parametrize(
    ("engine_id", "found"),
    [
        ("chatcmpl-7", ("7", False)),
        ("cmpl-7-0", ("7", True)),
        ("cmpl-3f-2b-12", ("3f-2b", True)),
        ("chatcmpl-3f-2", ("3f-2", False)),
        ("cmpl--1", ("cmpl--1", False)),
        ("7", ("7", False)),
        ("", ("", False)),
    ],
)
def test_cut_id__of_engines(engine_id: str, found: tuple[str, bool]) -> None:
    """The engine's beginning goes, and a prompt's number where it has one."""
    assert cut_id(engine_id) == found


@pytest.mark.parametrize(
    ("engine_id", "is_own"),
    [
        ("resp_8a1f_0", True),
        # What a caller may have chosen.
        ("7c1d2f0e-2b1a_12", True),
        ("chatcmpl-7_0", False),
        ("cmpl-7_0-0", False),
        ("resp_8a1f", False),
        ("", False),
    ],
)
def test_is_own_id__of_a_response(engine_id: str, *, is_own: bool) -> None:
    """Turns of a response have their number, and no beginning before the edge's id."""
    assert is_own_id(engine_id) is is_own


@pytest.mark.parametrize(
    ("trace_state", "edge"),
    [
        ("tokenworks=acme", Edge("acme")),
        ("tokenworks=acme:low", Edge("acme", "low")),
        ("tokenworks=acme:low:7c1d-2f", Edge("acme", "low", "7c1d-2f")),
        ("tokenworks=::7c1d:a%2Cb%3D", Edge("", "", "7c1d:a,b=")),
        ("a=b,tokenworks=acme , c=d", Edge("acme")),
        ("xtokenworks=acme", Edge()),
        ("tokenworks", Edge()),
        ("", Edge()),
    ],
)
def test_edge_of__members(trace_state: str, edge: Edge) -> None:
    """The member of the name that is looked for, and no other."""
    assert edge_of(trace_state, "tokenworks") == edge


def test_finish_of__unknown_words() -> None:
    """A request whose end is not known to have been another was completed."""
    assert finish_of("eos stop tool_calls") == 1


def test_profiles__read_nothing_but_names_of_numbers_ids_and_models() -> None:
    """No table looks at an attribute that may have a prompt or an answer in it."""
    words = ("prompt", "message", "content", "completion", "input", "output", "instructions")
    for profile in PROFILES:
        assert len(profile.name.split("/")) == 2
        for name in profile.attributes - set(profile.counts):
            assert not [word for word in words if word in name], name
        assert all(name.endswith("_tokens") for name in profile.counts)


@given(
    parts=st.lists(st.integers(0, 1_000), min_size=5, max_size=5),
    names=st.sampled_from([3, 4]),
)
def test_read_spans__conserves_every_token(parts: list[int], names: int) -> None:
    """Classes sum to the totals whatever the parts are."""
    plain, cached, written, generated, thought = parts
    values = {
        "gen_ai.usage.input_tokens": plain + cached + written,
        "gen_ai.usage.cache_read.input_tokens": cached,
        "gen_ai.usage.cache_creation.input_tokens": written,
        "gen_ai.usage.output_tokens": generated + thought,
        "gen_ai.usage.reasoning.output_tokens": thought,
        "gen_ai.system": "anthropic" if names == TokenClass.CACHE_WRITE_5M else "openai",
    }
    (report,) = read(span(values), scope="a.gateway", resource={})
    expected = {INPUT: plain, CACHE_READ: cached, names: written, OUTPUT: generated}
    expected[REASONING] = thought
    assert report.tokens == {number: count for number, count in expected.items() if count}
