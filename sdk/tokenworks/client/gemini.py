"""The usage metadata of Gemini and Vertex, whose names and lists are unlike all others."""

from collections.abc import Mapping
from typing import Final

from tokenworks.client.foreign import Unfit
from tokenworks.client.usage_counts import Reading, count_of, less, present, rest_of, value_of
from tokenworks.client.vocabulary import TokenClass

_THOUGHTS: Final = "thoughts_token_count"


def read_gemini(usage: object) -> Reading:
    """Read Gemini's and Vertex's usage metadata: the prompt includes what was cached.

    The candidates exclude thoughts, and the prompt what tools have put into it. Names are those of
    the API (`promptTokenCount`) or of its Python library (`prompt_token_count`).
    """
    prompt_name, output_name = "prompt_token_count", "candidates_token_count"
    if _either_value(usage, prompt_name) is None:
        raise Unfit(f"{prompt_name} is missing")
    prompt, cached = _either(usage, prompt_name), _either(usage, "cached_content_token_count")
    tools, thoughts = _either(usage, "tool_use_prompt_token_count"), _either(usage, _THOUGHTS)
    # JSON leaves out what is 0.
    output = _either(usage, output_name)
    if _either_value(usage, "total_token_count") is not None:
        total = _either(usage, "total_token_count")
        if total != prompt + tools + output + thoughts:
            raise Unfit("the counts do not sum to total_token_count")
    asked = _modalities(usage, "prompt_tokens_details")
    cached_parts = _modalities(usage, "cache_tokens_details")
    made = _modalities(usage, "candidates_tokens_details")
    cached_other = {
        TokenClass.AUDIO_CACHE_READ: cached_parts.get("AUDIO", 0),
        TokenClass.IMAGE_CACHE_READ: cached_parts.get("IMAGE", 0),
    }
    # There is no class for cached video: it is cached input like text.
    other = {
        TokenClass.AUDIO_INPUT: _uncached(asked, cached_parts, "AUDIO"),
        TokenClass.IMAGE_INPUT: _uncached(asked, cached_parts, "IMAGE"),
        TokenClass.VIDEO_INPUT: _uncached(asked, cached_parts, "VIDEO"),
    }
    generated = {
        TokenClass.AUDIO_OUTPUT: made.get("AUDIO", 0),
        TokenClass.IMAGE_OUTPUT: made.get("IMAGE", 0),
        TokenClass.VIDEO_OUTPUT: made.get("VIDEO", 0),
    }
    text = less(rest_of(prompt, other, name=prompt_name), cached, name=prompt_name)
    tokens = {
        TokenClass.INPUT: text + tools,
        TokenClass.CACHE_READ: rest_of(cached, cached_other, name="cached_content_token_count"),
        **cached_other,
        **other,
        TokenClass.OUTPUT: rest_of(output, generated, name=output_name),
        TokenClass.REASONING: thoughts,
        **generated,
    }
    return Reading(
        tokens=present(tokens),
        reported_input_count=prompt + tools,
        reported_output_count=output + thoughts,
    )


def _modalities(usage: object, name: str) -> dict[str, int]:
    """Return the counts of a list by modality, of Gemini."""
    found: dict[str, int] = {}
    details = _either_value(usage, name)
    for part in details if isinstance(details, list | tuple) else ():
        modality = value_of(part, "modality")
        # In the library it is an enumeration whose value is the word.
        word = str(getattr(modality, "value", modality))
        found[word] = found.get(word, 0) + _either(part, "token_count")
    return found


def _uncached(asked: Mapping[str, int], cached: Mapping[str, int], modality: str) -> int:
    return less(asked.get(modality, 0), cached.get(modality, 0), name="prompt_tokens_details")


def _either(usage: object, name: str) -> int:
    """Return a count of Gemini, 0 where it is left out."""
    value = _either_value(usage, name)
    return count_of({name: value}, name)


def _either_value(usage: object, name: str) -> object:
    """Return a value under its name in the library, or in the API."""
    first, *rest = name.split("_")
    value = value_of(usage, name)
    return value_of(usage, first + "".join(map(str.title, rest))) if value is None else value
