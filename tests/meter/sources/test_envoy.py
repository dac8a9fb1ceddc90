"""Entries of Envoy's access log as reports: what counts, for whom, and what is no report."""

from dataclasses import replace
from typing import Any, Final

import pytest
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.event import Dimensions
from meter.sources.envoy import read
from meter.sources.envoy_places import AiGatewayPlaces, EnvoyPlaces, place_fault
from meter.sources.observation import Observation, Unreadable
from meter.sources.places import Defaults, Places
from tokenworks.foreign.envoy.v1 import access_log_pb2 as pb

INPUT, CACHE_READ, WRITE_5M, WRITE_30M, OUTPUT, REASONING = 1, 2, 3, 4, 7, 8
COMPLETED, CANCELLED, FAILED = 1, 3, 4
FINAL, PARTIAL = 1, 2
START_S: Final = 1_790_000_000
RECEIVED_MS: Final = START_S * 1000 + 99_000
COUNTS: Final = {"prompt_tokens": 1_000, "completion_tokens": 40}
GATEWAY: Final = "io.envoy.ai_gateway"
ENDED: Final = pb.ACCESS_LOG_TYPE_DOWNSTREAM_END


def entry(
    counts: dict[str, Any] | None = None,
    *,
    path: str = "/v1/chat/completions",
    namespace: str = "tokenworks",
    request_id: str = "r1",
    flags: tuple[str, ...] = (),
    status: int = 200,
    kind: Any = ENDED,  # noqa: ANN401
) -> pb.HttpEntry:
    """Return an entry of a request that took 1.5 s, with these values in its metadata."""
    made = pb.HttpEntry()
    common = made.common_properties
    common.start_time.seconds, common.start_time.nanos = START_S, 250_999_999
    common.duration.seconds, common.duration.nanos = 1, 500_000_000
    common.stream_id, common.access_log_type = request_id and f"s-{request_id}", kind
    for flag in flags:
        setattr(common.response_flags, flag, True)
    values = common.metadata.filter_metadata[namespace]
    values.update(COUNTS if counts is None else counts)
    made.request.path, made.request.request_id = path, request_id
    made.request.request_headers.update(
        {"x-tokenworks-account": "acme", "x-tokenworks-tier": "high", "x-ai-eg-model": "asked"}
    )
    made.response.response_code.value = status
    return made


def read_one(
    found: pb.HttpEntry, *, places: Places | None = None
) -> Observation | Unreadable | None:
    """Return what one entry reports."""
    reports = list(read([found], node="edge-1", places=places or Places(), received_ms=RECEIVED_MS))
    assert len(reports) <= 1
    return reports[0] if reports else None


def observed(found: pb.HttpEntry, *, places: Places | None = None) -> Observation:
    """Return the observation of an entry that has one."""
    report = read_one(found, places=places)
    assert isinstance(report, Observation), report
    return report


def test_read__of_an_entry_that_is_over() -> None:
    """Who, what, when and how much; the report's name is the Envoy's and the stream's."""
    counts = {**COUNTS, "cached_tokens": 200, "model": "llama", "served_model": "llama-70b"}
    seen = observed(entry(counts))
    assert (seen.report_id, seen.request_id, seen.attempt) == ("envoy:edge-1:s-r1", "r1", 0)
    assert seen.dimensions == Dimensions("acme", "llama", "llama-70b", "high", 1, "", "")
    assert (seen.end_ms, seen.duration_ms) == (START_S * 1000 + 1_750, 1_500)
    assert seen.tokens == {INPUT: 800, CACHE_READ: 200, OUTPUT: 40}
    assert (seen.reported_input, seen.reported_output) == (1_000, 40)
    assert (seen.finish, seen.quality) == (COMPLETED, FINAL)
    assert seen.original == {"convention": "openai", **COUNTS, "cached_tokens": 200}


@pytest.mark.parametrize(
    ("path", "counts", "tokens"),
    [
        ("/v1/completions?user=x", COUNTS, {INPUT: 1_000, OUTPUT: 40}),
        ("/proxy/v1/chat/completions/", COUNTS, {INPUT: 1_000, OUTPUT: 40}),
        ("/v1/embeddings", {"prompt_tokens": 7}, {INPUT: 7}),
        (
            "/v1/chat/completions",
            {**COUNTS, "cache_write_tokens": 100, "reasoning_tokens": 40},
            {INPUT: 900, WRITE_30M: 100, REASONING: 40},
        ),
        (
            "/v1/responses",
            {"input_tokens": 10, "output_tokens": 6, "cached_tokens": 4, "reasoning_tokens": 5},
            {INPUT: 6, CACHE_READ: 4, OUTPUT: 1, REASONING: 5},
        ),
        (
            "/v1/messages",
            {"input_tokens": 10, "output_tokens": 6, "cache_read_input_tokens": 4},
            {INPUT: 10, CACHE_READ: 4, OUTPUT: 6},
        ),
        ("/v1/messages", {"input_tokens": 0, "output_tokens": 0}, {}),
    ],
)
def test_read__by_the_convention_of_the_path(
    path: str, counts: dict[str, int], tokens: dict[int, int]
) -> None:
    """What the counts include is told by the endpoint that was asked."""
    assert observed(entry(counts, path=path)).tokens == tokens


@pytest.mark.parametrize(
    ("flags", "status", "finish", "quality"),
    [
        ((), 200, COMPLETED, FINAL),
        (("downstream_connection_termination",), 200, CANCELLED, PARTIAL),
        (("downstream_remote_reset",), 0, CANCELLED, PARTIAL),
        (("downstream_connection_termination", "upstream_remote_reset"), 200, CANCELLED, PARTIAL),
        (("upstream_connection_termination",), 200, FAILED, PARTIAL),
        (("upstream_max_stream_duration_reached",), 200, FAILED, PARTIAL),
        ((), 503, FAILED, PARTIAL),
    ],
)
def test_read__how_a_request_ended(
    flags: tuple[str, ...], status: int, finish: int, quality: int
) -> None:
    """Who hung up has cancelled; a broken answer has failed; neither's counts are final."""
    seen = observed(entry(flags=flags, status=status))
    assert (seen.finish, seen.quality) == (finish, quality)


@pytest.mark.parametrize(
    "kind",
    [
        pb.ACCESS_LOG_TYPE_DOWNSTREAM_START,
        pb.ACCESS_LOG_TYPE_DOWNSTREAM_PERIODIC,
        pb.ACCESS_LOG_TYPE_UPSTREAM_END,
    ],
)
def test_read__of_what_is_not_over(kind: Any) -> None:  # noqa: ANN401
    """Entries of a request that goes on, or of one try, report nothing."""
    assert read_one(entry(kind=kind)) is None


def test_read__of_an_envoy_that_tells_no_type() -> None:
    """Without a type the last entry counts, and those before it do not."""
    last = entry(kind=pb.ACCESS_LOG_TYPE_UNSPECIFIED)
    assert read_one(last) is not None
    last.common_properties.intermediate_log_entry = True
    assert read_one(last) is None


@pytest.mark.parametrize("counts", [{}, {"model": "llama"}, {"prompt_tokens": None}])
def test_read__without_a_count(counts: dict[str, Any]) -> None:
    """An entry that counts nothing is no report; nothing is made up."""
    assert read_one(entry(counts)) is None


@pytest.mark.parametrize(
    "counts",
    [
        {"prompt_tokens": 3},
        {**COUNTS, "prompt_tokens": 2.5},
        {**COUNTS, "completion_tokens": -1},
        {**COUNTS, "completion_tokens": 2.0**54},
        {**COUNTS, "cached_tokens": "many words"},
        {**COUNTS, "cached_tokens": True},
        {**COUNTS, "reasoning_tokens": {"a": "b"}},
        {**COUNTS, "prompt_tokens": float("nan")},
        {**COUNTS, "prompt_tokens": float("inf")},
    ],
)
def test_read__of_what_is_no_count(counts: dict[str, Any]) -> None:
    """What claims to be a count and is none is unreadable, and is not told."""
    report = read_one(entry(counts))
    assert isinstance(report, Unreadable)
    assert "words" not in report.reason


@given(count=st.integers(0, 2**53), as_text=st.booleans())
def test_read__counts_are_exact(count: int, *, as_text: bool) -> None:
    """A double, or digits, is the whole number that it was; up to where doubles are exact."""
    if as_text:
        count %= 10**15
    value = str(count) if as_text else count
    assert observed(entry({**COUNTS, "completion_tokens": value})).reported_output == count


@pytest.mark.parametrize("excess", ["cached_tokens", "reasoning_tokens"])
def test_read__of_parts_that_exceed_their_total(excess: str) -> None:
    """Counts that do not fit are handed on as they are: the check sets such an event aside."""
    seen = observed(entry({**COUNTS, excess: 5_000}))
    read_in = sum(seen.tokens.get(each, 0) for each in (INPUT, CACHE_READ, WRITE_30M))
    made = sum(seen.tokens.get(each, 0) for each in (OUTPUT, REASONING))
    assert (read_in, made) != (seen.reported_input, seen.reported_output)


GATEWAY_COUNTS: Final = {
    "llm_input_token": 100,
    "llm_cached_input_token": 30,
    "llm_cache_creation_input_token": 20,
    "llm_output_token": 12,
    "llm_reasoning_token": 2,
    "llm_total_token": 112,
    "response_model": "served",
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_read__of_ai_gateway(path: str) -> None:
    """Its input includes caches, Anthropic's too; the model is in a header."""
    seen = observed(entry(GATEWAY_COUNTS, namespace=GATEWAY, path=path))
    assert seen.tokens == {INPUT: 50, CACHE_READ: 30, WRITE_5M: 20, OUTPUT: 10, REASONING: 2}
    assert (seen.dimensions.model, seen.dimensions.served_model) == ("asked", "served")
    assert (seen.reported_input, seen.reported_output) == (100, 12)


def test_read__of_ai_gateway_with_other_keys() -> None:
    """Its keys are the operator's choice; a total that is missing is no zero."""
    own = AiGatewayPlaces(input="in", output="out")
    places = Places(envoy=EnvoyPlaces(ai_gateway=own))
    seen = observed(entry({"in": 5, "out": 7}, namespace=GATEWAY), places=places)
    assert seen.tokens == {INPUT: 5, OUTPUT: 7}
    assert isinstance(read_one(entry({"llm_input_token": 5}, namespace=GATEWAY)), Unreadable)


@pytest.mark.parametrize(
    "place", ["header:x-tenant", "tag:tenant", "metadata:my.auth/tenant", "cluster", "route"]
)
def test_read__account_at_a_place_of_the_operators(place: str) -> None:
    """Headers, tags, metadata, the cluster and the route can say for whom a request ran."""
    found = entry()
    common = found.common_properties
    found.request.request_headers["x-tenant"] = "t1"
    common.custom_tags["tenant"] = "t1"
    common.metadata.filter_metadata["my.auth"].update({"tenant": "t1"})
    common.upstream_cluster = common.route_name = "t1"
    places = Places(envoy=EnvoyPlaces(account=place), accounts={"t1": "acme-research"})
    assert place_fault(place) is None
    assert observed(found, places=places).dimensions.account == "acme-research"


def test_read__of_nobody() -> None:
    """Who names neither account nor tier gets the defaults; without any the event is set aside."""
    found = entry()
    found.request.request_headers.clear()
    seen = observed(found, places=Places(defaults=Defaults(account="rest", tier="low")))
    assert (seen.dimensions.account, seen.dimensions.tier) == ("rest", "low")
    assert observed(found).dimensions.account == ""


@pytest.mark.parametrize(
    "place", ["", "x-tenant", "header:", "header:X-Tenant", "metadata:tenant", "body:tenant"]
)
def test_place_fault__of_what_is_no_place(place: str) -> None:
    """A place that would never have anything is told."""
    assert place_fault(place) is not None


def test_read__without_any_id() -> None:
    """A request without id would be counted again and again: it is unreadable."""
    found = entry(request_id="")
    assert isinstance(read_one(found), Unreadable)
    found.common_properties.stream_id = "s9"
    assert observed(found).request_id == "s9"


def test_read__without_a_time() -> None:
    """An entry without a beginning ended when it was received."""
    found = entry()
    found.common_properties.ClearField("start_time")
    assert observed(found).end_ms == RECEIVED_MS


@pytest.mark.parametrize("seconds", [-1, 2**62])
def test_read__of_a_time_that_is_none(seconds: int) -> None:
    """A time that no calendar has is unreadable, and no fault of ours."""
    found = entry()
    found.common_properties.duration.seconds = seconds
    assert isinstance(read_one(found), Unreadable)


WORDS: Final = "the secret prompt"


def test_read__keeps_no_text() -> None:
    """Of a text in every field that may hold one nothing is kept but what a place names."""
    found = entry({**COUNTS, "note": WORDS, "prompt": WORDS})
    found.request.path = f"/v1/chat/completions?q={WORDS}"
    found.request.original_path = found.request.path
    found.request.request_headers["x-note"] = WORDS
    common = found.common_properties
    common.custom_tags["note"] = WORDS
    common.route_name = common.upstream_cluster = WORDS
    common.metadata.filter_metadata["other"].fields["text"].CopyFrom(Value(string_value=WORDS))
    seen = observed(found)
    assert WORDS not in repr(seen)
    assert replace(seen, original={}) == replace(observed(entry(COUNTS)), original={})
