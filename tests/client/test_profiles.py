"""Usage objects of providers, with the traps that were found in the wild."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Final

import pytest

from tests.client.usage_cases import READ
from tokenworks.client import TokenClass, read_usage
from tokenworks.client.foreign import Unfit
from tokenworks.client.profiles import PROFILES

REFUSED: Final[Mapping[str, tuple[str, object]]] = {
    "no such profile": ("guess", {"prompt_tokens": 1, "completion_tokens": 1}),
    "another provider's object": ("openai", {"input_tokens": 10, "output_tokens": 5}),
    "no prompt total": ("openai", {"completion_tokens": 5}),
    "an output total that is null": (
        "openai_responses",
        {"input_tokens": 1, "output_tokens": None},
    ),
    "more cached than prompt": (
        "openai",
        {
            "prompt_tokens": 10,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 11},
        },
    ),
    "more reasoning than output": (
        "openai",
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "completion_tokens_details": {"reasoning_tokens": 6},
        },
    ),
    "more cached audio than audio": (
        "openai_responses",
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "input_tokens_details": {
                "cached_tokens": 5,
                "cached_tokens_details": {"audio_tokens": 4},
                "audio_tokens": 3,
            },
        },
    ),
    "more kept than written": (
        "openai_responses",
        {
            "input_tokens": 100,
            "output_tokens": 5,
            "input_tokens_details": {
                "cache_write_tokens": 5,
                "cache_write_tokens_details": {"ttl_12h_tokens": 6},
            },
        },
    ),
    "parts of writes that do not sum": (
        "anthropic",
        {
            "input_tokens": 1,
            "output_tokens": 1,
            "cache_creation_input_tokens": 10,
            "cache_creation": {"ephemeral_5m_input_tokens": 9},
        },
    ),
    "more thinking than output": (
        "anthropic",
        {"input_tokens": 1, "output_tokens": 1, "output_tokens_details": {"thinking_tokens": 2}},
    ),
    "LiteLLM keeps more than was written": (
        "litellm",
        {
            "prompt_tokens": 100,
            "completion_tokens": 1,
            "prompt_tokens_details": {
                "cache_creation_tokens": 5,
                "cache_creation_token_details": {"ephemeral_1h_input_tokens": 6},
            },
        },
    ),
    "thoughts that are inside the candidates": (
        "gemini",
        {
            "promptTokenCount": 10,
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 5,
            "totalTokenCount": 30,
        },
    ),
    "no prompt of Gemini": ("gemini", {"candidatesTokenCount": 20}),
    "more cached audio than there was": (
        "gemini",
        {
            "promptTokenCount": 10,
            "cachedContentTokenCount": 5,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 4}],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 5}],
        },
    ),
    "Bedrock's writes do not sum": (
        "bedrock",
        {
            "inputTokens": 1,
            "outputTokens": 1,
            "cacheWriteInputTokens": 10,
            "cacheDetails": [{"ttl": "5m", "inputTokens": 9}],
        },
    ),
    "Bedrock keeps for a time that has no class": (
        "bedrock",
        {
            "inputTokens": 1,
            "outputTokens": 1,
            "cacheWriteInputTokens": 10,
            "cacheDetails": [{"ttl": "1d", "inputTokens": 10}],
        },
    ),
    "hits and misses that do not sum": (
        "deepseek",
        {
            "prompt_tokens": 100,
            "completion_tokens": 1,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 35,
        },
    ),
    "more hits than prompt": (
        "deepseek",
        {"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 11},
    ),
    "an Ollama that leaves out a cached prompt": ("ollama", {"eval_count": 5}),
    "more cached than Ollama evaluated": (
        "ollama",
        {"prompt_eval_count": 5, "prompt_eval_cached_count": 6, "eval_count": 5},
    ),
    "llama.cpp without timings": ("llamacpp", {"prompt_tokens": 5, "completion_tokens": 1}),
    "a negative count": ("openai", {"prompt_tokens": -1, "completion_tokens": 1}),
    "a fraction": ("openai", {"prompt_tokens": 1.5, "completion_tokens": 1}),
    "a truth value": ("openai", {"prompt_tokens": True, "completion_tokens": 1}),
    "a text": ("anthropic", {"input_tokens": "10", "output_tokens": 1}),
    "nothing": ("openai", None),
}


def test_read_usage__tables_cover_every_profile() -> None:
    """No profile is without a case."""
    assert {case[0] for case in READ.values()} == set(PROFILES)


@pytest.mark.parametrize("case", READ)
def test_read_usage__gives_disjoint_classes(case: str) -> None:
    """A usage object is read into classes that sum to the provider's own totals."""
    profile, usage, tokens, input_count, output_count = READ[case]
    reading = read_usage(usage, profile=profile)
    assert {c.name: count for c, count in reading.tokens.items()} == tokens
    assert reading.reported_input_count == input_count
    assert reading.reported_output_count == output_count
    generated = {TokenClass.OUTPUT, TokenClass.REASONING, TokenClass.AUDIO_OUTPUT,
                 TokenClass.IMAGE_OUTPUT, TokenClass.VIDEO_OUTPUT}  # fmt: skip
    assert sum(n for c, n in reading.tokens.items() if c in generated) == output_count
    assert sum(n for c, n in reading.tokens.items() if c not in generated) == input_count


@pytest.mark.parametrize("case", READ)
def test_read_usage__takes_objects_with_attributes(case: str) -> None:
    """An object of a provider's package reads as its mapping does."""
    profile, usage, *_ = READ[case]
    assert read_usage(_object(usage), profile=profile) == read_usage(usage, profile=profile)


@pytest.mark.parametrize("case", REFUSED)
def test_read_usage__refuses_what_contradicts_itself(case: str) -> None:
    """What cannot be read without guessing is refused, not mended."""
    profile, usage = REFUSED[case]
    with pytest.raises(Unfit):
        read_usage(usage, profile=profile)


def _object(value: object) -> object:
    if isinstance(value, Mapping):
        return SimpleNamespace(**{name: _object(part) for name, part in value.items()})
    if isinstance(value, list):
        return [_object(part) for part in value]
    return value
