"""Reads the energy sources, records what their counters say, and has it attributed."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from meter.domain.clock import Clock
from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.domain.limits import (
    ATTRIBUTE_INTERVALS_MAX,
    BOARD_WATTS_MAX,
    COUNTER_KEPT_MS,
    DEVICE_WATTS_MAX,
    ENERGY_READ_SECONDS_MAX,
    ENERGY_READS_AT_ONCE_MAX,
    GAP_MS_MIN,
    GAP_SCRAPES,
    SILENT_LISTED_MAX,
)
from meter.energy.counters import Bounds, Reading, Round, Source, highest
from meter.energy.efficiency import PoolPower, SilentDevice
from meter.energy.live import LiveEnergy
from meter.energy.scrape import ScrapeFailed, ScrapeFailure, scrape
from meter.options import EnergySource


class EnergyStore(Protocol):
    """Where energy is kept."""

    def record(self, readings: Sequence[Reading], *, source: Source, bounds: Bounds) -> Round:
        """Take readings and what they add in one transaction, and return what that was."""
        ...

    def forget_counters(self, *, before_ms: int) -> None:
        """Forget the counters that have not moved since."""
        ...


class AttributionStore(Protocol):
    """Where energy is attributed."""

    def attribute(self, *, end_ms: int, intervals_max: int) -> int:
        """Attribute anew intervals that began before `end_ms` and changed; return how many."""
        ...


class PowerReader(Protocol):
    """Tells how well power is known."""

    def power(
        self, *, now_ms: int, gaps_ms: Mapping[Source, int], silent_max: int
    ) -> tuple[Sequence[PoolPower], Sequence[SilentDevice]]:
        """Return the state of each pool, and so many silent devices, the longest silent first."""
        ...


class Counted(Protocol):
    """Tells how far the journal is counted."""

    def recorded_up_to(self) -> Mapping[int, int]:
        """Return the position of the newest segment of each shard of the journal."""
        ...

    def is_counted(self, positions: Mapping[int, int]) -> bool:
        """Tell whether each shard is counted up to its position."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """An energy source as it was last read; None and 0 until then.

    `read_ms` is when it last gave counters, `device_count` of how many devices. `failure` is why
    the last read gave less than it should, None when it did not.
    """

    source: EnergySource
    read_ms: int | None = None
    device_count: int = 0
    failure: ScrapeFailure | None = None


class EnergyRecorder:
    """One for a meter; safe to share between threads. All of it blocks."""

    def __init__(
        self,
        store: EnergyStore,
        *,
        attribution: AttributionStore,
        sources: Sequence[EnergySource],
        cadence_ms: int,
        live: LiveEnergy,
        power: PowerReader,
        counted: Counted,
        clock: Clock,
    ) -> None:
        """Take what is read and where it goes; `cadence_ms` is how often the sources are read.

        `counted` says up to where tokens are known: an interval is attributed when all that was
        acknowledged before its end is counted, and again when something changed later.
        """
        self._store = store
        self._attribution = attribution
        self._live = live
        self._power = power
        self._counted = counted
        self._clock = clock
        scraped_ms = max(GAP_MS_MIN, GAP_SCRAPES * cadence_ms)
        # Who reports keeps to intervals, and is not known to be as prompt as our own scrapes.
        self._gaps_ms = {
            Source.DCGM: scraped_ms,
            Source.REPORTED: max(INTERVAL_MS, scraped_ms),
        }
        self._states = [SourceState(source=source) for source in sources]
        self._readers = ThreadPoolExecutor(ENERGY_READS_AT_ONCE_MAX, thread_name_prefix="scrape")
        self._reading = threading.Lock()
        # What had been recorded when the clock stood at a time; reached, it is counted.
        self._noted: tuple[int, Mapping[int, int]] | None = None
        self._attributed_until_ms: int | None = None

    def read_sources_now(self) -> None:
        """Read all sources once, by the clock's time, and record what they say; one at a time.

        What goes wrong with a source is counted and harms no other. Raises MeterError when it
        cannot be recorded: the next read brings the energy, which the counters keep.
        """
        with self._reading:
            results = list(self._readers.map(self._read, self._states))
            self._states = [state for state, _ in results]
            readings = highest(reading for _, found in results for reading in found)
            if readings:
                self._record(readings, source=Source.DCGM, watts_max=BOARD_WATTS_MAX)
        self.settle()

    def record(self, readings: Sequence[Reading]) -> int:
        """Record reported readings, and return how many of them added something; may raise.

        The others were known, older than what is known, or of a counter that did not move.
        """
        moved = self._record(readings, source=Source.REPORTED, watts_max=DEVICE_WATTS_MAX)
        return moved.advance_count

    def settle(self) -> None:
        """Bring the metrics up to date with what was recorded."""
        self._live.settle(now_ms=self._clock.now_ms(), gap_ms=self._gaps_ms[Source.DCGM])
        self._live.show_power(self.power()[0])

    def power(self) -> tuple[Sequence[PoolPower], Sequence[SilentDevice]]:
        """Return the state of each pool's power, and some of the devices that are silent."""
        return self._power.power(
            now_ms=self._clock.now_ms(), gaps_ms=self._gaps_ms, silent_max=SILENT_LISTED_MAX
        )

    def attribute_due(self) -> None:
        """Attribute all intervals that are due."""
        now_ms = self._clock.now_ms()
        if self._noted is None:
            self._noted = (now_ms, self._counted.recorded_up_to())
        noted_ms, positions = self._noted
        if self._counted.is_counted(positions):
            self._noted = (now_ms, self._counted.recorded_up_to())
        else:
            noted_ms = self._attributed_until_ms or 0
        end_ms = interval_start_ms(noted_ms)
        while self._attribution.attribute(end_ms=end_ms, intervals_max=ATTRIBUTE_INTERVALS_MAX):
            pass
        self._attributed_until_ms = end_ms

    @property
    def attributed_until_ms(self) -> int | None:
        """The end of the last interval that was attributed, with all before it; None at first."""
        return self._attributed_until_ms

    def source_states(self) -> Sequence[SourceState]:
        """Return the sources as they were last read, in the order of the settings."""
        return self._states

    def forget(self) -> None:
        """Forget counters that have been silent for too long to go on."""
        self._store.forget_counters(before_ms=self._clock.now_ms() - COUNTER_KEPT_MS)

    def stop(self) -> None:
        """Read nothing more; returns when the reads under way have ended."""
        self._readers.shutdown(cancel_futures=True)

    def _record(self, readings: Sequence[Reading], *, source: Source, watts_max: int) -> Round:
        bounds = Bounds(watts_max=watts_max, gap_ms=self._gaps_ms[source])
        moved = self._store.record(readings, source=source, bounds=bounds)
        self._live.add_energy(moved.delta, source=source)
        return moved

    def _read(self, state: SourceState) -> tuple[SourceState, Iterable[Reading]]:
        source = state.source
        try:
            page = scrape(
                source.url,
                seconds_max=ENERGY_READ_SECONDS_MAX,
                monotonic_seconds=self._clock.monotonic_seconds,
            )
        except ScrapeFailed as error:
            self._live.add_failure(error.failure, pool=source.pool)
            failed = SourceState(
                source=source,
                read_ms=state.read_ms,
                device_count=state.device_count,
                failure=error.failure,
            )
            return failed, ()
        failure = ScrapeFailure.UNREADABLE if page.unreadable_count else None
        if failure is not None:
            self._live.add_failure(failure, pool=source.pool)
        now_ms = self._clock.now_ms()
        has_counters = bool(page.counters_mj)
        read = SourceState(
            source=source,
            read_ms=now_ms if has_counters else state.read_ms,
            device_count=len(page.counters_mj) if has_counters else state.device_count,
            failure=failure,
        )
        return read, [
            Reading(pool=source.pool, device=device, time_ms=now_ms, counter_mj=counter_mj)
            for device, counter_mj in page.counters_mj.items()
        ]
