"""Where Envoy's access log has the account, the tier, the model and the counts. Pure.

A place is a text: `header:NAME` is a request header that the log's configuration names, `tag:NAME`
one of its custom tags, `metadata:NAMESPACE/KEY` what a filter has found out, `cluster` the upstream
cluster and `route` the route's name.
"""

from dataclasses import dataclass, field
from typing import Any, Final

_KINDS: Final = ("header", "tag", "metadata")
_PLAIN: Final = ("cluster", "route")


def place_fault(place: str) -> str | None:
    """Return what is wrong with a place as it is written, None where nothing is."""
    kind, _, rest = place.partition(":")
    if place in _PLAIN:
        return None
    if kind not in _KINDS or not rest:
        return "is no place: header:NAME, tag:NAME, metadata:NAMESPACE/KEY, cluster or route"
    if kind == "header" and rest != rest.lower():
        return "names a header in capitals: Envoy logs them in small letters"
    namespace, _, key = rest.rpartition("/")
    if kind == "metadata" and not (namespace and key):
        return "has no key: metadata:NAMESPACE/KEY"
    return None


def _place(default: str) -> Any:  # noqa: ANN401  a field of the classes below
    return field(default=default, metadata={"fault": place_fault})


@dataclass(frozen=True, slots=True, kw_only=True)
class AiGatewayPlaces:
    """Where Envoy AI Gateway writes: a namespace, and for each type of cost the operator's key."""

    namespace: str = "io.envoy.ai_gateway"
    model: str = _place("header:x-ai-eg-model")
    served_model: str = _place("metadata:io.envoy.ai_gateway/response_model")
    input: str = "llm_input_token"
    cached_input: str = "llm_cached_input_token"
    cache_creation_input: str = "llm_cache_creation_input_token"
    output: str = "llm_output_token"
    reasoning: str = "llm_reasoning_token"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyPlaces:
    """The places of Envoy.

    In the metadata of `namespace` the stock filters put the counts, by the names of the answer's
    own usage object. An empty account, tier, pool or region is where `headers` has it.
    """

    namespace: str = "tokenworks"
    model: str = _place("metadata:tokenworks/model")
    served_model: str = _place("metadata:tokenworks/served_model")
    account: str = _place("")
    tier: str = _place("")
    pool: str = _place("")
    region: str = _place("")
    ai_gateway: AiGatewayPlaces = field(default_factory=AiGatewayPlaces)
