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
}

REFUSED: Final[Mapping[str, tuple[str, object]]] = {
    "no such profile": ("gemini", {"prompt_tokens": 1, "completion_tokens": 1}),
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
                 TokenClass.IMAGE_OUTPUT}  # fmt: skip
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
