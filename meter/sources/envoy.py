"""Envoy's access log: one entry of a request that is over is one report. Pure.

What the model's server counted is in the dynamic metadata: put there by Envoy's own filters from
the answer's usage object, or by Envoy AI Gateway. Which of a provider's conventions an object
follows is told by the path that was asked, never by which counts are there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from meter.sources.envoy_places import AiGatewayPlaces, EnvoyPlaces
from meter.sources.observation import Observation, Unreadable
from meter.sources.places import Places
from tokenworks.client.foreign import Unfit
from tokenworks.client.profiles import read_usage
from tokenworks.client.vocabulary import TokenClass

# Kept with the originals: what reads them, and how old that is.
PROFILE: Final = "envoy/1"
_NOT_TOLD: Final = 0
_DOWNSTREAM_END: Final = 6
_COMPLETED, _CANCELLED, _FAILED = 1, 3, 4
_FINAL, _PARTIAL = 1, 2
_ERROR_STATUS: Final = 400
# Every whole number up to here is a double, and no other number is taken for it.
_EXACT_MAX: Final = 2**53
_DIGITS_MAX: Final = 15
# The year 9999, where protobuf's times end.
_SECONDS_MAX: Final = 253_402_300_799
_GONE: Final = ("downstream_connection_termination", "downstream_remote_reset")
_BROKEN: Final = (
    "no_healthy_upstream",
    "upstream_request_timeout",
    "local_reset",
    "upstream_remote_reset",
    "upstream_connection_failure",
    "upstream_connection_termination",
    "upstream_overflow",
    "upstream_retry_limit_exceeded",
    "stream_idle_timeout",
    "upstream_max_stream_duration_reached",
    "duration_timeout",
    "upstream_protocol_error",
    "overload_manager",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Convention:
    """How a usage object is written: its two totals, and its details by where they stand in it.

    `profile` reads the object. An embedding has no output: `output` is "" then.
    """

    profile: str
    input: str
    output: str
    details: Mapping[str, tuple[str, ...]]


_OPENAI_DETAILS: Final = {
    "cached_tokens": ("prompt_tokens_details", "cached_tokens"),
    "cache_write_tokens": ("prompt_tokens_details", "cache_write_tokens"),
    "reasoning_tokens": ("completion_tokens_details", "reasoning_tokens"),
}
_OPENAI: Final = _Convention(
    profile="openai", input="prompt_tokens", output="completion_tokens", details=_OPENAI_DETAILS
)
_EMBEDDING: Final = _Convention(profile="openai", input="prompt_tokens", output="", details={})
_RESPONSES: Final = _Convention(
    profile="openai_responses",
    input="input_tokens",
    output="output_tokens",
    details={
        "cached_tokens": ("input_tokens_details", "cached_tokens"),
        "cache_write_tokens": ("input_tokens_details", "cache_write_tokens"),
        "reasoning_tokens": ("output_tokens_details", "reasoning_tokens"),
    },
)
_ANTHROPIC: Final = _Convention(
    profile="anthropic",
    input="input_tokens",
    output="output_tokens",
    details={
        "cache_read_input_tokens": ("cache_read_input_tokens",),
        "cache_creation_input_tokens": ("cache_creation_input_tokens",),
    },
)
# By how the path ends; the first that fits.
_ENDPOINTS: Final[Sequence[tuple[str, _Convention]]] = (
    ("/completions", _OPENAI),
    ("/responses", _RESPONSES),
    ("/messages", _ANTHROPIC),
    ("/embeddings", _EMBEDDING),
    ("/pooling", _EMBEDDING),
    ("/rerank", _EMBEDDING),
    ("/score", _EMBEDDING),
    ("/classify", _EMBEDDING),
)


# Under which names the counts of an AI gateway are kept, whatever they are called there.
_AI_GATEWAY: Final = "envoy_ai_gateway"
_KEPT_PLACES: Final = AiGatewayPlaces(
    input="input",
    cached_input="cached_input",
    cache_creation_input="cache_creation_input",
    output="output",
    reasoning="reasoning",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usage:
    """What an entry counts; `original` is what it was read from."""

    tokens: Mapping[int, int]
    reported_input: int
    reported_output: int
    original: Mapping[str, object]
    model: str = ""
    served_model: str = ""


def read(
    entries: Iterable[Any], *, node: str, places: Places, received_ms: int
) -> Iterator[Observation | Unreadable]:
    """Return what the entries (`HttpEntry`) of an Envoy's access log report.

    `node` is the Envoy's id. An entry of a request that goes on, of a single try, or without any
    count yields nothing. Times are in ms since 1970, UTC.
    """
    for entry in entries:
        if not _is_over(entry.common_properties):
            continue
        try:
            usage = _find_usage(entry, places.envoy)
            if usage is not None:
                yield _observe(entry, usage, node=node, places=places, received_ms=received_ms)
        except Unfit as error:
            yield Unreadable(reason=str(error))


def reread(original: Mapping[str, Any]) -> dict[int, int] | None:
    """Return what today's tables make of what was kept of an entry, None where they make nothing.

    Counts above 0 by the numbers of their classes.
    """
    profile = original.get("convention")
    if profile == _AI_GATEWAY:
        usage = _of_ai_gateway(original, _KEPT_PLACES)
        return dict(usage.tokens)
    # One without an output is of an embedding: of all others such an entry was not readable.
    conventions = (it for it in (_OPENAI, _RESPONSES, _ANTHROPIC) if it.profile == profile)
    convention = next(conventions, None)
    if convention is _OPENAI and _OPENAI.output not in original:
        convention = _EMBEDDING
    if convention is None:
        return None
    try:
        reading = read_usage(_to_object(original, convention), profile=convention.profile)
    except Unfit:
        return None
    return {int(number): count for number, count in reading.tokens.items() if count}


def _is_over(common: Any) -> bool:  # noqa: ANN401
    kind = common.access_log_type
    return kind == _DOWNSTREAM_END or (kind == _NOT_TOLD and not common.intermediate_log_entry)


def _observe(
    entry: Any,  # noqa: ANN401
    usage: _Usage,
    *,
    node: str,
    places: Places,
    received_ms: int,
) -> Observation:
    common, request = entry.common_properties, entry.request
    request_id = request.request_id or common.stream_id
    if not request_id:
        raise Unfit("an entry has neither request id nor stream id")
    finish = _finish(entry)
    duration_ms = _to_ms(common.duration)
    start_ms = _to_ms(common.start_time)
    own, headers = places.envoy, places.headers
    return Observation(
        report_id=f"envoy:{node}:{common.stream_id or request_id}",
        request_id=request_id,
        dimensions=places.to_dimensions(
            account=_at(entry, own.account or f"header:{headers.account}"),
            model=usage.model,
            served_model=usage.served_model,
            tier=_at(entry, own.tier or f"header:{headers.tier}"),
            pool=_at(entry, own.pool or f"header:{headers.pool}"),
            region=_at(entry, own.region or f"header:{headers.region}"),
        ),
        end_ms=start_ms + duration_ms if start_ms else received_ms,
        duration_ms=duration_ms,
        finish=finish,
        quality=_FINAL if finish == _COMPLETED else _PARTIAL,
        tokens=usage.tokens,
        reported_input=usage.reported_input,
        reported_output=usage.reported_output,
        original=usage.original,
    )


def _to_ms(time: Any) -> int:  # noqa: ANN401  a Timestamp or a Duration
    if not 0 <= time.seconds <= _SECONDS_MAX:
        raise Unfit("a time is out of range")
    return int(time.seconds) * 1000 + int(time.nanos) // 1_000_000


def _finish(entry: Any) -> int:  # noqa: ANN401
    """Return how a request ended; who went away went before whatever broke then."""
    flags = entry.common_properties.response_flags
    if any(getattr(flags, name) for name in _GONE):
        return _CANCELLED
    is_error = entry.response.response_code.value >= _ERROR_STATUS
    if is_error or any(getattr(flags, name) for name in _BROKEN):
        return _FAILED
    return _COMPLETED


def _find_usage(entry: Any, places: EnvoyPlaces) -> _Usage | None:  # noqa: ANN401
    """Return what an entry counts, None where nothing does; raises Unfit.

    The stock filters read the server's own answer: where they have something, it counts.
    """
    found = entry.common_properties.metadata.filter_metadata
    if places.namespace in found:
        convention = _convention(entry.request)
        totals = (convention.input, convention.output)
        counts = _counts(found[places.namespace].fields, (*totals, *convention.details))
        if any(name in counts for name in totals):
            usage = _by_convention(counts, convention)
            return _of_model(usage, entry, model=places.model, served_model=places.served_model)
    gateway = places.ai_gateway
    if gateway.namespace in found:
        keys = (gateway.input, gateway.output, *_gateway_details(gateway))
        counts = _counts(found[gateway.namespace].fields, keys)
        if counts:
            usage = _of_ai_gateway(counts, gateway)
            return _of_model(usage, entry, model=gateway.model, served_model=gateway.served_model)
    return None


def _of_model(usage: _Usage, entry: Any, *, model: str, served_model: str) -> _Usage:  # noqa: ANN401
    served = _at(entry, served_model)
    return replace(usage, model=_at(entry, model) or served, served_model=served)


def _convention(request: Any) -> _Convention:  # noqa: ANN401
    path = (request.original_path or request.path).partition("?")[0].rstrip("/")
    for ending, convention in _ENDPOINTS:
        if path.endswith(ending):
            return convention
    return _OPENAI


def _to_object(counts: Mapping[str, int], convention: _Convention) -> dict[str, Any]:
    """Return counts as the usage object that they were taken from."""
    usage: dict[str, Any] = {}
    for name, (first, *rest) in convention.details.items():
        if name not in counts:
            continue
        if rest:
            usage.setdefault(first, {})[rest[0]] = counts[name]
        else:
            usage[first] = counts[name]
    for name in (convention.input, convention.output):
        if name in counts:
            usage[name] = counts[name]
    if not convention.output:
        usage["completion_tokens"] = 0
    return usage


def _by_convention(counts: Mapping[str, int], convention: _Convention) -> _Usage:
    usage = _to_object(counts, convention)
    original = {"convention": convention.profile, **counts}
    try:
        reading = read_usage(usage, profile=convention.profile)
    except Unfit:
        misfit = _misfit(counts, convention)
        if misfit is None:
            raise
        return _Usage(original=original, **misfit)
    return _Usage(
        tokens={int(number): count for number, count in reading.tokens.items()},
        reported_input=reading.reported_input_count,
        reported_output=reading.reported_output_count,
        original=original,
    )


def _misfit(counts: Mapping[str, int], convention: _Convention) -> dict[str, Any] | None:
    """Return counts that the check sets aside as a mismatch; None where a total is missing."""
    if convention.input not in counts or convention.output not in counts:
        return None
    details = {
        TokenClass.CACHE_READ: counts.get("cached_tokens", 0),
        TokenClass.CACHE_WRITE_30M: counts.get("cache_write_tokens", 0),
        TokenClass.REASONING: counts.get("reasoning_tokens", 0),
    }
    return {
        "tokens": {
            int(number): count
            for number, count in (
                (TokenClass.INPUT, counts[convention.input]),
                (TokenClass.OUTPUT, counts[convention.output]),
                *details.items(),
            )
            if count
        },
        "reported_input": counts[convention.input],
        "reported_output": counts[convention.output],
    }


def _gateway_details(keys: AiGatewayPlaces) -> tuple[str, str, str]:
    return keys.cached_input, keys.cache_creation_input, keys.reasoning


def _of_ai_gateway(counts: Mapping[str, int], keys: AiGatewayPlaces) -> _Usage:
    """Read what Envoy AI Gateway counts: its input includes caches, whoever the provider is."""
    if keys.input not in counts or keys.output not in counts:
        raise Unfit("a total of the AI gateway is missing")
    total, generated = counts[keys.input], counts[keys.output]
    cached, written, reasoning = (counts.get(key, 0) for key in _gateway_details(keys))
    # Where a part exceeds its total the sums do not fit, and the check sets the event aside.
    parts = (
        (TokenClass.INPUT, max(total - cached - written, 0)),
        (TokenClass.CACHE_READ, cached),
        (TokenClass.CACHE_WRITE_5M, written),
        (TokenClass.OUTPUT, max(generated - reasoning, 0)),
        (TokenClass.REASONING, reasoning),
    )
    return _Usage(
        tokens={int(number): count for number, count in parts if count},
        reported_input=total,
        reported_output=generated,
        original={
            "convention": _AI_GATEWAY,
            _KEPT_PLACES.input: total,
            _KEPT_PLACES.cached_input: cached,
            _KEPT_PLACES.cache_creation_input: written,
            _KEPT_PLACES.output: generated,
            _KEPT_PLACES.reasoning: reasoning,
        },
    )


def _counts(fields: Any, names: Iterable[str]) -> dict[str, int]:  # noqa: ANN401
    """Return the counts that are there; raises Unfit for what is none."""
    found = {}
    for name in names:
        if name in fields:
            value = fields[name]
            kind = value.WhichOneof("kind")
            if kind == "null_value":
                continue
            found[name] = _count(getattr(value, kind) if kind else None)
    return found


def _count(value: object) -> int:
    """Return a count, which came as a double, or as digits where the filter wrote a string."""
    if isinstance(value, float) and value.is_integer() and 0 <= value <= _EXACT_MAX:
        return int(value)
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isdecimal()
        and len(value) <= _DIGITS_MAX
    ):
        return int(value)
    raise Unfit("a count is no whole number")


def _at(entry: Any, place: str) -> str:  # noqa: ANN401
    common = entry.common_properties
    kind, _, name = place.partition(":")
    if kind == "header":
        return str(entry.request.request_headers.get(name, ""))
    if kind == "tag":
        return str(common.custom_tags.get(name, ""))
    if kind == "cluster":
        return str(common.upstream_cluster)
    if kind == "route":
        return str(common.route_name)
    namespace, _, key = name.rpartition("/")
    found = common.metadata.filter_metadata
    if namespace not in found or key not in found[namespace].fields:
        return ""
    return str(found[namespace].fields[key].string_value)
