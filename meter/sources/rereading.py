"""What today's tables make of a usage object that was kept as it came; pure.

A table that was wrong is mended for what comes; what came before is found by this.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from meter.sources.otlp import partition
from meter.sources.otlp_logs import DYNAMO_PROFILE
from meter.sources.otlp_profiles import CACHE_WRITE, SpanProfile
from meter.sources.otlp_profiles import PROFILES as SPAN_PROFILES
from tokenworks.client.foreign import Unfit
from tokenworks.client.profiles import PROFILES, read_usage

_SPANS: Final = {it.name.partition("/")[0]: it for it in SPAN_PROFILES}
_DYNAMO: Final = DYNAMO_PROFILE.partition("/")[0]
# Their originals are usage objects of providers, with the convention by which each was read.
_OF_PROVIDERS: Final = frozenset({"litellm", "cloud_events", "events"})


def find_reread(profile: str, original: Mapping[str, object]) -> dict[int, int] | None:
    """Return the counts above 0 by token class; None where the object does not tell enough.

    `profile` is the table, with its version, by which the object was read when it came.
    """
    table = profile.partition("/")[0]
    if table in _OF_PROVIDERS:
        return _of_provider(original)
    if table in _SPANS:
        return _of_spans(original, _SPANS[table])
    if table == _DYNAMO:
        names = ("input_tokens", "output_tokens", "cached_tokens")
        return _parts(*(_count(original, [name]) for name in names), written=0, reasoning=0)
    return None


def _of_provider(original: Mapping[str, object]) -> dict[int, int] | None:
    convention = original.get("convention")
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
    if "spans" in original:
        # How the answers of several spans add up is not told by their counts.
        return None
    return _parts(
        _count(original, profile.input),
        _count(original, profile.output),
        _count(original, profile.cache_read),
        written=_count(original, profile.cache_write),
        reasoning=_count(original, profile.reasoning),
    )


def _parts(
    total: int, generated: int, cached: int, *, written: int, reasoning: int
) -> dict[int, int] | None:
    if written:
        # For how long it was written is the provider's word, and not a count.
        return None
    return partition(
        total,
        generated,
        cached=cached,
        written=0,
        written_class=CACHE_WRITE,
        reasoning=reasoning,
    )


def _count(original: Mapping[str, object], names: Sequence[str]) -> int:
    """Return the first of these counts that is there, else 0."""
    for name in names:
        value = original.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0
