"""LiteLLM's records, read: one that its proxy 1.108.7 was seen to send, and what may befall it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.tokens import TokenClass
from meter.sources.litellm import NoRecords, parse, read
from meter.sources.observation import Observation, Unreadable
from meter.sources.places import Places, read_places
from meter.toml_file import FileFaults
from tokenworks.client.vocabulary import Finish, Mode, Quality

NOW_MS = 1_790_000_000_000
USAGE: Mapping[str, Any] = {
    "completion_tokens": 50,
    "prompt_tokens": 100,
    "total_tokens": 150,
    "completion_tokens_details": {"reasoning_tokens": 7, "text_tokens": None},
    "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": None},
}
RECORD: Mapping[str, Any] = {
    "id": "chatcmpl-none",
    "litellm_call_id": "6d53c63c-07b4-429b-950b-0340f1302c1b",
    "call_type": "acompletion",
    "status": "success",
    "custom_llm_provider": "openai",
    "total_tokens": 150,
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "startTime": 1789990402.467748,
    "endTime": 1789990402.599889,
    "model": "openai/meta-llama",
    "model_group": "llama-70b",
    "cache_hit": None,
    "error_information": {"error_code": "", "error_class": ""},
    "metadata": {
        "user_api_key_hash": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "user_api_key_team_id": "acme",
        "user_api_key_org_id": None,
        "user_api_key_auth_metadata": {},
        "usage_object": USAGE,
        "requester_custom_headers": {"x-request-id": "rid-1", "x-tokenworks-tier": "high"},
    },
    "messages": [{"role": "user", "content": "a secret"}],
    "response": {"choices": [{"finish_reason": "stop", "message": {"content": "a secret"}}]},
}
GONE: Mapping[str, Any] = {
    "error_str": "Client disconnected the request",
    "error_information": {"error_code": "499", "error_class": "ClientDisconnected"},
}


def record(metadata: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a record with other things in it, and in its metadata."""
    return {**RECORD, "metadata": {**RECORD["metadata"], **(metadata or {})}, **changes}


def read_all(*records: object, places: str = "") -> list[Observation | Unreadable]:
    """Read records as they come from a body."""
    parsed = parse(json.dumps(records).encode())
    return list(read(parsed, places=read_places(places), received_ms=NOW_MS))


def observed(sent: Mapping[str, Any], places: str = "") -> Observation:
    """Read a single record, of which an event of ours can be made."""
    (found,) = read_all(sent, places=places)
    assert isinstance(found, Observation), found
    return found


def test_read__of_a_call() -> None:
    """A record has who called, what for, when and how much; neither prompt nor answer is kept."""
    found = observed(RECORD)
    assert found.report_id == "litellm:6d53c63c-07b4-429b-950b-0340f1302c1b:1789990402468"
    assert (found.request_id, found.attempt, found.is_choice) == ("rid-1", 0, False)
    dimensions = found.dimensions
    assert (dimensions.account, dimensions.tier, dimensions.mode) == ("acme", "high", Mode.ONLINE)
    assert (dimensions.model, dimensions.served_model) == ("llama-70b", "meta-llama")
    assert (found.end_ms, found.duration_ms) == (1_789_990_402_600, 132)
    assert (found.finish, found.quality) == (Finish.COMPLETED, Quality.FINAL)
    assert found.tokens == {
        TokenClass.INPUT: 40,
        TokenClass.CACHE_READ: 60,
        TokenClass.OUTPUT: 43,
        TokenClass.REASONING: 7,
    }
    assert (found.reported_input, found.reported_output) == (100, 50)
    assert found.original["prompt_tokens"] == 100
    assert "secret" not in repr(found)


def test_read__by_the_id_of_the_call() -> None:
    """Answers of one server may all have the same id: calls have their own."""
    one, other = read_all(record(), record(litellm_call_id="other"))
    assert isinstance(one, Observation)
    assert isinstance(other, Observation)
    assert one.report_id != other.report_id


def test_read__by_the_time_when_ids_are_the_callers() -> None:
    """LiteLLM lets callers choose the id of a call: the same id at another time is another."""
    again = record({"requester_custom_headers": {}}, startTime=1789990403.0)
    assert observed(again).report_id != observed(RECORD).report_id


def test_read__without_a_request_id() -> None:
    """Where no edge has named the request its call does."""
    found = observed(record({"requester_custom_headers": {}}))
    assert found.request_id == RECORD["litellm_call_id"]


def test_read__where_spans_are_counted() -> None:
    """Of a call its span is counted then: the record is set aside, since they share no id."""
    assert not observed(record()).is_doubtful
    assert observed(record(), "[otlp]\nlitellm = 'count'").is_doubtful


def test_read__who_pays() -> None:
    """The team of the key pays, else its organisation, else whom the caller names."""
    nobody = {"user_api_key_team_id": None}
    named = {"requester_custom_headers": {"x-tokenworks-account": "by-header"}}
    assert observed(record(named)).dimensions.account == "acme"
    assert observed(record(nobody | named)).dimensions.account == "by-header"
    found = observed(record(nobody | named | {"user_api_key_org_id": "org"}))
    assert found.dimensions.account == "org"
    assert observed(record(nobody)).dimensions.account == ""


def test_read__places_of_an_operator() -> None:
    """The file of sources says where an operator's proxy has what."""
    places = """
[headers]
pool = "x-pool"
[litellm]
account = ["metadata:user_api_key_auth_metadata.customer", "field:end_user"]
tier = ["header:x-tier"]
region = ["field:api_base"]
request_id = ["none"]
"""
    headers = {"x-tier": "low", "x-pool": "west", "x-request-id": "rid-1"}
    metadata = {
        "user_api_key_auth_metadata": {"customer": "c1"},
        "requester_custom_headers": headers,
    }
    found = observed(record(metadata, end_user="u1", api_base="eu"), places)
    dimensions = found.dimensions
    assert (dimensions.account, dimensions.tier) == ("c1", "low")
    assert (dimensions.pool, dimensions.region) == ("west", "eu")
    assert found.request_id == ""
    assert observed(record(end_user="u1"), places).dimensions.account == "u1"


def test_read__a_place_that_is_none() -> None:
    """A place that nobody knows is a fault of the file, with its line."""
    with pytest.raises(FileFaults) as caught:
        read_places('[litellm]\naccount = ["metdata:user_api_key_team_id"]\n')
    assert "is no place" in str(caught.value.faults)


def test_read__of_a_caller_that_left() -> None:
    """Whose caller has left LiteLLM counts by itself where the server has told nothing."""
    found = observed(record(**GONE))
    assert (found.finish, found.quality) == (Finish.CANCELLED, Quality.ESTIMATED)


def test_read__of_a_failure() -> None:
    """A failure counts where something was generated, and is estimated."""
    found = observed(record(status="failure"))
    assert (found.finish, found.quality) == (Finish.FAILED, Quality.ESTIMATED)


def test_read__of_an_answer_that_was_cut() -> None:
    """An answer that was too long is truncated."""
    cut = {"choices": [{"finish_reason": "length", "message": {"content": "a secret"}}]}
    assert observed(record(response=cut)).finish == Finish.TRUNCATED


@pytest.mark.parametrize("usage", [None, {}])
def test_read__without_usage(usage: object) -> None:
    """A record of what took no tokens at all is none of usage, say a failure's."""
    nothing = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
    sent = record({"usage_object": usage}, status="failure", **nothing)
    assert read_all(sent, None) == []


def test_read__of_nothing_used() -> None:
    """A usage object that counts nothing is usage: of zero tokens."""
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    found = observed(record({"usage_object": usage}, prompt_tokens=0, completion_tokens=0))
    assert (found.tokens, found.reported_input, found.reported_output) == ({}, 0, 0)


def test_read__of_totals_alone() -> None:
    """Without a usage object the record's own totals count."""
    found = observed(record({"usage_object": None}))
    assert found.tokens == {TokenClass.INPUT: 100, TokenClass.OUTPUT: 50}


def test_read__of_an_embedding() -> None:
    """An object without an output has the record's: none."""
    found = observed(record({"usage_object": {"prompt_tokens": 9}}, completion_tokens=0))
    assert found.tokens == {TokenClass.INPUT: 9}


def test_read__of_an_answer_from_litellms_cache() -> None:
    """What went to no model took no tokens; the object that came with it is kept as it is."""
    found = observed(record(cache_hit=True))
    assert (found.tokens, found.reported_input) == ({}, -1)
    assert found.original["cache_hit"] is True
    assert found.original["prompt_tokens"] == 100


def test_read__of_a_batch() -> None:
    """A batch is one request however often it is asked for, and counts once it has counts."""
    asked = record(call_type="aretrieve_batch", id="batch_1")
    again = record(
        call_type="aretrieve_batch", id="batch_1", litellm_call_id="x", startTime=1789990500.0
    )
    none = {"prompt_tokens": 0, "completion_tokens": 0}
    early = record({"usage_object": none}, call_type="aretrieve_batch", id="batch_1", **none)
    one, other = read_all(early, asked, again)
    assert isinstance(one, Observation)
    assert isinstance(other, Observation)
    assert one.report_id == other.report_id
    assert one.request_id == other.request_id == "batch:batch_1"
    assert one.dimensions.mode == Mode.BATCH


def test_read__of_what_anthropic_wrote_to_its_cache() -> None:
    """How long a cache keeps what it was given is the provider's matter."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cache_creation_tokens": 30},
        "cache_creation_input_tokens": 30,
    }
    for provider, number in (
        ("anthropic", TokenClass.CACHE_WRITE_5M),
        ("openai", TokenClass.CACHE_WRITE_30M),
    ):
        found = observed(record({"usage_object": usage}, custom_llm_provider=provider))
        assert found.tokens[number] == 30
        assert found.tokens[TokenClass.INPUT] == 70


def test_read__of_counts_that_do_not_fit() -> None:
    """More cached than there was is left as it is: the check sets it aside."""
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 101}}
    found = observed(record({"usage_object": usage}))
    assert found.reported_input == 100
    assert sum(found.tokens.values()) > 150


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("a secret", "a record is no object"),
        (record(litellm_call_id=None, id=None), "litellm_call_id is missing"),
        (record({"usage_object": {**USAGE, "prompt_tokens": "a secret"}}), "prompt_tokens is no"),
        (
            record({"usage_object": {**USAGE, "prompt_tokens_details": {"cached_tokens": 1.5}}}),
            "cached_tokens is no count",
        ),
    ],
)
def test_read__of_what_cannot_be_read(sent: object, reason: str) -> None:
    """What no event can be made of has a reason of ours, without anything that was sent."""
    (found,) = read_all(sent)
    assert isinstance(found, Unreadable)
    assert found.reason.startswith(reason)
    assert "secret" not in found.reason


def test_read__without_times() -> None:
    """A record whose times are none ended when it was received."""
    found = observed(record(startTime="x", endTime=float("inf")))
    assert (found.end_ms, found.duration_ms) == (NOW_MS, 0)


@pytest.mark.parametrize(
    ("body", "count"),
    [(b'{"a": 1}', 1), (b'[{"a": 1}, {"a": 2}]', 2), (b'{"a": 1}\n{"a": 2}\n', 2), (b"[]", 0)],
)
def test_parse__each_form(body: bytes, count: int) -> None:
    """One record, a list of them, and one on each line: the three forms of `log_format`."""
    assert len(parse(body)) == count


@pytest.mark.parametrize("body", [b"", b"{", b"\n", b"\xff", b"[" * 100_000])
def test_parse__what_is_none(body: bytes) -> None:
    """What is no JSON is refused."""
    with pytest.raises(NoRecords):
        parse(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    changes=st.dictionaries(st.sampled_from(sorted(RECORD)), JSON),
    metadata=st.dictionaries(st.sampled_from(sorted(RECORD["metadata"])), JSON),
)
def test_read__whatever_is_sent(changes: dict[str, Any], metadata: dict[str, Any]) -> None:
    """No record, whatever is in it, does more than be unreadable."""
    sent = {**record(metadata), **changes}
    for found in read([sent], places=Places(), received_ms=NOW_MS):
        if isinstance(found, Observation):
            assert all(count > 0 for count in found.tokens.values())
            found.dimensions.account.encode()
