"""What an energy counter says since it was last read: its energy, its resets, its gaps; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.domain.limits import COUNTER_KEPT_MS, COUNTER_SLACK_MS
from meter.energy.attribute import apportion

# Pool and device.
DeviceKey: TypeAlias = tuple[str, str]


class Source(StrEnum):
    """Where a reading comes from; the values are those of SQL and of the metrics."""

    DCGM = "dcgm"
    REPORTED = "reported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A counter of a pool's device as it stood at a time (ms since 1970, UTC): whole mJ from 0."""

    pool: str
    device: str
    time_ms: int
    counter_mj: int

    @property
    def key(self) -> DeviceKey:
        """Whose counter it is."""
        return self.pool, self.device


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """Where a device's counter stood when it was last seen to move."""

    time_ms: int
    counter_mj: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is believed of one kind of counter.

    `watts_max` is more than such a device ever draws. Samples more than `gap_ms` apart do not tell
    when their energy was used.
    """

    watts_max: int
    gap_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """A counter's new state and what happened in `[start_ms, end_ms)`, which is empty at first.

    `is_reset` says that the counter began anew, or leapt beyond what its device can use. `is_gap`
    says that the samples lie too far apart, or that the energy between them is not known.
    """

    counter: Counter
    start_ms: int
    end_ms: int
    energy_mj: int = 0
    is_reset: bool = False
    is_gap: bool = False


@dataclass(slots=True, kw_only=True)
class IntervalEnergy:
    """What is added to a pool's interval: energy in mJ, of which `gap_mj` fell into gaps.

    `gap_ms` is the length of the gaps, added up over the devices.
    """

    measured_mj: int = 0
    gap_mj: int = 0
    gap_ms: int = 0
    reset_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyDelta:
    """What a round of readings adds, by pool and begin of the interval (ms since 1970, UTC)."""

    intervals: dict[tuple[str, int], IntervalEnergy] = field(default_factory=dict)

    def add(self, pool: str, advance: Advance) -> None:
        """Add what one counter did, split at the edges of intervals in proportion to time."""
        spans = _spans(advance.start_ms, advance.end_ms)
        energy = apportion(advance.energy_mj, spans) if spans else {}
        for start_ms, length_ms in spans.items():
            sums = self.intervals.setdefault((pool, start_ms), IntervalEnergy())
            sums.measured_mj += energy[start_ms]
            if advance.is_gap:
                sums.gap_mj += energy[start_ms]
                sums.gap_ms += length_ms
        if advance.is_reset:
            # Wherever in between it was, it is noticed at the end.
            self.intervals[pool, max(spans)].reset_count += 1

    def by_pool(self) -> dict[str, IntervalEnergy]:
        """Return the sums over all intervals."""
        totals: dict[str, IntervalEnergy] = {}
        for (pool, _), sums in self.intervals.items():
            total = totals.setdefault(pool, IntervalEnergy())
            total.measured_mj += sums.measured_mj
            total.gap_mj += sums.gap_mj
            total.gap_ms += sums.gap_ms
            total.reset_count += sums.reset_count
        return totals


def advance(last: Counter | None, reading: Reading, *, bounds: Bounds) -> Advance | None:
    """Return what a reading adds to what is known of its counter; None when it adds nothing.

    A reading adds nothing when it is not newer than the last one, or when the counter stands
    still: an exporter repeats what it collected last, and the time of what comes next is counted
    from when the counter last moved. The first reading, and one after too long a silence, only
    say where the counter stands.
    """
    counter = Counter(time_ms=reading.time_ms, counter_mj=reading.counter_mj)
    if last is None or reading.time_ms - last.time_ms > COUNTER_KEPT_MS:
        return Advance(counter=counter, start_ms=reading.time_ms, end_ms=reading.time_ms)
    passed_ms = reading.time_ms - last.time_ms
    if passed_ms <= 0 or reading.counter_mj == last.counter_mj:
        return None
    is_reset = reading.counter_mj < last.counter_mj
    # A counter that began anew at 0 holds what was used since.
    energy_mj = reading.counter_mj - (0 if is_reset else last.counter_mj)
    # A watt is a millijoule a millisecond.
    is_known = energy_mj <= bounds.watts_max * (passed_ms + COUNTER_SLACK_MS)
    return Advance(
        counter=counter,
        start_ms=last.time_ms,
        end_ms=reading.time_ms,
        energy_mj=energy_mj if is_known else 0,
        is_reset=is_reset or not is_known,
        is_gap=passed_ms > bounds.gap_ms or not is_known,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round of readings does: the counters that moved, and what that adds."""

    counters: Mapping[DeviceKey, Counter]
    delta: EnergyDelta
    advance_count: int


def take(
    readings: Iterable[Reading], *, known: Mapping[DeviceKey, Counter], bounds: Bounds
) -> Round:
    """Take readings in the order of their times; `known` are their devices' counters so far."""
    moved: dict[DeviceKey, Counter] = {}
    delta = EnergyDelta()
    advance_count = 0
    for reading in sorted(readings, key=lambda it: it.time_ms):
        last = moved.get(reading.key) or known.get(reading.key)
        step = advance(last, reading, bounds=bounds)
        if step is None:
            continue
        moved[reading.key] = step.counter
        delta.add(reading.pool, step)
        advance_count += 1
    return Round(counters=moved, delta=delta, advance_count=advance_count)


def highest(readings: Iterable[Reading]) -> list[Reading]:
    """Return one reading for each device, its highest: two exporters may see the same board.

    All of them were taken in one round.
    """
    found: dict[DeviceKey, Reading] = {}
    for reading in readings:
        other = found.get(reading.key)
        if other is None or other.counter_mj < reading.counter_mj:
            found[reading.key] = reading
    return [found[key] for key in sorted(found)]


def _spans(start_ms: int, end_ms: int) -> dict[int, int]:
    """Return how much of a span lies in each interval, by the interval's begin."""
    begins = range(interval_start_ms(start_ms), end_ms, INTERVAL_MS) if start_ms < end_ms else ()
    return {
        begin_ms: min(end_ms, begin_ms + INTERVAL_MS) - max(start_ms, begin_ms)
        for begin_ms in begins
    }
