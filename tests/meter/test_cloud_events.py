"""CloudEvents read as reports: our own type, OpenMeter's, and what is none."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.tokens import TokenClass
from meter.sources.cloud_events import (
    NoCloudEvents,
    parse_binary,
    parse_structured,
    read,
)
from meter.sources.observation import Observation, Unreadable
from meter.sources.places import Places, read_places

NOW_MS = 1_790_000_000_000
WHOLE: Mapping[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "shop",
    "type": "inference.tokens.used",
    "subject": "acme",
    "time": "2026-11-26T10:00:00.250Z",
    "data": {
        "model": "glm",
        "tier": "free",
        "tokens": {"input": 100, "cache_read": 20, "output": 7},
    },
}
OTHER: Mapping[str, Any] = {
    **WHOLE,
    "type": "ai.tokens",
    "data": {"model": "glm", "tokens": "12", "type": "input", "tier": "free"},
}


def whole(**data: object) -> dict[str, Any]:
    """Return an event of our type with other data."""
    return {**WHOLE, "data": {**WHOLE["data"], **data}}


def read_one(event: Mapping[str, Any], places: Places | None = None) -> Observation | Unreadable:
    """Read a single event that reports something."""
    (found,) = read_all(event, places=places)
    return found


def read_all(
    *events: Mapping[str, Any], places: Places | None = None
) -> list[Observation | Unreadable]:
    """Read a batch."""
    parsed = parse_structured(json.dumps(events).encode())
    return list(read(parsed, places=places or Places(), received_ms=NOW_MS))


def observed(event: Mapping[str, Any], places: Places | None = None) -> Observation:
    """Read a single event, of which an event of ours can be made."""
    found = read_one(event, places)
    assert isinstance(found, Observation), found
    return found


def test_read__of_a_whole_request() -> None:
    """An event of our own type has all that a request took, and the subject is its account."""
    found = observed(WHOLE)
    assert found.report_id == "ce:shop:1"
    assert found.request_id == ""
    assert (found.dimensions.account, found.dimensions.model) == ("acme", "glm")
    assert found.end_ms % 1000 == 250
    assert found.tokens == {
        TokenClass.INPUT: 100,
        TokenClass.CACHE_READ: 20,
        TokenClass.OUTPUT: 7,
    }
    assert (found.reported_input, found.reported_output) == (-1, -1)


def test_read__of_each_field() -> None:
    """Every field of our own type reaches the event."""
    found = observed(
        whole(
            account="other",
            served_model="glm-fp8",
            mode="batch",
            pool="h100",
            region="eu-1",
            request_id="r-1",
            attempt=2,
            duration_ms=1500,
            finish="cancelled",
            quality="partial",
            reported_input=120,
            reported_output=7,
        )
    )
    dimensions = found.dimensions
    assert (dimensions.account, dimensions.served_model, dimensions.mode) == ("other", "glm-fp8", 2)
    assert (dimensions.pool, dimensions.region) == ("h100", "eu-1")
    assert (found.request_id, found.attempt, found.duration_ms) == ("r-1", 2, 1500)
    assert (found.finish, found.quality) == (3, 2)
    assert (found.reported_input, found.reported_output) == (120, 7)


def test_read__of_a_providers_usage_object() -> None:
    """The provider's own object will do: its profile says what is included in what."""
    usage = {
        "prompt_tokens": 120,
        "completion_tokens": 9,
        "total_tokens": 129,
        "prompt_tokens_details": {"cached_tokens": 20, "hint": "a prompt"},
        "prompt": "a prompt",
    }
    found = observed(whole(tokens=None, usage=usage, profile="openai"))
    assert found.tokens == {
        TokenClass.INPUT: 100,
        TokenClass.CACHE_READ: 20,
        TokenClass.OUTPUT: 9,
    }
    assert (found.reported_input, found.reported_output) == (120, 9)
    assert found.original == {
        "convention": "openai",
        "prompt_tokens": 120,
        "completion_tokens": 9,
        "total_tokens": 129,
        "prompt_tokens_details": {"cached_tokens": 20},
    }


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("input", TokenClass.INPUT),
        ("prompt", TokenClass.INPUT),
        ("output", TokenClass.OUTPUT),
        ("completion", TokenClass.OUTPUT),
        ("cache_read", TokenClass.CACHE_READ),
        ("Input", TokenClass.INPUT),
        ("ours", TokenClass.REASONING),
        ("system", 0),
        (None, 0),
    ],
)
def test_read__of_one_count(kind: str | None, number: int) -> None:
    """OpenMeter's events have one count; of a kind that is not known it is set aside."""
    places = read_places('[cloud_events.kinds]\nours = "reasoning"')
    found = observed({**OTHER, "data": {**OTHER["data"], "type": kind}}, places)
    assert found.tokens == {number: 12}
    assert found.request_id == ""


def test_read__of_two_events_of_one_request() -> None:
    """Input and output that come apart are two reports: neither takes the other's place."""
    events = [
        {**OTHER, "id": f"r-1-{kind}", "data": {**OTHER["data"], "type": kind}}
        for kind in ("input", "output")
    ]
    found = read_all(*events)
    assert len({it.report_id for it in found if isinstance(it, Observation)}) == 2


def test_read__of_a_type_with_a_profile() -> None:
    """LiteLLM's own events for OpenMeter have both totals at once; others are named in the file."""
    data = {"model": "glm", "prompt_tokens": 5, "completion_tokens": 3, "cost": 0.1}
    tokens = {TokenClass.INPUT: 5, TokenClass.OUTPUT: 3}
    assert observed({**OTHER, "type": "litellm_tokens", "data": data}).tokens == tokens
    assert read_all({**OTHER, "type": "ours", "data": data}) == []
    places = read_places('[cloud_events.profiles]\nours = "openai"')
    assert observed({**OTHER, "type": "ours", "data": data}, places).tokens == tokens


def test_read__of_zero_tokens() -> None:
    """Nothing used is not the same as nothing said: it is a report like any other."""
    assert observed(whole(tokens={"input": 0, "output": 0})).tokens == {}
    assert observed({**OTHER, "data": {**OTHER["data"], "tokens": 0}}).tokens == {}


def test_read__of_an_event_without_a_time() -> None:
    """It ended when it came."""
    found = observed({name: value for name, value in WHOLE.items() if name != "time"})
    assert found.end_ms == NOW_MS


@pytest.mark.parametrize(
    ("time", "end_ms"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01t01:00:01.5+01:00", 1500),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("0001-01-01T00:00:00+14:00", 0),
        ("9999-12-31T23:59:59-14:00", 253_402_300_799_000),
    ],
)
def test_read__of_times(time: str, end_ms: int) -> None:
    """A time has any offset and any fraction; one outside the calendar is at its edge."""
    assert observed({**WHOLE, "time": time}).end_ms == end_ms


@pytest.mark.parametrize("data", [None, [], "tokens", {}, {"tokens_used": 3}])
def test_read__of_no_usage(data: object) -> None:
    """Events of other things are none of ours, and pass without a word."""
    assert read_all({**OTHER, "data": data}) == []


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (whole(tokens=None), "data has neither tokens nor usage"),
        (whole(tokens=[1]), "data has neither tokens nor usage"),
        (whole(tokens={"input": "many"}), "a count of tokens is no count"),
        (whole(tokens={"input": 1.5}), "a count of tokens is no count"),
        (whole(tokens={"input": True}), "a count of tokens is no count"),
        (whole(model=7), "a text of data is no text"),
        (whole(usage={}, profile="nobody"), "profile is not known"),
        (whole(usage=[], profile="openai"), "usage is no object"),
        (whole(usage={"prompt_tokens": 1}, profile="openai"), "completion_tokens is missing"),
        (whole(attempt="x"), "attempt is no count"),
        ({**WHOLE, "data": "x"}, "data is no object"),
        ({**WHOLE, "dataschema": "urn:other"}, "dataschema is not known"),
        ({**OTHER, "data": {**OTHER["data"], "tokens": "-1"}}, "tokens is no count"),
    ],
)
def test_read__of_usage_that_cannot_be_read(event: Mapping[str, Any], reason: str) -> None:
    """What claims to be usage and is none is told by a reason of ours, without its content."""
    assert read_one(event) == Unreadable(reason=reason)


@pytest.mark.parametrize(
    ("change", "outcome_field"),
    [
        ({"mode": "slow"}, "mode"),
        ({"finish": "weird"}, "finish"),
        ({"quality": "good"}, "quality"),
    ],
)
def test_read__of_a_word_that_is_not_known(change: Mapping[str, str], outcome_field: str) -> None:
    """It becomes a number that no word has: the check sets the event aside, and nothing is lost."""
    found = observed(whole(**change))
    number = found.dimensions.mode if outcome_field == "mode" else getattr(found, outcome_field)
    assert number == 255


def test_read__of_usage_whose_parts_exceed_it() -> None:
    """Totals that no class sums to reach the check, which sets the event aside: none is lost."""
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 9},
    }
    found = observed(whole(usage=usage, profile="openai"))
    assert (found.tokens, found.reported_input, found.reported_output) == ({}, 5, 3)
    assert found.original["prompt_tokens_details"] == {"cached_tokens": 9}


def test_read__keeps_what_is_negative() -> None:
    """The check is to see what is wrong with an event."""
    found = observed(whole(tokens={"input": -5}, attempt=-1, duration_ms=-2, reported_input=-7))
    assert found.tokens == {TokenClass.INPUT: -5}
    assert (found.attempt, found.duration_ms, found.reported_input) == (-1, -2, -7)


def test_report_id__tells_sources_apart() -> None:
    """Where a source ends and an id begins is not left to chance."""
    one = observed({**WHOLE, "source": "a:b", "id": "c"})
    other = observed({**WHOLE, "source": "a", "id": "b:c"})
    assert one.report_id != other.report_id


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body must be JSON"),
        (b"{", "the body must be JSON"),
        (b"\xff", "the body must be JSON"),
        (b"[" * 100_000, "the body must be JSON"),
        (b'{"specversion": NaN}', "the body must be JSON"),
        (b"7", "the event must be an object"),
        (b"[7]", "event 0 must be an object"),
        (b"{}", "specversion of the event must be"),
        (json.dumps({**WHOLE, "specversion": "0.3"}).encode(), "specversion of the event must be"),
        (json.dumps({**WHOLE, "id": ""}).encode(), "id of the event must be there"),
        (json.dumps({**WHOLE, "id": 7}).encode(), "id of the event must be a printable text"),
        (json.dumps({**WHOLE, "id": "x" * 1025}).encode(), "id of the event must be a printable"),
        (json.dumps({**WHOLE, "source": "a\nb"}).encode(), "source of the event must be a print"),
        (json.dumps([WHOLE, {**WHOLE, "type": None}]).encode(), "type of event 1 must be there"),
        (json.dumps({**WHOLE, "time": "yesterday"}).encode(), "time of the event must be a time"),
        (json.dumps({**WHOLE, "time": "2026-11-26T10:00:00"}).encode(), "with an offset"),
    ],
)
def test_parse__of_what_is_no_event(body: bytes, told: str) -> None:
    """What is no CloudEvent is refused with the place and the rule, before anything is recorded."""
    with pytest.raises(NoCloudEvents, match=told):
        list(read(parse_structured(body), places=Places(), received_ms=NOW_MS))


def test_parse_binary__reads_the_headers() -> None:
    """In binary mode the attributes are headers, and the body is the data alone."""
    headers = {f"ce-{name}": value for name, value in WHOLE.items() if name != "data"}
    headers |= {"authorization": "Bearer x", "host": "h"}
    (event,) = parse_binary(headers, json.dumps(WHOLE["data"]).encode())
    (structured,) = parse_structured(json.dumps(WHOLE).encode())
    assert event == structured


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["tokens", "usage", "profile", "model", "type", "attempt", "finish"]),
        JSON | st.sampled_from(["openai", "anthropic", "input"]),
    ),
    st.sampled_from(["inference.tokens.used", "ai.tokens", "litellm_tokens"]),
)
def test_read__of_anything(data: dict[str, Any], kind: str) -> None:
    """Whatever the data is, it is read, skipped or refused by a reason, and nothing breaks."""
    event = {**WHOLE, "type": kind, "data": json.loads(json.dumps(data).replace("NaN", "0"))}
    body = json.dumps(event).replace("Infinity", "1e999").encode()
    found = list(read(parse_structured(body), places=Places(), received_ms=NOW_MS))
    assert len(found) <= 1
