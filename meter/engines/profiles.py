"""How engines name their own token counters: one row an engine, moved with what it means. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meter.engine_drift import TokenKind


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """An engine's counters by their names on its page, and the label that has the model.

    All of its metrics begin with `prefix`: by that a page is known before it has counted anything.
    `name` moves when the meaning of a row does: what a counter shows then is where it stands, and
    nothing is counted of what it showed before. Without a `model_label` the counters are of all
    that the engine serves.
    """

    name: str
    prefix: str
    counters: Mapping[str, TokenKind]
    model_label: str


PROFILES: Final = (
    # Both grow with each step, also for work that is given up later. A request for n answers counts
    # its prompt n times.
    EngineProfile(
        name="vllm/1",
        prefix="vllm:",
        counters={
            "vllm:prompt_tokens_total": TokenKind.PROMPT,
            "vllm:generation_tokens_total": TokenKind.OUTPUT,
        },
        model_label="model_name",
    ),
    # Both grow when a request ends, also one that is given up, and are not there before the first.
    # A request for n answers counts its prompt n + 1 times: it is read once ahead of them.
    EngineProfile(
        name="sglang/1",
        prefix="sglang:",
        counters={
            "sglang:prompt_tokens_total": TokenKind.PROMPT,
            "sglang:generation_tokens_total": TokenKind.OUTPUT,
        },
        model_label="model_name",
    ),
    EngineProfile(
        name="trtllm/1",
        prefix="trtllm_",
        counters={
            "trtllm_prompt_tokens_total": TokenKind.PROMPT,
            "trtllm_generation_tokens_total": TokenKind.OUTPUT,
        },
        model_label="model_name",
    ),
    # What it took from its cache was not processed, and is counted apart, or by older ones nowhere.
    EngineProfile(
        name="llamacpp/1",
        prefix="llamacpp:",
        counters={
            "llamacpp:prompt_tokens_total": TokenKind.UNCACHED_PROMPT,
            "llamacpp:tokens_predicted_total": TokenKind.OUTPUT,
        },
        model_label="",
    ),
)
# Engines that do not know their model write this.
UNKNOWN_MODEL: Final = "undefined"
