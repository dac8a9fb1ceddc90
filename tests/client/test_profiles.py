"""Usage objects of providers, with the traps that were found in the wild."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Final

import pytest

from tokenworks.client import TokenClass, read_usage
from tokenworks.client.foreign import Unfit
from tokenworks.client.profiles import PROFILES

# profile, usage object, classes, total of the prompt, total generated
READ: Final[Mapping[str, tuple[str, Mapping[str, object], Mapping[str, int], int, int]]] = {
    "totals alone": (
        "openai",
        {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
        {"INPUT": 10, "OUTPUT": 4},
        10,
        4,
    ),
    "details that are null": (
        "openai",
        {
            "prompt_tokens": 10,
            "completion_tokens": 4,
            "prompt_tokens_details": None,
            "completion_tokens_details": {"reasoning_tokens": None},
        },
        {"INPUT": 10, "OUTPUT": 4},
        10,
        4,
    ),
    "cached, written, audio and reasoning are inside": (
        "openai",
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "prompt_tokens_details": {
                "cached_tokens": 60,
                "cache_write_tokens": 10,
                "audio_tokens": 5,
            },
            "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 7},
        },
        {
            "INPUT": 25,
            "CACHE_READ": 60,
            "CACHE_WRITE_30M": 10,
            "AUDIO_INPUT": 5,
            "OUTPUT": 23,
            "REASONING": 20,
            "AUDIO_OUTPUT": 7,
        },
        100,
        50,
    ),
    "predictions, rejected ones too, are output": (
        "openai",
        {
            "prompt_tokens": 10,
            "completion_tokens": 50,
            "completion_tokens_details": {
                "accepted_prediction_tokens": 30,
                "rejected_prediction_tokens": 15,
            },
        },
        {"INPUT": 10, "OUTPUT": 50},
        10,
        50,
    ),
    "the same cached tokens named twice": (
        "openai",
        {
            "prompt_tokens": 100,
            "completion_tokens": 0,
            "cache_read_input_tokens": 60,
            "prompt_tokens_details": {"cached_tokens": 60},
        },
        {"INPUT": 40, "CACHE_READ": 60},
        100,
        0,
    ),
    "all of the prompt was cached": (
        "openai",
        {
            "prompt_tokens": 64,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
        {"CACHE_READ": 64, "OUTPUT": 1},
        64,
        1,
    ),
    "cached audio is neither cached text nor new audio": (
        "openai_responses",
        {
            "input_tokens": 100,
            "output_tokens": 9,
            "input_tokens_details": {
                "cached_tokens": 50,
                "cached_tokens_details": {
                    "text_tokens": 30,
                    "audio_tokens": 15,
                    "image_tokens": 5,
                },
                "audio_tokens": 40,
                "image_tokens": 6,
            },
            "output_tokens_details": {"audio_tokens": 3, "image_tokens": 2},
        },
        {
            "INPUT": 24,
            "CACHE_READ": 30,
            "AUDIO_CACHE_READ": 15,
            "IMAGE_CACHE_READ": 5,
            "AUDIO_INPUT": 25,
            "IMAGE_INPUT": 1,
            "OUTPUT": 4,
            "AUDIO_OUTPUT": 3,
            "IMAGE_OUTPUT": 2,
        },
        100,
        9,
    ),
    "writes by how long they are kept": (
        "openai_responses",
        {
            "input_tokens": 100,
            "output_tokens": 9,
            "input_tokens_details": {
                "cache_write_tokens": 70,
                "cache_write_tokens_details": {"ttl_30m_tokens": 20, "ttl_12h_tokens": 40},
            },
            "output_tokens_details": {"reasoning_tokens": 9},
        },
        {"INPUT": 30, "CACHE_WRITE_30M": 30, "CACHE_WRITE_12H": 40, "REASONING": 9},
        100,
        9,
    ),
    "cached tokens are beside the input": (
        "anthropic",
        {"input_tokens": 10, "cache_read_input_tokens": 500, "output_tokens": 7},
        {"INPUT": 10, "CACHE_READ": 500, "OUTPUT": 7},
        510,
        7,
    ),
    "the total of writes is not added to its parts": (
        "anthropic",
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 300,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            "output_tokens": 7,
        },
        {"INPUT": 10, "CACHE_WRITE_5M": 100, "CACHE_WRITE_1H": 200, "OUTPUT": 7},
        310,
        7,
    ),
    "writes without parts are kept for five minutes": (
        "anthropic",
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 300,
            "cache_creation": None,
            "output_tokens": 7,
        },
        {"INPUT": 10, "CACHE_WRITE_5M": 300, "OUTPUT": 7},
        310,
        7,
    ),
    "parts of writes without their total": (
        "anthropic",
        {
            "input_tokens": 0,
            "cache_creation": {"ephemeral_1h_input_tokens": 200},
            "output_tokens": 7,
        },
        {"CACHE_WRITE_1H": 200, "OUTPUT": 7},
        200,
        7,
    ),
    "thinking is inside the output": (
        "anthropic",
        {
            "input_tokens": 10,
            "output_tokens": 90,
            "output_tokens_details": {"thinking_tokens": 80},
        },
        {"INPUT": 10, "OUTPUT": 10, "REASONING": 80},
        10,
        90,
    ),
    "compaction is not in the totals, the messages of the answer are": (
        "anthropic",
        {
            "input_tokens": 10,
            "output_tokens": 20,
            "iterations": [
                {"type": "compaction", "input_tokens": 1000, "output_tokens": 50},
                {"type": "message", "input_tokens": 10, "output_tokens": 20},
            ],
        },
        {"INPUT": 1010, "OUTPUT": 70},
        1010,
        70,
    ),
    "LiteLLM names the same cached tokens in three places": (
        "litellm_anthropic",
        {
            "prompt_tokens": 610,
            "completion_tokens": 20,
            "total_tokens": 630,
            "prompt_tokens_details": {
                "cached_tokens": 500,
                "cache_creation_tokens": 100,
                "cache_write_tokens": 100,
                "cache_creation_token_details": {
                    "ephemeral_5m_input_tokens": 30,
                    "ephemeral_1h_input_tokens": 60,
                },
                "text_tokens": 10,
            },
            "cache_read_input_tokens": 500,
            "cache_creation_input_tokens": 100,
            "completion_tokens_details": {"reasoning_tokens": 5, "text_tokens": 15},
        },
        {
            "INPUT": 10,
            "CACHE_READ": 500,
            "CACHE_WRITE_5M": 40,
            "CACHE_WRITE_1H": 60,
            "OUTPUT": 15,
            "REASONING": 5,
        },
        610,
        20,
    ),
    "LiteLLM names cached tokens beside the details alone": (
        "litellm",
        {
            "prompt_tokens": 100,
            "completion_tokens": 2,
            "prompt_tokens_details": None,
            "cache_read_input_tokens": 60,
            "cache_creation_input_tokens": 30,
        },
        {"INPUT": 10, "CACHE_READ": 60, "CACHE_WRITE_30M": 30, "OUTPUT": 2},
        100,
        2,
    ),
    "thoughts and tools are beside, cached tokens inside": (
        "gemini",
        {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 60,
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 300,
            "toolUsePromptTokenCount": 7,
            "totalTokenCount": 427,
        },
        {"INPUT": 47, "CACHE_READ": 60, "OUTPUT": 20, "REASONING": 300},
        107,
        320,
    ),
    "modalities, and what of them was cached": (
        "gemini",
        {
            "prompt_token_count": 100,
            "cached_content_token_count": 50,
            "candidates_token_count": 30,
            "prompt_tokens_details": [
                {"modality": "TEXT", "token_count": 20},
                {"modality": "DOCUMENT", "token_count": 10},
                {"modality": "AUDIO", "token_count": 40},
                {"modality": "IMAGE", "token_count": 10},
                {"modality": "VIDEO", "token_count": 20},
            ],
            "cache_tokens_details": [
                {"modality": "TEXT", "token_count": 10},
                {"modality": "AUDIO", "token_count": 25},
                {"modality": "IMAGE", "token_count": 10},
                {"modality": "VIDEO", "token_count": 5},
            ],
            "candidates_tokens_details": [
                {"modality": "TEXT", "token_count": 12},
                {"modality": "AUDIO", "token_count": 10},
                {"modality": "IMAGE", "token_count": 5},
                {"modality": "VIDEO", "token_count": 3},
            ],
        },
        {
            "INPUT": 20,
            "CACHE_READ": 15,
            "AUDIO_CACHE_READ": 25,
            "IMAGE_CACHE_READ": 10,
            "AUDIO_INPUT": 15,
            "VIDEO_INPUT": 15,
            "OUTPUT": 12,
            "AUDIO_OUTPUT": 10,
            "IMAGE_OUTPUT": 5,
            "VIDEO_OUTPUT": 3,
        },
        100,
        30,
    ),
    "an answer that was thought of alone": (
        "gemini",
        {"promptTokenCount": 10, "thoughtsTokenCount": 5, "totalTokenCount": 15},
        {"INPUT": 10, "REASONING": 5},
        10,
        5,
    ),
    "Bedrock's caches are beside its input": (
        "bedrock",
        {
            "inputTokens": 10,
            "outputTokens": 7,
            "totalTokens": 617,
            "cacheReadInputTokens": 500,
            "cacheWriteInputTokens": 100,
        },
        {"INPUT": 10, "CACHE_READ": 500, "CACHE_WRITE_5M": 100, "OUTPUT": 7},
        610,
        7,
    ),
    "Bedrock's writes by how long they are kept": (
        "bedrock",
        {
            "inputTokens": 10,
            "outputTokens": 7,
            "cacheWriteInputTokens": 100,
            "cacheDetails": [
                {"ttl": "1h", "inputTokens": 70},
                {"ttl": "5m", "inputTokens": 30},
            ],
        },
        {"INPUT": 10, "CACHE_WRITE_5M": 30, "CACHE_WRITE_1H": 70, "OUTPUT": 7},
        110,
        7,
    ),
    "a prompt of hits and misses": (
        "deepseek",
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "prompt_tokens_details": {"cached_tokens": 64},
            "completion_tokens_details": {"reasoning_tokens": 40},
        },
        {"INPUT": 36, "CACHE_READ": 64, "OUTPUT": 10, "REASONING": 40},
        100,
        50,
    ),
    "what llama.cpp processed is beside what it had": (
        "llamacpp",
        {"cache_n": 236, "prompt_n": 1, "predicted_n": 35, "predicted_ms": 1.5},
        {"INPUT": 1, "CACHE_READ": 236, "OUTPUT": 35},
        237,
        35,
    ),
    "what Ollama had is inside what it evaluated": (
        "ollama",
        {"prompt_eval_count": 26, "prompt_eval_cached_count": 20, "eval_count": 298},
        {"INPUT": 6, "CACHE_READ": 20, "OUTPUT": 298},
        26,
        298,
    ),
}

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
