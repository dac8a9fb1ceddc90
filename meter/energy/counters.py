"""What an energy counter says since it was last read: its energy, its resets, its gaps; pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from meter.domain.boundary import Boundary
from meter.domain.limits import COUNTER_KEPT_MS, COUNTER_SLACK_MS
from meter.energy.delta import EnergyDelta, Place, Span


class Source(StrEnum):
    """Where a reading comes from; the values are those of SQL and of the metrics."""

    DCGM = "dcgm"
    NVML = "nvml"
    STATIC = "static"
    REPORTED = "reported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A device's counter as it stood at a time (ms since 1970, UTC): whole mJ from 0.

    `name` is its pool's, or of a facility's meter its site's. After `range_mj` comes 0; a range of
    0 is none. `power_mw` is what the device drew then, None where that is not known.
    """

    boundary: Boundary = Boundary.BOARD
    name: str
    device: str
    time_ms: int
    counter_mj: int
    range_mj: int = 0
    power_mw: int | None = None

    @property
    def place(self) -> Place:
        """Where its energy is added up."""
        return self.boundary, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Energy of a device without a counter (mJ) in `[since_ms, time_ms)`: worked out from power."""

    boundary: Boundary = Boundary.BOARD
    name: str
    device: str
    since_ms: int
    time_ms: int
    energy_mj: int

    @property
    def place(self) -> Place:
        """Where its energy is added up."""
        return self.boundary, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """Where a device's counter stood when it was last seen to move, and whose it is.

    That of an estimated device adds up what was estimated.
    """

    place: Place
    source: Source
    time_ms: int
    counter_mj: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is believed of counters.

    `watts_max` is more than one device ever draws. Samples more than the source's `gaps_ms` apart
    do not tell when their energy was used; for as long a device belongs to who read it.
    """

    watts_max: Mapping[Boundary, int]
    gaps_ms: Mapping[Source, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """A counter's new state, and what happened in the spans up to it.

    `is_reset` says that the counter began anew, or leapt beyond what its device can use; `is_leap`
    that it is the latter.
    """

    counter: Counter
    spans: tuple[Span, ...] = ()
    is_reset: bool = False
    is_leap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a counter gained, ≥ 0; 0 where it leapt beyond what can be, which is a reset too."""

    amount: int
    is_reset: bool = False
    is_leap: bool = False


def advance(
    last: Counter | None, reading: Reading, *, source: Source, bounds: Bounds
) -> Advance | None:
    """Return what a reading adds to what is known of its counter; None when it adds nothing.

    A reading adds nothing when it is not newer than the last one, or when the counter stands
    still: an exporter repeats what it collected last, and the time of what comes next is counted
    from when the counter last moved. The first reading, and one after too long a silence, only
    say where the counter stands.
    """
    counter = _counter_of(reading, source=source, counter_mj=reading.counter_mj)
    if _is_first(last, counter) or last is None:
        return Advance(counter=counter)
    passed_ms = reading.time_ms - last.time_ms
    if (last.place, last.source) != (counter.place, counter.source):
        return _taken_over(last, counter)
    if passed_ms <= 0 or reading.counter_mj == last.counter_mj:
        return None
    gain = gain_of(
        last.counter_mj,
        reading.counter_mj,
        counter_range=reading.range_mj,
        # A watt is a millijoule a millisecond.
        gain_max=bounds.watts_max[reading.boundary] * (passed_ms + COUNTER_SLACK_MS),
    )
    span = Span(
        start_ms=last.time_ms,
        end_ms=reading.time_ms,
        energy_mj=gain.amount,
        is_gap=passed_ms > bounds.gaps_ms[source] or gain.is_leap,
    )
    return Advance(counter=counter, spans=(span,), is_reset=gain.is_reset, is_leap=gain.is_leap)


def gain_of(last: int, standing: int, *, gain_max: int, counter_range: int = 0) -> Gain:
    """Return what a counter gained from one value, ≥ 0, to the next; it never counts back.

    After `counter_range` comes 0; a range of 0 is none.
    """
    amount = standing - last
    is_reset = amount < 0
    if is_reset and counter_range:
        # After the end of its range comes 0, which takes one as every step does.
        amount += counter_range + 1
        is_reset = not 0 <= amount <= gain_max
    if is_reset:
        # A counter that began anew at 0 holds what came since.
        amount = standing
    is_leap = amount > gain_max
    return Gain(amount=0 if is_leap else amount, is_reset=is_reset or is_leap, is_leap=is_leap)


def advance_estimate(last: Counter | None, estimate: Estimate, *, source: Source) -> Advance | None:
    """Return what an estimate adds; None when some of its time is known already.

    Time before it that nothing is known of is a gap without energy.
    """
    standing_mj = 0 if last is None else last.counter_mj
    counter = _counter_of(estimate, source=source, counter_mj=standing_mj + estimate.energy_mj)
    span = Span(
        start_ms=estimate.since_ms,
        end_ms=estimate.time_ms,
        energy_mj=estimate.energy_mj,
        is_estimated=True,
    )
    if _is_first(last, counter) or last is None:
        return Advance(counter=counter, spans=(span,))
    if estimate.since_ms < last.time_ms:
        return None
    if last.place != counter.place or estimate.since_ms == last.time_ms:
        return Advance(counter=counter, spans=(span,))
    gap = Span(start_ms=last.time_ms, end_ms=estimate.since_ms, is_gap=True)
    return Advance(counter=counter, spans=(gap, span))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A reading that is ignored: another source, or another pool, has its device."""

    device: str
    place: Place
    owner: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round of readings does.

    `counters` are those that moved, by device, and `delta` is what that adds. `steps` are the
    readings in the order of time, without those of `conflicts`, and what each did; None is nothing.
    """

    counters: Mapping[str, Counter]
    delta: EnergyDelta
    steps: Sequence[tuple[Reading | Estimate, Advance | None]]
    conflicts: Sequence[Conflict] = ()

    @property
    def advance_count(self) -> int:
        """How many readings moved their counter, or were its first."""
        return sum(step is not None for _, step in self.steps)


# Whether the factory's description names a device, by pool, in the interval that begins then (ms).
IsMapped = Callable[[str, str, int], bool]


def take(
    readings: Iterable[Reading | Estimate],
    *,
    source: Source,
    known: Mapping[str, Counter],
    bounds: Bounds,
    is_mapped: IsMapped = lambda _device, _pool, _start_ms: True,
) -> Round:
    """Take readings in the order of their times; `known` are their devices' counters so far.

    A device belongs to the source and the place that has read it, until that is silent for its
    gap: readings of others are conflicts.
    """
    moved: dict[str, Counter] = {}
    delta = EnergyDelta()
    steps: list[tuple[Reading | Estimate, Advance | None]] = []
    conflicts: list[Conflict] = []
    for reading in sorted(readings, key=lambda it: it.time_ms):
        last = moved.get(reading.device) or known.get(reading.device)
        if last is not None and _is_held(last, reading, source=source, bounds=bounds):
            conflicts.append(Conflict(device=reading.device, place=reading.place, owner=last.place))
            continue
        if isinstance(reading, Estimate):
            step = advance_estimate(last, reading, source=source)
        else:
            step = advance(last, reading, source=source, bounds=bounds)
        steps.append((reading, step))
        if step is None:
            continue
        moved[reading.device] = step.counter
        boundary, name = reading.place
        delta.add(
            reading.place,
            step.spans,
            is_reset=step.is_reset,
            is_mapped=lambda start_ms, device=reading.device, pool=name, boundary=boundary: (  # type: ignore[misc]
                boundary is not Boundary.BOARD or is_mapped(device, pool, start_ms)
            ),
        )
    return Round(counters=moved, delta=delta, steps=steps, conflicts=conflicts)


def _counter_of(it: Reading | Estimate, *, source: Source, counter_mj: int) -> Counter:
    return Counter(place=it.place, source=source, time_ms=it.time_ms, counter_mj=counter_mj)


def _is_held(last: Counter, reading: Reading | Estimate, *, source: Source, bounds: Bounds) -> bool:
    """Tell whether a device is another source's or place's, which has read it of late."""
    is_other = (last.place, last.source) != (reading.place, source)
    return is_other and reading.time_ms - last.time_ms <= bounds.gaps_ms[last.source]


def _is_first(last: Counter | None, counter: Counter) -> bool:
    return last is None or counter.time_ms - last.time_ms > COUNTER_KEPT_MS


def _taken_over(last: Counter, counter: Counter) -> Advance:
    """Return how a device goes on that another source or place had, which counts on its own."""
    if last.place != counter.place:
        return Advance(counter=counter)
    gap = Span(start_ms=last.time_ms, end_ms=counter.time_ms, is_gap=True)
    return Advance(counter=counter, spans=(gap,))
