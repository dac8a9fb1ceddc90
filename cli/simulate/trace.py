"""Traces: when requests arrived, and how long their prompts and answers were."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# The meter's own bound for one class of one event.
TOKEN_COUNT_MAX: Final = 1_000_000_000
_MILLISECOND: Final = timedelta(milliseconds=1)


class TraceUnreadable(ValueError):
    """A trace file lacks a column, or a line of it is no request; the message names the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request: milliseconds since the trace's first one, tokens of prompt and of answer, ≥ 0."""

    time_ms: int
    context_count: int
    generated_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One service's requests: its share, medians and spreads (of the logarithm), and maxima."""

    share: float
    context_median: int
    context_spread: float
    context_max: int
    generated_median: int
    generated_spread: float
    generated_max: int


# Conversations and code completions in the shares and lengths of the public Azure traces of 2023.
_CONVERSATION: Final = _Kind(
    share=0.69,
    context_median=950,
    context_spread=0.9,
    context_max=14_050,
    generated_median=150,
    generated_spread=0.8,
    generated_max=1_000,
)
_CODE: Final = _Kind(
    share=0.31,
    context_median=1_450,
    context_spread=1.1,
    context_max=7_437,
    generated_median=13,
    generated_spread=1.0,
    generated_max=1_899,
)

# Arrivals take turns between a calm and a busy phase: requests a second, and seconds it lasts.
_CALM: Final = (5.0, 25.0)
_BUSY: Final = (24.0, 5.0)


def read_trace(path: Path) -> list[Arrival]:
    """Read a CSV file with the Azure columns, in order of arrival; raises TraceUnreadable.

    TIMESTAMP is ISO 8601, in UTC where it names no zone; parts below a millisecond are dropped.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise TraceUnreadable(f"{path}: no column {', '.join(missing)}")
        read = [_from_row(row, where=f"{path}:{rows.line_num}") for row in rows]
    if not read:
        raise TraceUnreadable(f"{path}: no requests")
    read.sort(key=lambda entry: entry[0])
    first = read[0][0]
    return [
        Arrival(
            time_ms=(instant - first) // _MILLISECOND,
            context_count=context,
            generated_count=generated,
        )
        for instant, context, generated in read
    ]


def generated_trace(*, request_count: int, seed: int) -> list[Arrival]:
    """Make a trace of the same shape: skewed lengths, arrivals in bursts. Same seed, same trace."""
    random = seeded(f"trace {seed}")
    times = _arrival_seconds(random)
    return [_arrival(random, second=next(times)) for _ in range(request_count)]


def seeded(seed: str) -> Random:
    """Return a source of numbers that repeats itself; nothing secret is made of it."""
    return Random(seed)  # noqa: S311 - a simulation has to be repeatable


def _from_row(row: dict[str, str | None], *, where: str) -> tuple[datetime, int, int]:
    timestamp, context, generated = (row[name] for name in COLUMNS)
    try:
        instant = datetime.fromisoformat(timestamp or "")
        counts = (int(context or ""), int(generated or ""))
    except ValueError as error:
        raise TraceUnreadable(f"{where}: {error}") from error
    if not all(0 <= count <= TOKEN_COUNT_MAX for count in counts):
        raise TraceUnreadable(f"{where}: a count is below 0 or above {TOKEN_COUNT_MAX:,}")
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC), *counts)


def _arrival_seconds(random: Random) -> Iterator[float]:
    """Yield seconds since the first arrival, which is at 0, without end."""
    now, phase_end, phase = 0.0, _CALM[1], _CALM
    while True:
        yield now
        now += random.expovariate(phase[0])
        if now > phase_end:
            phase = _BUSY if phase is _CALM else _CALM
            phase_end = now + random.expovariate(1 / phase[1])


def _arrival(random: Random, *, second: float) -> Arrival:
    kind = _CODE if random.random() < _CODE.share else _CONVERSATION
    context = random.lognormvariate(math.log(kind.context_median), kind.context_spread)
    generated = random.lognormvariate(math.log(kind.generated_median), kind.generated_spread)
    return Arrival(
        time_ms=int(second * 1000),
        context_count=min(max(int(context), 1), kind.context_max),
        generated_count=min(max(int(generated), 1), kind.generated_max),
    )
