"""What readings add to the energy of pools and sites, by interval, in whole mJ; pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.energy.attribute import apportion

# A boundary, and the name of the pool, or of a facility's site, that energy is added up for.
Place: TypeAlias = tuple[Boundary, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What a device used in `[start_ms, end_ms)` (mJ).

    `is_gap` says that the samples at its ends lie too far apart to tell when, or that the energy is
    not known; `is_estimated` that no counter has measured it.
    """

    start_ms: int
    end_ms: int
    energy_mj: int = 0
    is_gap: bool = False
    is_estimated: bool = False


@dataclass(slots=True, kw_only=True)
class IntervalEnergy:
    """What is added to an interval: energy in mJ, and of it what is known how.

    Of `measured_mj`, `estimated_mj` is no counter's, `gap_mj` fell into gaps, and `unmapped_mj` is
    of devices that the factory's description does not name, without that of gaps. `covered_ms` is
    the time between samples of the others, and `gap_ms` the length of the gaps; both are added up
    over devices. `begin_count` and `end_count` are of the devices with samples on both sides of the
    interval's begin and of its end, or right at it.
    """

    measured_mj: int = 0
    estimated_mj: int = 0
    gap_mj: int = 0
    unmapped_mj: int = 0
    covered_ms: int = 0
    gap_ms: int = 0
    reset_count: int = 0
    begin_count: int = 0
    end_count: int = 0

    def add(self, other: "IntervalEnergy") -> None:
        """Add what another holds."""
        self.measured_mj += other.measured_mj
        self.estimated_mj += other.estimated_mj
        self.gap_mj += other.gap_mj
        self.unmapped_mj += other.unmapped_mj
        self.covered_ms += other.covered_ms
        self.gap_ms += other.gap_ms
        self.reset_count += other.reset_count
        self.begin_count += other.begin_count
        self.end_count += other.end_count


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyDelta:
    """What a round of readings adds, by place and begin of the interval (ms since 1970, UTC)."""

    intervals: dict[tuple[Place, int], IntervalEnergy] = field(default_factory=dict)

    def add(
        self,
        place: Place,
        spans: Iterable[Span],
        *,
        is_reset: bool = False,
        is_mapped: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """Add what one device did, split at the edges of intervals in proportion to time.

        `is_mapped` tells whether the device is described in an interval.
        """
        last_ms = None
        for span in spans:
            for start_ms, sums in _split(span, is_mapped=is_mapped).items():
                self.intervals.setdefault((place, start_ms), IntervalEnergy()).add(sums)
                last_ms = start_ms
        if is_reset:
            assert last_ms is not None, "a reset is seen at the end of a span"
            # Wherever in between it was, it is noticed at the end.
            self.intervals[place, last_ms].reset_count += 1

    def by_place(self) -> dict[Place, IntervalEnergy]:
        """Return the sums over all intervals."""
        totals: dict[Place, IntervalEnergy] = {}
        for (place, _), sums in self.intervals.items():
            totals.setdefault(place, IntervalEnergy()).add(sums)
        return totals


def _split(span: Span, *, is_mapped: Callable[[int], bool]) -> dict[int, IntervalEnergy]:
    """Return what a span is in each of its intervals, by their begins, in the order of time."""
    lengths = interval_lengths(span.start_ms, span.end_ms)
    if not lengths:
        assert not span.energy_mj, "energy takes time"
        return {}
    split = {}
    for start_ms, energy_mj in apportion(span.energy_mj, lengths).items():
        sums = IntervalEnergy(
            measured_mj=energy_mj,
            estimated_mj=energy_mj if span.is_estimated else 0,
            # The spans of a device follow on each other: only one of them holds an edge.
            begin_count=int(span.start_ms <= start_ms),
            end_count=int(span.end_ms >= start_ms + INTERVAL_MS),
        )
        if span.is_gap:
            sums.gap_mj, sums.gap_ms = energy_mj, lengths[start_ms]
        elif is_mapped(start_ms):
            sums.covered_ms = lengths[start_ms]
        else:
            # Nor does its time count: what it idles at is in what nobody described already.
            sums.unmapped_mj = energy_mj
        split[start_ms] = sums
    return split


def interval_lengths(start_ms: int, end_ms: int) -> dict[int, int]:
    """Return how much of a span lies in each interval (ms), by the interval's begin."""
    begins = range(interval_start_ms(start_ms), end_ms, INTERVAL_MS) if start_ms < end_ms else ()
    return {
        begin_ms: min(end_ms, begin_ms + INTERVAL_MS) - max(start_ms, begin_ms)
        for begin_ms in begins
    }
