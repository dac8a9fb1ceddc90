"""The line about who reports beside producers: how far engines are off, when sources were heard."""

from typing import Final

from cli.top.counters import Drift, Sample
from meter.engine_drift import DRIFT_PPM_MAX, QUIET_SECONDS_MAX

_PPM_OF_PERCENT: Final = 10_000


def find_worst(sample: Sample) -> tuple[Drift, float] | None:
    """Return the drift of yesterday that is furthest from 0, in millionths; None without any."""
    return max(sample.drifts_ppm.items(), key=lambda it: (abs(it[1]), it[0]), default=None)


def find_ages(sample: Sample, *, now_ms: int) -> dict[str, float]:
    """Return for how many seconds each source was not heard, the longest first.

    Those of a sandbox were heard by a clock of its own, and are left out.
    """
    if sample.is_sandbox:
        return {}
    return {
        source: max(0.0, now_ms / 1000 - heard)
        for source, heard in sorted(sample.sources_heard.items(), key=lambda it: (it[1], it[0]))
    }


def write_reports(sample: Sample, *, now_ms: int) -> list[tuple[str, str]]:
    """Return the parts of the line, each with its style; none where there is nothing to say."""
    parts = []
    worst = find_worst(sample)
    if worst is not None:
        (pool, model, kind), ppm = worst
        percent = f"{ppm / _PPM_OF_PERCENT:+.2f} %"
        said = f"engines {percent} yesterday, {kind} of {model or 'all'} in {pool}"
        parts.append((said, "bold yellow" if abs(ppm) > DRIFT_PPM_MAX else "green"))
    for source, age in find_ages(sample, now_ms=now_ms).items():
        style = "yellow" if age > QUIET_SECONDS_MAX else "green"
        parts.append((f"{source} heard {age:,.0f} s ago", style))
    return parts
