"""Complaints 28, 32 and 33: tokens of streams, of caches, and of what is priced apart."""

import time
from collections.abc import Mapping
from typing import Any, Final

import pytest

from meter.domain.interval import INTERVAL_MS
from meter.domain.outcome import Outcome
from tests.peers.customers import client_of, tokens_of
from tests.wire.session import Session, event
from tokenworks.client import Finish, Quality, TokenClass
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

INPUT: Final = TokenClass.INPUT


def test_litellm_13245__stream_whose_caller_left_counts_what_it_made(session: Session) -> None:
    """Cancelled and failed requests count the tokens that were made until then."""
    with client_of(session, "left") as client:
        for finish in (Finish.CANCELLED, Finish.FAILED):
            client.record(input=100, output=7, finish=finish, quality=Quality.PARTIAL)
    assert tokens_of(session, "left") == {INPUT: 200, TokenClass.OUTPUT: 14}


# An answer's usage, in the convention of who made it, and the classes that it means.
CACHED: Final[list[tuple[str, Mapping[str, Any], Mapping[TokenClass, int]]]] = [
    (
        "openai",
        {
            "prompt_tokens": 1_000,
            "completion_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 900},
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        {
            INPUT: 100,
            TokenClass.CACHE_READ: 900,
            TokenClass.OUTPUT: 30,
            TokenClass.REASONING: 20,
        },
    ),
    (
        "anthropic",
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 900,
            "cache_creation_input_tokens": 70,
            "cache_creation": {"ephemeral_5m_input_tokens": 70},
            "output_tokens": 50,
        },
        {
            INPUT: 100,
            TokenClass.CACHE_READ: 900,
            TokenClass.CACHE_WRITE_5M: 70,
            TokenClass.OUTPUT: 50,
        },
    ),
]


@pytest.mark.parametrize(("profile", "usage", "classes"), CACHED)
def test_litellm_9812__cached_tokens_are_counted_once(
    session: Session, profile: str, usage: Mapping[str, Any], classes: Mapping[TokenClass, int]
) -> None:
    """Whether totals include what was cached or not, each token is in one class."""
    account = f"cached-{profile}"
    with client_of(session, account) as client:
        assert client.record_usage(usage, profile=profile)
    assert tokens_of(session, account) == classes


def test_aider_5516__same_tokens_under_two_names_are_counted_once(session: Session) -> None:
    """An object that has both providers' fields is read by the one convention that was named."""
    usage = {
        "prompt_tokens": 11_000,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 10_900},
        "cache_read_input_tokens": 10_900,
        "cache_creation_input_tokens": 0,
    }
    with client_of(session, "aider") as client:
        assert client.record_usage(usage, profile="openai")
    found = tokens_of(session, "aider")
    assert found == {INPUT: 100, TokenClass.CACHE_READ: 10_900, TokenClass.OUTPUT: 1}


def test_semantic_conventions_genai_76__classes_sum_to_the_total(session: Session) -> None:
    """Classes that do not sum to the totals which the engine reported are set aside."""
    session.create_account("parts")
    tokens = {
        usage_pb2.TOKEN_CLASS_INPUT: 100,
        usage_pb2.TOKEN_CLASS_CACHE_READ: 900,
        usage_pb2.TOKEN_CLASS_OUTPUT: 30,
        usage_pb2.TOKEN_CLASS_REASONING: 20,
    }
    events = [
        event("parts", tokens=tokens, reported_input_count=prompt, reported_output_count=generated)
        for prompt, generated in ((1_000, 50), (100, 50), (1_000, 30))
    ]
    wanted = [Outcome.RECORDED, Outcome.COUNT_MISMATCH, Outcome.COUNT_MISMATCH]
    assert session.record(*events) == wanted
    assert tokens_of(session, "parts") == tokens


def test_semantic_conventions_genai_503__what_prices_depend_on_is_kept_apart(
    session: Session,
) -> None:
    """Model asked for and model that answered, mode, region and tier are told apart in usage."""
    session.create_account("apart")
    kinds: list[dict[str, Any]] = [
        {},
        {"served_model": "m-mini"},
        {"mode": usage_pb2.MODE_BATCH},
        {"region": "eu"},
        {"tier": "premium"},
    ]
    session.record(*(event("apart", **kind) for kind in kinds))
    assert tokens_of(session, "apart") == {INPUT: 15}
    request = meter_service_pb2.QueryUsageRequest(
        account="apart",
        group_by=[
            meter_service_pb2.GROUP_BY_SERVED_MODEL,
            meter_service_pb2.GROUP_BY_MODE,
            meter_service_pb2.GROUP_BY_REGION,
            meter_service_pb2.GROUP_BY_TIER,
        ],
    )
    edge_ms = time.time_ns() // 10**6 // INTERVAL_MS * INTERVAL_MS
    request.start_time.FromMilliseconds(edge_ms - INTERVAL_MS)
    request.end_time.FromMilliseconds(edge_ms + INTERVAL_MS)
    rows = session.call("QueryUsage", request).rows
    assert [row.request_count for row in rows] == [1] * len(kinds)
