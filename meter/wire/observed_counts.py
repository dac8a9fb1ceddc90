"""What becomes of reports, as metrics have it."""

from collections.abc import Mapping
from typing import Final

from meter.domain.outcome import Outcome
from meter.journal.commit import Result
from meter.metrics import Metrics
from meter.sources.observation import Source

_RESULTS: Final = {
    Outcome.RECORDED: "counted",
    Outcome.DUPLICATE: "duplicate",
    Outcome.OBSERVED: "observed",
}


def note_outcomes(metrics: Metrics, counts: Mapping[int, int]) -> None:
    """Note how many events had each outcome."""
    for number, count in counts.items():
        if count:
            metrics.events.labels(Outcome(number).name).inc(count)


def note_observed(
    metrics: Metrics, source: Source, counts: Mapping[int, int], *, now_ms: int
) -> None:
    """Note that a source was heard, and how many of its reports had each outcome."""
    name = source.name.lower()
    metrics.source_heard.labels(name).set(now_ms / 1000)
    note_outcomes(metrics, counts)
    for number, count in counts.items():
        if count:
            result = _RESULTS.get(Outcome(number), "set_aside")
            metrics.observations.labels(name, result).inc(count)


def note_differing(metrics: Metrics, source: Source, result: Result) -> None:
    """Note reports that do not say what is counted."""
    if result.differing_count:
        name = source.name.lower()
        metrics.observation_conflicts.labels(name).inc(result.differing_count)
