"""Usage objects that were kept, read again by the tables of today."""

from collections.abc import Mapping

import pytest

from meter.sources.rereading import find_reread

INPUT, CACHE_READ, OUTPUT, REASONING = 1, 2, 7, 8
OPENAI = {
    "convention": "openai",
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 4},
}
SPAN = {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 5}


@pytest.mark.parametrize(
    ("profile", "original", "tokens"),
    [
        ("litellm/1", OPENAI, {INPUT: 6, CACHE_READ: 4, OUTPUT: 5}),
        ("litellm/7", OPENAI, {INPUT: 6, CACHE_READ: 4, OUTPUT: 5}),
        ("litellm/1", {**OPENAI, "cache_hit": True}, {}),
        ("litellm/1", {**OPENAI, "completion_tokens": "x"}, None),
        ("cloud_events/1", {"tokens": {"input": 3}}, None),
        ("vllm_span/1", {**SPAN, "request_id": "chatcmpl-1"}, {INPUT: 10, OUTPUT: 5}),
        ("vllm_span/1", {"spans": [SPAN, SPAN]}, None),
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
