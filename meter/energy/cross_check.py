"""Holds what power gauges add up to against what counters gained of the same device and time; pure.

A counter and a gauge that agree may both be believed. A factor of a thousand between them is a unit
that one of them lies in, and a few percent are a gauge that looks too seldom.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from meter.domain.boundary import Boundary
from meter.domain.limits import CROSS_CHECK_DEVICES_MAX
from meter.energy.counters import Advance, Estimate, Reading

MINUTE_MS: Final = 60_000
# A device's gauge and counter may differ by a factor of two over 5 minutes, a pool's by 5 % over an
# hour. Less than most of that time tells nothing: gauges look now and then.
SHORT_MS: Final = 5 * MINUTE_MS
SHORT_SPAN_MS_MIN: Final = 4 * MINUTE_MS
LONG_MS: Final = 60 * MINUTE_MS
LONG_SPAN_MS_MIN: Final = 50 * MINUTE_MS
SHORT_RATIOS: Final = (0.5, 2.0)
LONG_RATIOS: Final = (0.95, 1.05)

# A milliwatt for a millisecond is a microjoule, and trapezoids are halves.
_DOUBLED_UJ_PER_MJ: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How a pool's gauges agree with its counters.

    `ratio` is what the gauges add up to by what the counters gained over the last hour, None where
    that is not known. `is_faulty` says that they differ too much, over that hour or of late.
    """

    ratio: float | None
    is_faulty: bool


class CrossCheck:
    """Follows the readings of boards that have both; one of its methods at a time."""

    def __init__(self) -> None:
        """Know nothing."""
        self._devices: dict[str, _Device] = {}
        self._pools: dict[str, _Window] = {}

    @property
    def device_count(self) -> int:
        """How many boards are followed."""
        return len(self._devices)

    def add(self, steps: Iterable[tuple[Reading | Estimate, Advance | None]]) -> None:
        """Take readings in the order of time, and what each did to its counter.

        Power more than 5 minutes apart says nothing of the time between.
        """
        for reading, step in steps:
            if isinstance(reading, Reading) and reading.boundary is Boundary.BOARD:
                self._add(reading, step)

    def look(self, *, now_ms: int) -> dict[str, Agreement]:
        """Return how each pool's gauges and counters agree, and forget what is too old to tell."""
        faulty = set()
        for name, device in list(self._devices.items()):
            if device.time_ms <= now_ms - LONG_MS:
                del self._devices[name]
            elif not _agrees(
                device.window.since(now_ms - SHORT_MS),
                span_ms_min=SHORT_SPAN_MS_MIN,
                ratios=SHORT_RATIOS,
            ):
                faulty.add(device.pool)
        found = {}
        for pool, window in list(self._pools.items()):
            sums = window.since(now_ms - LONG_MS)
            if sums is None:
                del self._pools[pool]
                continue
            agrees = _agrees(sums, span_ms_min=LONG_SPAN_MS_MIN, ratios=LONG_RATIOS)
            found[pool] = Agreement(
                ratio=_ratio(sums) if sums.span_ms >= LONG_SPAN_MS_MIN else None,
                is_faulty=not agrees or pool in faulty,
            )
        return found

    def _add(self, reading: Reading, step: Advance | None) -> None:
        if reading.power_mw is None:
            return
        device = self._devices.get(reading.device)
        if device is None or device.pool != reading.name:
            if len(self._devices) < CROSS_CHECK_DEVICES_MAX:
                self._devices[reading.device] = _Device.first(reading)
            return
        passed_ms = reading.time_ms - device.time_ms
        if passed_ms <= 0:
            return
        device.doubled_uj += (device.power_mw + reading.power_mw) * passed_ms
        device.is_whole &= passed_ms <= SHORT_MS
        device.time_ms, device.power_mw = reading.time_ms, reading.power_mw
        if step is None:
            return
        energy_mj = sum(span.energy_mj for span in step.spans)
        if device.is_whole and energy_mj and not step.is_reset:
            part = _Sums(
                start_ms=device.moved_ms,
                end_ms=reading.time_ms,
                doubled_uj=device.doubled_uj,
                counter_mj=energy_mj,
            )
            device.window.add(part, kept_ms=SHORT_MS)
            self._pools.setdefault(device.pool, _Window()).add(part, kept_ms=LONG_MS)
        device.moved_ms, device.doubled_uj, device.is_whole = reading.time_ms, 0, True


@dataclass(slots=True, kw_only=True)
class _Sums:
    """Twice a gauge's integral (µJ) and what the counter gained (mJ), within a span of time."""

    start_ms: int
    end_ms: int
    doubled_uj: int
    counter_mj: int

    @property
    def span_ms(self) -> int:
        return self.end_ms - self.start_ms

    def add(self, other: "_Sums") -> None:
        self.start_ms = min(self.start_ms, other.start_ms)
        self.end_ms = max(self.end_ms, other.end_ms)
        self.doubled_uj += other.doubled_uj
        self.counter_mj += other.counter_mj


_Found: TypeAlias = _Sums | None


@dataclass(slots=True)
class _Window:
    """Sums by the minute in which they end, the oldest first: as many as there are minutes."""

    minutes: deque[_Sums] = field(default_factory=deque)

    def add(self, part: _Sums, *, kept_ms: int) -> None:
        minute = part.end_ms // MINUTE_MS
        place = len(self.minutes)
        while place and self.minutes[place - 1].end_ms // MINUTE_MS > minute:
            place -= 1
        if place and self.minutes[place - 1].end_ms // MINUTE_MS == minute:
            self.minutes[place - 1].add(part)
        else:
            copy = _Sums(
                start_ms=part.start_ms,
                end_ms=part.end_ms,
                doubled_uj=part.doubled_uj,
                counter_mj=part.counter_mj,
            )
            self.minutes.insert(place, copy)
        while self.minutes[0].end_ms <= self.minutes[-1].end_ms - kept_ms:
            self.minutes.popleft()

    def since(self, start_ms: int) -> _Found:
        """Return the sums of what ended after a time; None when nothing did."""
        total = None
        for part in self.minutes:
            if part.end_ms <= start_ms:
                continue
            if total is None:
                total = _Sums(
                    start_ms=part.start_ms, end_ms=part.end_ms, doubled_uj=0, counter_mj=0
                )
            total.add(part)
        return total


@dataclass(slots=True, kw_only=True)
class _Device:
    """A board as last seen; `doubled_uj` is twice the integral since its counter last moved."""

    pool: str
    time_ms: int
    power_mw: int
    moved_ms: int
    doubled_uj: int = 0
    # Nothing is known of before the first sample, nor of a time without.
    is_whole: bool = False
    window: _Window = field(default_factory=_Window)

    @classmethod
    def first(cls, reading: Reading) -> "_Device":
        assert reading.power_mw is not None
        return cls(
            pool=reading.name,
            time_ms=reading.time_ms,
            power_mw=reading.power_mw,
            moved_ms=reading.time_ms,
        )


def _ratio(sums: _Sums) -> float:
    return sums.doubled_uj / (sums.counter_mj * _DOUBLED_UJ_PER_MJ)


def _agrees(sums: _Found, *, span_ms_min: int, ratios: tuple[float, float]) -> bool:
    if sums is None or sums.span_ms < span_ms_min:
        return True
    lowest, highest = ratios
    return lowest <= _ratio(sums) <= highest
