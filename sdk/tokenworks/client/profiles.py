"""Usage objects of providers, read into disjoint token classes.

Providers disagree about what their numbers include: some count cached tokens and reasoning inside
the totals, some beside them. A profile is chosen by who made the object, never guessed from the
fields that happen to be in it.
"""

from collections.abc import Callable, Mapping
from typing import Final

from tokenworks.client.foreign import Unfit
from tokenworks.client.gemini import read_gemini
from tokenworks.client.usage_counts import (
    Reading,
    count_of,
    less,
    present,
    rest_of,
    total_of,
    value_of,
)
from tokenworks.client.vocabulary import TokenClass


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
        prompt=_openai_prompt(value_of(usage, "prompt_tokens_details")),
        output_name="completion_tokens",
        output_details=value_of(usage, "completion_tokens_details"),
    )


def read_openai_responses(usage: object) -> Reading:
    """Read the Responses API: everything else is inside `input_tokens` and `output_tokens`."""
    return _read_inclusive(
        usage,
        input_name="input_tokens",
        prompt=_openai_prompt(value_of(usage, "input_tokens_details")),
        output_name="output_tokens",
        output_details=value_of(usage, "output_tokens_details"),
    )


def read_anthropic(usage: object) -> Reading:
    """Read messages: `input_tokens` excludes what was read from or written to a cache.

    `output_tokens` includes thinking. Tokens of compaction are only in `iterations` and are added.
    """
    iterations = value_of(usage, "iterations")
    parts = iterations if isinstance(iterations, list | tuple) else ()
    compactions = [part for part in parts if value_of(part, "type") == "compaction"]
    tokens: dict[TokenClass, int] = {}
    for part in (usage, *compactions):
        for token_class, count in _anthropic_part(part).items():
            tokens[token_class] = tokens.get(token_class, 0) + count
    generated = tokens[TokenClass.OUTPUT] + tokens[TokenClass.REASONING]
    return Reading(
        tokens=present(tokens),
        reported_input_count=sum(tokens.values()) - generated,
        reported_output_count=generated,
    )


def read_litellm(usage: object, *, unsaid: TokenClass = TokenClass.CACHE_WRITE_30M) -> Reading:
    """Read what LiteLLM makes of any provider's object: everything else is inside the totals.

    What was read from and written to a cache is named twice, in the details and beside them, and
    is counted once. `unsaid` is the class of written tokens of which nobody says how long they are
    kept.
    """
    details = value_of(usage, "prompt_tokens_details")
    cached = count_of(details, "cached_tokens") or count_of(usage, "cache_read_input_tokens")
    return _read_inclusive(
        usage,
        input_name="prompt_tokens",
        prompt=_prompt_parts(
            details, cached=cached, written=_litellm_written(usage, details, unsaid=unsaid)
        ),
        output_name="completion_tokens",
        output_details=value_of(usage, "completion_tokens_details"),
    )


def read_litellm_anthropic(usage: object) -> Reading:
    """Read what LiteLLM makes of an object of Anthropic, whose caches keep for 5 minutes."""
    return read_litellm(usage, unsaid=TokenClass.CACHE_WRITE_5M)


def read_bedrock(usage: object) -> Reading:
    """Read Bedrock's Converse: `inputTokens` excludes what was read from or written to a cache."""
    read, output = count_of(usage, "cacheReadInputTokens"), total_of(usage, "outputTokens")
    tokens = {
        TokenClass.INPUT: total_of(usage, "inputTokens"),
        TokenClass.CACHE_READ: read,
        **_bedrock_written(usage),
    }
    return Reading(
        tokens=present({**tokens, TokenClass.OUTPUT: output}),
        reported_input_count=sum(tokens.values()),
        reported_output_count=output,
    )


def read_deepseek(usage: object) -> Reading:
    """Read DeepSeek: the prompt is what its cache had and what it had not."""
    prompt, output = total_of(usage, "prompt_tokens"), total_of(usage, "completion_tokens")
    hit = count_of(usage, "prompt_cache_hit_tokens")
    missed = less(prompt, hit, name="prompt_tokens")
    is_told = value_of(usage, "prompt_cache_miss_tokens") is not None
    if is_told and count_of(usage, "prompt_cache_miss_tokens") != missed:
        raise Unfit("hits and misses do not sum to prompt_tokens")
    reasoning = count_of(value_of(usage, "completion_tokens_details"), "reasoning_tokens")
    tokens = {
        TokenClass.INPUT: missed,
        TokenClass.CACHE_READ: hit,
        TokenClass.OUTPUT: less(output, reasoning, name="completion_tokens"),
        TokenClass.REASONING: reasoning,
    }
    return Reading(
        tokens=present(tokens), reported_input_count=prompt, reported_output_count=output
    )


def read_llamacpp(timings: object) -> Reading:
    """Read the `timings` of llama.cpp: what was processed excludes what was cached."""
    tokens = {
        TokenClass.INPUT: total_of(timings, "prompt_n"),
        TokenClass.CACHE_READ: count_of(timings, "cache_n"),
    }
    output = total_of(timings, "predicted_n")
    return Reading(
        tokens=present({**tokens, TokenClass.OUTPUT: output}),
        reported_input_count=sum(tokens.values()),
        reported_output_count=output,
    )


def read_ollama(usage: object) -> Reading:
    """Read Ollama's last object: `prompt_eval_count` includes what was cached.

    Versions that leave it out where all was cached have no total, and are unfit.
    """
    prompt, output = total_of(usage, "prompt_eval_count"), total_of(usage, "eval_count")
    cached = count_of(usage, "prompt_eval_cached_count")
    tokens = {
        TokenClass.INPUT: less(prompt, cached, name="prompt_eval_count"),
        TokenClass.CACHE_READ: cached,
        TokenClass.OUTPUT: output,
    }
    return Reading(
        tokens=present(tokens), reported_input_count=prompt, reported_output_count=output
    )


PROFILES: Final[Mapping[str, Callable[[object], Reading]]] = {
    "openai": read_openai,
    "openai_responses": read_openai_responses,
    "anthropic": read_anthropic,
    "bedrock": read_bedrock,
    "deepseek": read_deepseek,
    "gemini": read_gemini,
    "litellm": read_litellm,
    "litellm_anthropic": read_litellm_anthropic,
    "llamacpp": read_llamacpp,
    "ollama": read_ollama,
}
"""Profiles by name."""
_TTLS: Final = {"5m": TokenClass.CACHE_WRITE_5M, "1h": TokenClass.CACHE_WRITE_1H}


def _read_inclusive(
    usage: object,
    *,
    input_name: str,
    prompt: Mapping[TokenClass, int],
    output_name: str,
    output_details: object,
) -> Reading:
    input_count = total_of(usage, input_name)
    output_count = total_of(usage, output_name)
    generated = {
        TokenClass.REASONING: count_of(output_details, "reasoning_tokens"),
        TokenClass.AUDIO_OUTPUT: count_of(output_details, "audio_tokens"),
        TokenClass.IMAGE_OUTPUT: count_of(output_details, "image_tokens"),
        TokenClass.VIDEO_OUTPUT: count_of(output_details, "video_tokens"),
    }
    tokens = {
        TokenClass.INPUT: rest_of(input_count, prompt, name=input_name),
        **prompt,
        TokenClass.OUTPUT: rest_of(output_count, generated, name=output_name),
        **generated,
    }
    return Reading(
        tokens=present(tokens),
        reported_input_count=input_count,
        reported_output_count=output_count,
    )


def _openai_prompt(details: object) -> dict[TokenClass, int]:
    cached = count_of(details, "cached_tokens")
    return _prompt_parts(details, cached=cached, written=_written(details))


def _prompt_parts(
    details: object, *, cached: int, written: Mapping[TokenClass, int]
) -> dict[TokenClass, int]:
    # What of audio, images and text was cached is told apart by some endpoints only; where it is
    # not, the cached tokens are text.
    cached_details = value_of(details, "cached_tokens_details")
    cached_other = {
        TokenClass.AUDIO_CACHE_READ: count_of(cached_details, "audio_tokens"),
        TokenClass.IMAGE_CACHE_READ: count_of(cached_details, "image_tokens"),
    }
    audio, image = count_of(details, "audio_tokens"), count_of(details, "image_tokens")
    audio_cached = cached_other[TokenClass.AUDIO_CACHE_READ]
    image_cached = cached_other[TokenClass.IMAGE_CACHE_READ]
    return {
        TokenClass.CACHE_READ: rest_of(cached, cached_other, name="cached_tokens"),
        **cached_other,
        TokenClass.AUDIO_INPUT: less(audio, audio_cached, name="audio_tokens"),
        TokenClass.IMAGE_INPUT: less(image, image_cached, name="image_tokens"),
        TokenClass.VIDEO_INPUT: count_of(details, "video_tokens"),
        **written,
    }


def _written(details: object) -> dict[TokenClass, int]:
    """Return tokens written to a cache by how long it keeps them: 30 minutes unless said."""
    written_details = value_of(details, "cache_write_tokens_details")
    short = count_of(written_details, "ttl_30m_tokens")
    long = count_of(written_details, "ttl_12h_tokens")
    if value_of(details, "cache_write_tokens") is not None:
        written = count_of(details, "cache_write_tokens")
        short += less(written, short + long, name="cache_write_tokens")
    return {TokenClass.CACHE_WRITE_30M: short, TokenClass.CACHE_WRITE_12H: long}


def _litellm_written(
    usage: object, details: object, *, unsaid: TokenClass
) -> dict[TokenClass, int]:
    """Return tokens written to a cache; three names have their total."""
    parts = value_of(details, "cache_creation_token_details")
    written = {
        TokenClass.CACHE_WRITE_5M: count_of(parts, "ephemeral_5m_input_tokens"),
        TokenClass.CACHE_WRITE_1H: count_of(parts, "ephemeral_1h_input_tokens"),
    }
    totals = (
        count_of(details, "cache_creation_tokens"),
        count_of(details, "cache_write_tokens"),
        count_of(usage, "cache_creation_input_tokens"),
    )
    total = max(totals)
    rest = rest_of(total, written, name="cache_creation_tokens") if total else 0
    return {**written, unsaid: written.get(unsaid, 0) + rest}


def _bedrock_written(usage: object) -> dict[TokenClass, int]:
    """Return tokens written to a cache by how long it keeps them: 5 minutes unless said."""
    total, details = count_of(usage, "cacheWriteInputTokens"), value_of(usage, "cacheDetails")
    if details is None:
        return {TokenClass.CACHE_WRITE_5M: total}
    written: dict[TokenClass, int] = {}
    for part in details if isinstance(details, list | tuple) else ():
        token_class = _TTLS.get(str(value_of(part, "ttl")))
        if token_class is None:
            raise Unfit("a ttl of cacheDetails is not known")
        written[token_class] = written.get(token_class, 0) + count_of(part, "inputTokens")
    if sum(written.values()) != total:
        raise Unfit("cacheDetails does not sum to cacheWriteInputTokens")
    return written


def _anthropic_part(part: object) -> dict[TokenClass, int]:
    output_count = total_of(part, "output_tokens")
    thinking = {
        TokenClass.REASONING: count_of(value_of(part, "output_tokens_details"), "thinking_tokens")
    }
    return {
        TokenClass.INPUT: total_of(part, "input_tokens"),
        TokenClass.CACHE_READ: count_of(part, "cache_read_input_tokens"),
        **_created(part),
        TokenClass.OUTPUT: rest_of(output_count, thinking, name="output_tokens"),
        **thinking,
    }


def _created(part: object) -> dict[TokenClass, int]:
    """Return tokens written to a cache; the total repeats its details and is not added to them."""
    details = value_of(part, "cache_creation")
    five_minutes = count_of(details, "ephemeral_5m_input_tokens")
    one_hour = count_of(details, "ephemeral_1h_input_tokens")
    if value_of(part, "cache_creation_input_tokens") is not None:
        total = count_of(part, "cache_creation_input_tokens")
        if details is None:
            five_minutes = total
        elif five_minutes + one_hour != total:
            raise Unfit("cache_creation does not sum to cache_creation_input_tokens")
    return {TokenClass.CACHE_WRITE_5M: five_minutes, TokenClass.CACHE_WRITE_1H: one_hour}
