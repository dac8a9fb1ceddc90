"""What is kept of a provider's usage object: counts under the names that providers have. Pure.

An allow-list, since the object is somebody else's: whatever has another name, or is no number, may
be a prompt for all that we know, and is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Final

_COUNT_NAMES: Final = frozenset(
    {
        "accepted_prediction_tokens",
        "audio_tokens",
        "cacheReadInputTokens",
        "cacheWriteInputTokens",
        "cache_creation_input_tokens",
        "cache_creation_tokens",
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


def kept(usage: Mapping[str, object], *, depth: int = 0) -> dict[str, object]:
    """Return the counts of a usage object, and nothing else that it holds."""
    found: dict[str, object] = {}
    for name, value in usage.items():
        if name in _COUNT_NAMES and isinstance(value, int | float) and abs(value) < _COUNT_MAX:
            found[name] = value
        elif depth >= _DEPTH_MAX:
            continue
        elif name in _PART_NAMES and isinstance(value, Mapping):
            found[name] = kept(value, depth=depth + 1)
        elif name in _LIST_NAMES and isinstance(value, Sequence) and not isinstance(value, str):
            found[name] = [
                _kept_part(part, depth=depth + 1)
                for part in value[:_LIST_MAX]
                if isinstance(part, Mapping)
            ]
    return found


def _kept_part(part: Mapping[str, object], *, depth: int) -> dict[str, object]:
    kinds = {name: part.get(name) for name in _PART_KINDS}
    told = {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, str) and kind in _PART_KINDS[name]
    }
    return {**told, **kept(part, depth=depth)}
