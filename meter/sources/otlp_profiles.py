"""What software calls the numbers of a request in its spans: a table each, with a version. Pure.

A table is chosen by who made the span, which its scope and resource say, never by what is in it.
Three generations of names are about: 1 is that of the engines, 2 OpenTelemetry's until 1.41, 3 that
of its repository for generative AI. In all of them the input has the cached tokens in it, and the
output the reasoning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meter.sources.observation import Source

_CACHE_READS: Final = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cached_tokens",
    "gen_ai.usage.cache_read_input_tokens",
)
_CACHE_WRITES: Final = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
)
_CACHE_WRITE_5M: Final = 3
_CACHE_WRITE_30M: Final = 4
# How long the caches of these keep what is written to them, where nobody says; all others as the
# tables of the client have it.
CACHE_WRITES: Final[Mapping[str, int]] = {
    "anthropic": _CACHE_WRITE_5M,
    "aws.bedrock": _CACHE_WRITE_5M,
    "gcp.vertex_ai.anthropic": _CACHE_WRITE_5M,
}
CACHE_WRITE: Final = _CACHE_WRITE_30M


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanProfile:
    """Where spans of one software have what; of several attributes the first that is there counts.

    `cuts_ids` tells that the id of a request is the engine's, made of the edge's; `has_choices`
    that each of several answers to a prompt has a span of its own, `has_own_ids` that the engine
    gives some requests an id in which the edge's is not, `has_only_own_ids` that it gives all of
    them such ones. Where `answer_count` is above 1, a span that has generated nothing tells the
    prompt, and the others their answer and that prompt again. Spans of the `skipped` operations sum
    up what others report, too. `was_seen` tells that the software itself has reported to a meter.
    """

    name: str
    source: Source = Source.SPAN
    input: tuple[str, ...]
    output: tuple[str, ...]
    cache_read: tuple[str, ...] = ()
    cache_write: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    provider: tuple[str, ...] = ()
    request_id: tuple[str, ...] = ("gen_ai.request.id",)
    model: tuple[str, ...] = ("gen_ai.request.model", "gen_ai.response.model")
    served_model: tuple[str, ...] = ()
    account: tuple[str, ...] = ()
    finish: tuple[str, ...] = ("gen_ai.response.finish_reasons",)
    operation: tuple[str, ...] = ()
    skipped: frozenset[str] = frozenset()
    cuts_ids: bool = False
    has_choices: bool = False
    has_own_ids: bool = False
    has_only_own_ids: bool = False
    answer_count: tuple[str, ...] = ()
    was_seen: bool = True

    @property
    def counts(self) -> tuple[str, ...]:
        """The attributes that are counts of tokens."""
        return (
            *self.input,
            *self.output,
            *self.cache_read,
            *self.cache_write,
            *self.reasoning,
        )

    @property
    def attributes(self) -> frozenset[str]:
        """All attributes that are looked at."""
        return frozenset(
            (
                *self.counts,
                *self.provider,
                *self.request_id,
                *self.model,
                *self.served_model,
                *self.account,
                *self.finish,
                *self.operation,
                *self.answer_count,
            )
        )


# vLLM 0.33: neither the model nor what was cached; a span for each of n answers, with the same id.
VLLM: Final = SpanProfile(
    name="vllm_span/1",
    input=("gen_ai.usage.prompt_tokens",),
    output=("gen_ai.usage.completion_tokens",),
    model=("gen_ai.response.model",),
    cuts_ids=True,
    has_choices=True,
    has_own_ids=True,
)
# SGLang 0.5.23: a span for each engine request, all with ids that it draws itself. It reads the
# prompt of several answers once for itself, then generates each of them.
SGLANG: Final = SpanProfile(
    name="sglang_span/1",
    input=("gen_ai.usage.prompt_tokens",),
    output=("gen_ai.usage.completion_tokens",),
    cache_read=("gen_ai.usage.cached_tokens",),
    model=("gen_ai.response.model",),
    has_only_own_ids=True,
    answer_count=("gen_ai.request.n",),
)
# Made of TensorRT-LLM's sources: it runs on GPUs alone, and was not seen.
TRTLLM: Final = SpanProfile(
    name="trtllm_span/1",
    was_seen=False,
    input=("gen_ai.usage.prompt_tokens",),
    output=("gen_ai.usage.completion_tokens",),
    model=("gen_ai.response.model", "gen_ai.request.model"),
    cuts_ids=True,
)
# LiteLLM 1.106, both of its tracers. Its own id of a call, since those of answers are not unique.
LITELLM: Final = SpanProfile(
    name="litellm_span/1",
    source=Source.LITELLM,
    input=("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    output=("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    cache_read=_CACHE_READS[:1],
    cache_write=_CACHE_WRITES[1:2],
    provider=("gen_ai.provider.name", "gen_ai.system"),
    request_id=("litellm.call_id",),
    served_model=("gen_ai.response.model",),
    account=(
        "litellm.team.id",
        "metadata.user_api_key_team_id",
        "metadata.user_api_key_org_id",
    ),
)
# Whoever else speaks OpenTelemetry's words. Agents and workflows sum up their calls.
GENAI: Final = SpanProfile(
    name="genai_span/1",
    input=("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    output=("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    cache_read=_CACHE_READS,
    cache_write=_CACHE_WRITES,
    reasoning=("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens"),
    provider=("gen_ai.provider.name", "gen_ai.system"),
    request_id=("gen_ai.request.id", "http.request.header.x-request-id", "gen_ai.response.id"),
    served_model=("gen_ai.response.model",),
    operation=("gen_ai.operation.name",),
    skipped=frozenset({"invoke_agent", "create_agent", "execute_tool", "invoke_workflow"}),
    cuts_ids=True,
)
PROFILES: Final = (VLLM, SGLANG, TRTLLM, LITELLM, GENAI)
# By how the name of the scope begins, the longest first.
_SCOPES: Final = (
    ("vllm.", VLLM),
    ("sglang", SGLANG),
    ("trt.llm", TRTLLM),
    ("tensorrt_llm", TRTLLM),
    ("litellm", LITELLM),
)
_VLLM_RESOURCE: Final = "vllm.instrumenting_module_name"
_SERVICES: Final[Mapping[str, SpanProfile]] = {"litellm": LITELLM}


def find_profile(scope: str, resource: Mapping[str, str]) -> SpanProfile:
    """Return the table for the spans of a scope; `resource` has the texts of the resource."""
    for beginning, profile in _SCOPES:
        if scope.startswith(beginning):
            return profile
    if _VLLM_RESOURCE in resource:
        return VLLM
    return _SERVICES.get(resource.get("service.name", ""), GENAI)
