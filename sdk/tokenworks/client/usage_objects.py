"""What is kept of a provider's usage object: counts under the names that providers have. Pure.

An allow-list, since the object is somebody else's: whatever has another name, or is no number, may
be a prompt for all that we know, and is left out. So nothing else ever leaves the process that saw
the object, and the meter, which does not believe that, keeps nothing else either.

Objects of a batch travel together: JSON packed by zlib, for each set of names the names, the places
of the events that have them, and a column of values for each.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from tokenworks.client import limits
from tokenworks.client.foreign import Unfit, guarded
from tokenworks.client.profiles import PROFILES

UsageObject: TypeAlias = Mapping[str, object]
"""What is kept of an object; `convention` names the profile that reads it."""


def keep_usage(usage: object, *, profile: str) -> dict[str, object] | None:
    """Return what is kept of an object, a mapping or one with attributes; None where nothing is."""
    if profile not in PROFILES:
        return None
    counts = kept(usage)
    return {_CONVENTION: profile, **counts} if counts else None


def find_usage(usage: object, *, profile: str) -> dict[str, object] | None:
    """Return what is kept of an object of anybody's; None, too, where it cannot be looked at."""
    try:
        return guarded(lambda: keep_usage(usage, profile=profile))
    except Unfit:
        return None


def pack(usages: Sequence[UsageObject | None]) -> bytes:
    """Return the objects of a batch's events, packed.

    Raises ValueError where they are too large together; one that is so alone is left out.
    """
    sets: dict[tuple[str, ...], tuple[list[int], list[UsageObject]]] = {}
    for place, usage in enumerate(usages):
        if usage:
            places, objects = sets.setdefault(tuple(usage), ([], []))
            places.append(place)
            objects.append(usage)
    columns = [
        (names, places, list(zip(*[each.values() for each in objects], strict=True)))
        for names, (places, objects) in sets.items()
    ]
    text = _encode(columns).encode() if columns else b""
    if len(text) > limits.USAGE_OBJECTS_BYTES_MAX:
        if len(usages) > 1:
            raise ValueError("usage objects too large")
        return b""
    return zlib.compress(text, _LEVEL) if text else b""


def unpack(packed: bytes, *, count: int) -> dict[int, dict[str, object]]:
    """Return what is kept of objects that were packed, by the place of their event below `count`.

    Whoever packed them may have put anything into them. Raises ValueError for other bytes.
    """
    reading = zlib.decompressobj()
    try:
        text = reading.decompress(packed, limits.USAGE_OBJECTS_BYTES_MAX)
        if not reading.eof:
            raise ValueError("these are no whole usage objects")
        found: dict[int, dict[str, object]] = {}
        for names, places, columns in json.loads(text):
            for place, values in zip(places, zip(*columns, strict=True), strict=True):
                usage = dict(zip(names, values, strict=True))
                again = keep_usage(usage, profile=str(usage.get(_CONVENTION)))
                if again is not None and isinstance(place, int) and 0 <= place < count:
                    found[place] = again
    except (zlib.error, TypeError, RecursionError) as error:
        raise ValueError("these are no packed usage objects") from error
    return found


_CONVENTION: Final = "convention"
_LEVEL: Final = 1
_encode: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
_COUNT_NAMES: Final = frozenset(
    {
        "accepted_prediction_tokens",
        "audio_tokens",
        "cacheReadInputTokens",
        "cacheWriteInputTokens",
        "cache_creation_input_tokens",
        "cache_creation_tokens",
        # Of LiteLLM, which answers by itself then: nothing of the counts went to a model.
        "cache_hit",
        "cache_n",
        "cache_read_input_tokens",
        "cache_write_tokens",
        "cachedContentTokenCount",
        "cached_content_token_count",
        "cached_tokens",
        "candidatesTokenCount",
        "candidates_token_count",
        "completion_tokens",
        "created_cache_tokens",
        "ephemeral_1h_input_tokens",
        "ephemeral_5m_input_tokens",
        "eval_count",
        "image_tokens",
        "inputTokens",
        "input_tokens",
        "outputTokens",
        "output_tokens",
        "predicted_n",
        "prompt_cache_hit_tokens",
        "prompt_cache_miss_tokens",
        "prompt_eval_cached_count",
        "prompt_eval_count",
        "prompt_n",
        "promptTokenCount",
        "prompt_token_count",
        "prompt_tokens",
        "reasoning_tokens",
        "rejected_prediction_tokens",
        "text_tokens",
        "thinking_tokens",
        "thoughtsTokenCount",
        "thoughts_token_count",
        "tokenCount",
        "token_count",
        "toolUsePromptTokenCount",
        "tool_output_tokens",
        "tool_use_prompt_token_count",
        "tool_use_tokens",
        "totalTokenCount",
        "totalTokens",
        "total_token_count",
        "total_tokens",
        "ttl_12h_tokens",
        "ttl_30m_tokens",
        "video_tokens",
    }
)
_PART_NAMES: Final = frozenset(
    {
        "cache_creation",
        "cache_creation_token_details",
        "cache_write_tokens_details",
        "cached_tokens_details",
        "completion_tokens_details",
        "input_tokens_details",
        "output_tokens_details",
        "prompt_tokens_details",
        "timings",
    }
)
# Parts in a list, each of whose kinds is one of few words under one of few names.
_MODALITIES: Final = frozenset({"AUDIO", "DOCUMENT", "IMAGE", "TEXT", "VIDEO"})
_PART_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "modality": _MODALITIES,
    "ttl": frozenset({"1h", "5m"}),
    "type": frozenset({"compaction", "message"}),
}
_LIST_NAMES: Final = frozenset(
    {
        "cacheDetails",
        "cacheTokensDetails",
        "cache_tokens_details",
        "candidatesTokensDetails",
        "candidates_tokens_details",
        "iterations",
        "promptTokensDetails",
        "prompt_tokens_details",
    }
)
_LIST_MAX: Final = 64
_DEPTH_MAX: Final = 3
_COUNT_MAX: Final = 2**63
_NAMES: Final = _COUNT_NAMES | _PART_NAMES | _LIST_NAMES | _PART_KINDS.keys()
# What is neither an object nor a mapping.
_PLAIN: Final = (str, bytes, bytearray, int, float, list, tuple)


def kept(usage: object, *, depth: int = 0) -> dict[str, object]:
    """Return the counts of a usage object, and nothing else that it holds."""
    found: dict[str, object] = {}
    for name, value in _members(usage).items():
        if name in _COUNT_NAMES and isinstance(value, int | float) and abs(value) < _COUNT_MAX:
            found[name] = value
        elif depth >= _DEPTH_MAX or value is None:
            continue
        elif name in _LIST_NAMES and isinstance(value, list | tuple):
            found[name] = [_kept_part(part, depth=depth + 1) for part in value[:_LIST_MAX]]
        elif name in _PART_NAMES and not isinstance(value, _PLAIN):
            found[name] = kept(value, depth=depth + 1)
    return found


def _kept_part(part: object, *, depth: int) -> dict[str, object]:
    if isinstance(part, _PLAIN):
        return {}
    members = _members(part)
    # In a provider's library a word may be an enumeration's member, whose value it is.
    kinds = {name: getattr(members.get(name), "value", members.get(name)) for name in _PART_KINDS}
    told: dict[str, object] = {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, str) and kind in _PART_KINDS[name]
    }
    return {**told, **kept(part, depth=depth)}


def _members(usage: object) -> Mapping[str, Any]:
    """Return what an object has under the names that are looked at."""
    if isinstance(usage, Mapping):
        return usage
    # A pydantic model has what its class does not declare in a place of its own.
    own = {**getattr(usage, "__dict__", {}), **(getattr(usage, "__pydantic_extra__", None) or {})}
    names = _NAMES.intersection(own) if own else _NAMES
    return {name: getattr(usage, name, None) for name in names}
