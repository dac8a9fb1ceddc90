"""What today's tables make of a usage object that was kept as it came; pure.

A table that was wrong is mended for what comes; what came before is found by this.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from meter.domain.tokens import OUTPUT_CLASSES
from meter.sources import cloud_events, dynamo, envoy
from meter.sources.otlp import partition
from meter.sources.otlp_profiles import CACHE_WRITE, CACHE_WRITES, SpanProfile
from meter.sources.otlp_profiles import PROFILES as SPAN_PROFILES
from tokenworks.client.foreign import Unfit
from tokenworks.client.profiles import PROFILES, read_usage

_SPANS: Final = {it.name.partition("/")[0]: it for it in SPAN_PROFILES}
_DYNAMO: Final = dynamo.PROFILE.partition("/")[0]
# By its log service, and over OpenTelemetry.
_ENVOY: Final = frozenset({"envoy", "envoy_log"})
# Their originals are usage objects of providers, with the convention by which each was read.
_OF_PROVIDERS: Final = frozenset({"litellm", "cloud_events", "events"})


def find_reread(profile: str, original: Mapping[str, object]) -> dict[int, int] | None:
    """Return the counts above 0 by token class; None where the object does not tell enough.

    `profile` is the table, with its version, by which the object was read when it came.
    """
    table = profile.partition("/")[0]
    if table in _OF_PROVIDERS:
        return _of_provider(original)
    if table in _ENVOY:
        return envoy.reread(original)
    if table in _SPANS:
        return _of_spans(original, _SPANS[table])
    if table == _DYNAMO:
        names = ("input_tokens", "output_tokens", "cached_tokens")
        total, generated, cached = (_count(original, [name]) for name in names)
        return partition(
            total, generated, cached=cached, written=0, written_class=CACHE_WRITE, reasoning=0
        )
    return None


def _of_provider(original: Mapping[str, object]) -> dict[int, int] | None:
    convention = original.get("convention")
    if convention is None:
        return cloud_events.reread(original)
    if original.get("cache_hit") is True:
        return {}
    if not isinstance(convention, str) or convention not in PROFILES:
        return None
    try:
        reading = read_usage(original, profile=convention)
    except Unfit:
        return None
    return {int(number): count for number, count in reading.tokens.items() if count}


def _of_spans(original: Mapping[str, object], profile: SpanProfile) -> dict[int, int] | None:
    """Read a span, or several that are one report: of each prompt the input is there once."""
    spans = original.get("spans")
    if not isinstance(spans, list):
        return _of_span(original, profile)
    prompts: dict[object, dict[int, int]] = {}
    for span in spans:
        engine_id, tokens = span.get("request_id"), _of_span(span, profile)
        if not engine_id or tokens is None:
            return None
        known = prompts.setdefault(engine_id, {})
        for number, count in tokens.items():
            before = known.get(number, 0)
            known[number] = before + count if number in OUTPUT_CLASSES else max(before, count)
    found: dict[int, int] = {}
    for tokens in prompts.values():
        for number, count in tokens.items():
            found[number] = found.get(number, 0) + count
    return found


def _of_span(original: Mapping[str, object], profile: SpanProfile) -> dict[int, int] | None:
    written = _count(original, profile.cache_write)
    provider = original.get("provider")
    if written and provider is None:
        # For how long it was written is the provider's word, and was not kept once.
        return None
    return partition(
        _count(original, profile.input),
        _count(original, profile.output),
        cached=_count(original, profile.cache_read),
        written=written,
        written_class=CACHE_WRITES.get(str(provider), CACHE_WRITE),
        reasoning=_count(original, profile.reasoning),
    )


def _count(original: Mapping[str, object], names: Sequence[str]) -> int:
    """Return the first of these counts that is there, else 0."""
    for name in names:
        value = original.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0
