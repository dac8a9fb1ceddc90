"""Usage objects of providers, read into disjoint token classes.

Providers disagree about what their numbers include: some count cached tokens and reasoning inside
the totals, some beside them. A profile is chosen by who made the object, never guessed from the
fields that happen to be in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tokenworks.client.foreign import Unfit
from tokenworks.client.vocabulary import TokenClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a usage object says."""

    tokens: Mapping[TokenClass, int] = field(default_factory=dict)
    """Disjoint classes with tokens in them, each > 0."""
    reported_input_count: int
    """All prompt tokens, cached ones included: the provider's own total."""
    reported_output_count: int
    """All generated tokens, reasoning included: the provider's own total."""


def read_usage(usage: object, *, profile: str) -> Reading:
    """Read a mapping, or an object with attributes of the same names.

    Raises Unfit, a ValueError, where the profile is unknown, a total is missing, a number is no
    whole number, or the parts do not fit into their total. An absent detail counts 0.
    """
    reader = PROFILES.get(profile)
    if reader is None:
        raise Unfit("there is no such profile")
    return reader(usage)


def read_openai(usage: object) -> Reading:
    """Read chat completions: everything else is inside `prompt_tokens` and `completion_tokens`.

    Prediction tokens, accepted and rejected, are part of the completion and are not told apart.
    """
    return _read_inclusive(
        usage,
        input_name="prompt_tokens",
        input_details=_get(usage, "prompt_tokens_details"),
        output_name="completion_tokens",
        output_details=_get(usage, "completion_tokens_details"),
    )


def read_openai_responses(usage: object) -> Reading:
    """Read the Responses API: everything else is inside `input_tokens` and `output_tokens`."""
    return _read_inclusive(
        usage,
        input_name="input_tokens",
        input_details=_get(usage, "input_tokens_details"),
        output_name="output_tokens",
        output_details=_get(usage, "output_tokens_details"),
    )


def read_anthropic(usage: object) -> Reading:
    """Read messages: `input_tokens` excludes what was read from or written to a cache.

    `output_tokens` includes thinking. Tokens of compaction are only in `iterations` and are added.
    """
    iterations = _get(usage, "iterations")
    parts = iterations if isinstance(iterations, list | tuple) else ()
    compactions = [part for part in parts if _get(part, "type") == "compaction"]
    tokens: dict[TokenClass, int] = {}
    for part in (usage, *compactions):
        for token_class, count in _anthropic_part(part).items():
            tokens[token_class] = tokens.get(token_class, 0) + count
    generated = tokens[TokenClass.OUTPUT] + tokens[TokenClass.REASONING]
    return Reading(
        tokens=_present(tokens),
        reported_input_count=sum(tokens.values()) - generated,
        reported_output_count=generated,
    )


PROFILES: Final[Mapping[str, Callable[[object], Reading]]] = {
    "openai": read_openai,
    "openai_responses": read_openai_responses,
    "anthropic": read_anthropic,
}
"""Profiles by name."""


def _read_inclusive(
    usage: object,
    *,
    input_name: str,
    input_details: object,
    output_name: str,
    output_details: object,
) -> Reading:
    input_count = _total(usage, input_name)
    output_count = _total(usage, output_name)
    prompt = _prompt_parts(input_details)
    generated = {
        TokenClass.REASONING: _count(output_details, "reasoning_tokens"),
        TokenClass.AUDIO_OUTPUT: _count(output_details, "audio_tokens"),
        TokenClass.IMAGE_OUTPUT: _count(output_details, "image_tokens"),
    }
    tokens = {
        TokenClass.INPUT: _rest(input_count, prompt, name=input_name),
        **prompt,
        TokenClass.OUTPUT: _rest(output_count, generated, name=output_name),
        **generated,
    }
    return Reading(
        tokens=_present(tokens),
        reported_input_count=input_count,
        reported_output_count=output_count,
    )


def _prompt_parts(details: object) -> dict[TokenClass, int]:
    cached = _count(details, "cached_tokens")
    # What of audio, images and text was cached is told apart by some endpoints only; where it is
    # not, the cached tokens are text.
    cached_details = _get(details, "cached_tokens_details")
    cached_other = {
        TokenClass.AUDIO_CACHE_READ: _count(cached_details, "audio_tokens"),
        TokenClass.IMAGE_CACHE_READ: _count(cached_details, "image_tokens"),
    }
    audio, image = _count(details, "audio_tokens"), _count(details, "image_tokens")
    audio_cached = cached_other[TokenClass.AUDIO_CACHE_READ]
    image_cached = cached_other[TokenClass.IMAGE_CACHE_READ]
    return {
        TokenClass.CACHE_READ: _rest(cached, cached_other, name="cached_tokens"),
        **cached_other,
        TokenClass.AUDIO_INPUT: _less(audio, audio_cached, name="audio_tokens"),
        TokenClass.IMAGE_INPUT: _less(image, image_cached, name="image_tokens"),
        **_written(details),
    }


def _written(details: object) -> dict[TokenClass, int]:
    """Return tokens written to a cache by how long it keeps them: 30 minutes unless said."""
    written_details = _get(details, "cache_write_tokens_details")
    short = _count(written_details, "ttl_30m_tokens")
    long = _count(written_details, "ttl_12h_tokens")
    if _get(details, "cache_write_tokens") is not None:
        written = _count(details, "cache_write_tokens")
        short += _less(written, short + long, name="cache_write_tokens")
    return {TokenClass.CACHE_WRITE_30M: short, TokenClass.CACHE_WRITE_12H: long}


def _anthropic_part(part: object) -> dict[TokenClass, int]:
    output_count = _total(part, "output_tokens")
    thinking = {
        TokenClass.REASONING: _count(_get(part, "output_tokens_details"), "thinking_tokens")
    }
    return {
        TokenClass.INPUT: _total(part, "input_tokens"),
        TokenClass.CACHE_READ: _count(part, "cache_read_input_tokens"),
        **_created(part),
        TokenClass.OUTPUT: _rest(output_count, thinking, name="output_tokens"),
        **thinking,
    }


def _created(part: object) -> dict[TokenClass, int]:
    """Return tokens written to a cache; the total repeats its details and is not added to them."""
    details = _get(part, "cache_creation")
    five_minutes = _count(details, "ephemeral_5m_input_tokens")
    one_hour = _count(details, "ephemeral_1h_input_tokens")
    if _get(part, "cache_creation_input_tokens") is not None:
        total = _count(part, "cache_creation_input_tokens")
        if details is None:
            five_minutes = total
        elif five_minutes + one_hour != total:
            raise Unfit("cache_creation does not sum to cache_creation_input_tokens")
    return {TokenClass.CACHE_WRITE_5M: five_minutes, TokenClass.CACHE_WRITE_1H: one_hour}


def _present(tokens: Mapping[TokenClass, int]) -> Mapping[TokenClass, int]:
    return {token_class: count for token_class, count in tokens.items() if count}


def _rest(total: int, parts: Mapping[TokenClass, int], *, name: str) -> int:
    return _less(total, sum(parts.values()), name=name)


def _less(total: int, part: int, *, name: str) -> int:
    if part > total:
        raise Unfit(f"the parts of {name} exceed it")
    return total - part


def _total(usage: object, name: str) -> int:
    if _get(usage, name) is None:
        raise Unfit(f"{name} is missing")
    return _count(usage, name)


def _count(usage: object, name: str) -> int:
    value = _get(usage, name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Unfit(f"{name} is no count")
    return value


def _get(usage: object, name: str) -> object:
    if usage is None:
        return None
    if isinstance(usage, Mapping):
        value: object = usage.get(name)
        return value
    return getattr(usage, name, None)
