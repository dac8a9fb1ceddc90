"""The logger for LiteLLM's proxy: what it reports, and that nothing of it reaches the proxy.

The proxy itself is in `tests/stacks/test_litellm.py`.
"""

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, Final

import pytest

from tests.client.conftest import MakeClient
from tests.client.fake_meter import FakeMeter
from tokenworks.client.litellm import LiteLlmPlaces, RecordCounts, TokenworksLogger
from tokenworks.client.vocabulary import Finish, Quality, TokenClass

RECORD: Final[Mapping[str, Any]] = {
    "litellm_call_id": "call-1",
    "status": "success",
    "startTime": 1789990402.0,
    "endTime": 1789990402.5,
    "model": "openai/meta-llama",
    "model_group": "llama-70b",
    "custom_llm_provider": "openai",
    "metadata": {
        "user_api_key_team_id": "acme",
        "usage_object": {
            "prompt_tokens": 100,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 60},
        },
        "requester_custom_headers": {"x-request-id": "r-1", "x-tokenworks-tier": "high"},
    },
}


def log(logger: TokenworksLogger, record: object, *, event: str = "success") -> None:
    """Call the logger as LiteLLM does: by the names of its parameters."""
    call = getattr(logger, f"async_log_{event}_event")
    kwargs = {"standard_logging_object": record}
    asyncio.run(call(kwargs=kwargs, response_obj=object(), start_time=None, end_time=None))


def test_call__is_reported(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """A record becomes an event of the source, with all that it says."""
    logger = TokenworksLogger(meter=make_client(source="litellm"))
    log(logger, RECORD)
    assert fake_meter.wait_for_events(1)
    (event,) = fake_meter.events
    assert event["account"] == "acme"
    assert event["model"] == "llama-70b"
    assert (event["tier"], event["request_id"]) == ("high", "r-1")
    assert event["tokens"] == {
        TokenClass.INPUT: 40,
        TokenClass.CACHE_READ: 60,
        TokenClass.OUTPUT: 7,
    }
    assert (event["end_ms"], event["duration_ms"]) == (1_789_990_402_500, 500)
    assert event["usage"] == {"convention": "litellm", **RECORD["metadata"]["usage_object"]}
    assert logger.counts == RecordCounts(reported=1)


def test_call__answered_from_a_cache(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """What LiteLLM's own cache answered took no tokens, and what is kept of it says why."""
    logger = TokenworksLogger(meter=make_client(source="litellm"))
    log(logger, {**RECORD, "cache_hit": True})
    assert fake_meter.wait_for_events(1)
    (event,) = fake_meter.events
    assert event["tokens"] == {}
    usage: Any = event["usage"]
    assert (usage["cache_hit"], usage["prompt_tokens"]) == (True, 100)


def test_call__that_was_broken_off(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """Whose caller left is estimated: LiteLLM counts by itself then."""
    logger = TokenworksLogger(meter=make_client(source="litellm"))
    log(logger, {**RECORD, "error_information": {"error_class": "ClientDisconnected"}})
    assert fake_meter.wait_for_events(1)
    (event,) = fake_meter.events
    assert (event["finish"], event["quality"]) == (Finish.CANCELLED, Quality.ESTIMATED)


def test_call__places(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """Who makes the logger says where a record has what."""
    places = LiteLlmPlaces(account=("metadata:requester_custom_headers.x-who",))
    logger = TokenworksLogger(meter=make_client(source="litellm"), places=places)
    metadata = {**RECORD["metadata"], "requester_custom_headers": {"x-who": "globex"}}
    log(logger, {**RECORD, "metadata": metadata})
    assert fake_meter.wait_for_events(1)
    assert fake_meter.events[0]["account"] == "globex"


class Hostile(dict[str, Any]):
    """A record whose every question fails."""

    def get(self, key: str, default: object = None) -> object:  # noqa: ARG002
        """Raise what no reader of mappings expects."""
        raise ZeroDivisionError


@pytest.mark.parametrize("record", [7, {"metadata": {"usage_object": {"x": 1}}}, Hostile()])
def test_call__that_cannot_be_read(make_client: MakeClient, record: object) -> None:
    """It is counted, and the proxy learns nothing of it."""
    logger = TokenworksLogger(meter=make_client(source="litellm"))
    log(logger, record)
    assert logger.counts == RecordCounts(unreadable=1)


def test_call__without_usage(make_client: MakeClient) -> None:
    """A failure that took nothing is no event, nor is a call without a record."""
    logger = TokenworksLogger(meter=make_client(source="litellm"))
    log(logger, {"litellm_call_id": "x", "status": "failure"}, event="failure")
    log(logger, None, event="failure")
    assert logger.counts == RecordCounts(without_usage=2)


@pytest.mark.parametrize("event", ["success", "failure"])
def test_call__names_of_parameters(event: str) -> None:
    """LiteLLM passes arguments by name: another name would lose all usage without a sound."""
    method = getattr(TokenworksLogger, f"async_log_{event}_event")
    names = ["self", "kwargs", "response_obj", "start_time", "end_time"]
    assert list(inspect.signature(method).parameters) == names
