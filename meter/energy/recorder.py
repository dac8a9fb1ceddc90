"""Reads the energy sources, records what their counters say, and has it attributed."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from meter.domain.boundary import Boundary
from meter.domain.clock import Clock
from meter.domain.interval import interval_start_ms
from meter.domain.limits import (
    ATTRIBUTE_INTERVALS_MAX,
    ATTRIBUTE_PAUSE_SECONDS_MAX,
    ATTRIBUTE_PAUSE_TIMES,
    BOARD_WATTS_MAX,
    COUNTER_KEPT_MS,
    DEVICE_WATTS_MAX,
    FACILITY_WATTS_MAX,
    FAULT_SEEN_MS,
    SILENT_LISTED_MAX,
)
from meter.energy.counters import Bounds, Estimate, Reading, Round, Source
from meter.energy.cross_check import CrossCheck
from meter.energy.factory import Factories
from meter.energy.live import LiveEnergy, Served
from meter.energy.reading import Readers, SourceState
from meter.energy.validity import (
    PoolDevices,
    PoolPower,
    PowerReader,
    Recently,
    Seen,
    SilentDevice,
    has_counters,
    judge,
)
from meter.options import EnergySource

# A board that we read ourselves, and a device that is reported, which may be a whole rack.
_READ_WATTS_MAX: Final = {Boundary.BOARD: BOARD_WATTS_MAX}
_REPORTED_WATTS_MAX: Final = {
    Boundary.BOARD: DEVICE_WATTS_MAX,
    Boundary.HOST: DEVICE_WATTS_MAX,
    Boundary.FACILITY: FACILITY_WATTS_MAX,
}


class EnergyStore(Protocol):
    """Where energy is kept."""

    def record(
        self, readings: Sequence[Reading | Estimate], *, source: Source, bounds: Bounds
    ) -> Round:
        """Take readings and what they add in one transaction, and return what that was."""
        ...

    def forget_counters(self, *, before_ms: int) -> None:
        """Forget the counters that have not moved since."""
        ...


class AttributionStore(Protocol):
    """Where energy is attributed."""

    def attribute(self, *, end_ms: int, intervals_max: int, new_only: bool = False) -> int:
        """Attribute intervals that began before `end_ms` and changed; return how many.

        With `new_only`, those that never were attributed.
        """
        ...


class Counted(Protocol):
    """Tells how far the journal is counted."""

    def recorded_up_to(self) -> Mapping[int, int]:
        """Return the position of the newest segment of each shard of the journal."""
        ...

    def is_counted(self, positions: Mapping[int, int]) -> bool:
        """Tell whether each shard is counted up to its position."""
        ...


class EnergyRecorder:
    """One for a meter; safe to share between threads. All of it blocks."""

    def __init__(
        self,
        store: EnergyStore,
        *,
        attribution: AttributionStore,
        readers: Readers,
        live: LiveEnergy,
        power: PowerReader,
        factories: Callable[[], Factories],
        counted: Counted,
        clock: Clock,
        pause_times: int = ATTRIBUTE_PAUSE_TIMES,
        is_reader: Callable[[EnergySource], bool] = lambda _: True,
        served: Callable[[], Sequence[Served]] = tuple,
    ) -> None:
        """Take what is read and where it goes.

        `counted` says up to where tokens are known: an interval is attributed when all that was
        acknowledged before its end is counted, and again when something changed later. Before it
        does that once more it waits `pause_times` as long as it took; 0 is not at all. `is_reader`
        says whether this server reads a source, of those that share it, and `served` what others
        counted for the energy that it reads.
        """
        self._store = store
        self._attribution = attribution
        self._readers = readers
        self._live = live
        self._power = power
        self._factories = factories
        self._counted = counted
        self._clock = clock
        self._reading = threading.Lock()
        # Of what follows, which calls that report share with the reading of the sources.
        self._seeing = threading.Lock()
        self._settling = threading.Lock()
        self._cross_check = CrossCheck()
        self._leapt = Recently(kept_ms=FAULT_SEEN_MS)
        self._claimed = Recently(kept_ms=FAULT_SEEN_MS)
        # What had been recorded when the clock stood at a time; reached, it is counted.
        self._noted: tuple[int, Mapping[int, int]] | None = None
        self._attributed_until_ms: int | None = None
        self._pause_times = pause_times
        self._is_reader = is_reader
        self._served = served
        self._again_seconds = 0.0

    def read_sources_now(self) -> None:
        """Read all sources once, by the clock's time, and record what they say; one at a time.

        What goes wrong with a source is counted and harms no other. Raises MeterError when it
        cannot be recorded: the next read brings the energy, which the counters keep.
        """
        with self._reading:
            taken = self._readers.read(is_ours=self._is_reader)
            for state in self._readers.states:
                if state.failure is not None:
                    self._live.add_failure(state.failure, pool=state.source.pool)
            if Source.STATIC in taken.readings:
                # Where anything is measured, a rating would count the same energy once more.
                self._readers.withdraw(taken, pools=has_counters(self._found()))
            self._note(leapt=taken.implausible)
            for source, readings in taken.readings.items():
                if readings:
                    self._record(readings, source=source, watts_max=_READ_WATTS_MAX)
                    self._readers.settle(readings)
        self.settle()

    def record(self, readings: Sequence[Reading]) -> int:
        """Record reported readings, and return how many of them added something; may raise.

        The others were known, older than what is known, of a counter that did not move, or of a
        device that another source or pool has.
        """
        return self._record(
            readings, source=Source.REPORTED, watts_max=_REPORTED_WATTS_MAX
        ).advance_count

    def settle(self) -> None:
        """Bring the metrics up to date with what was recorded."""
        with self._settling:
            for each in self._served():
                self._live.add_served(each)
        gap_ms = self._readers.gaps_ms[Source.DCGM]
        self._live.settle(now_ms=self._clock.now_ms(), gap_ms=gap_ms)
        self._live.show_power(self.power())

    def power(self) -> Sequence[PoolPower]:
        """Return the state of each pool's power, by name."""
        now_ms = self._clock.now_ms()
        found = self._found()
        with self._seeing:
            seen = Seen(
                agreements=self._cross_check.look(now_ms=now_ms),
                leapt=self._leapt.look(now_ms=now_ms),
                claimed=self._claimed.look(now_ms=now_ms),
            )
        return judge(found, factory=self._factories().at(now_ms), seen=seen)

    def silent(self) -> Sequence[SilentDevice]:
        """Return some of the devices that are silent, the longest silent first."""
        return self._power.silent(
            now_ms=self._clock.now_ms(),
            gaps_ms=self._readers.gaps_ms,
            devices_max=SILENT_LISTED_MAX,
        )

    def attribute_due(self) -> None:
        """Attribute all intervals that are due; what was attributed before may wait a little."""
        now_ms = self._clock.now_ms()
        if self._noted is None:
            self._noted = (now_ms, self._counted.recorded_up_to())
        noted_ms, positions = self._noted
        if self._counted.is_counted(positions):
            self._noted = (now_ms, self._counted.recorded_up_to())
        else:
            noted_ms = self._attributed_until_ms or 0
        end_ms = interval_start_ms(noted_ms)
        self._attribute(end_ms, new_only=True)
        self._attributed_until_ms = end_ms
        begun = self._clock.monotonic_seconds()
        if begun >= self._again_seconds:
            self._attribute(end_ms, new_only=False)
            ended = self._clock.monotonic_seconds()
            pause = min((ended - begun) * self._pause_times, ATTRIBUTE_PAUSE_SECONDS_MAX)
            self._again_seconds = ended + pause

    def _attribute(self, end_ms: int, *, new_only: bool) -> None:
        while self._attribution.attribute(
            end_ms=end_ms, intervals_max=ATTRIBUTE_INTERVALS_MAX, new_only=new_only
        ):
            pass

    @property
    def attributed_until_ms(self) -> int | None:
        """The end of the last interval that was attributed, with all before it; None at first."""
        return self._attributed_until_ms

    def source_states(self) -> Sequence[SourceState]:
        """Return the sources as they were last read, in the order of the settings."""
        return self._readers.states

    def forget(self) -> None:
        """Forget counters that have been silent for too long to go on."""
        self._store.forget_counters(before_ms=self._clock.now_ms() - COUNTER_KEPT_MS)

    def stop(self) -> None:
        """Read nothing more; returns when the reads under way have ended."""
        self._readers.stop()

    def _record(
        self,
        readings: Sequence[Reading | Estimate],
        *,
        source: Source,
        watts_max: Mapping[Boundary, int],
    ) -> Round:
        bounds = Bounds(watts_max=watts_max, gaps_ms=self._readers.gaps_ms)
        moved = self._store.record(readings, source=source, bounds=bounds)
        self._live.add_energy(moved.delta, source=source)
        for conflict in moved.conflicts:
            self._live.add_ignored(pool=conflict.place[1])
        with self._seeing:
            self._cross_check.add(moved.steps)
        self._note(
            leapt=[it.name for it, step in moved.steps if step is not None and step.is_leap],
            claimed=[name for it in moved.conflicts for _, name in (it.place, it.owner)],
        )
        return moved

    def _note(self, *, leapt: Sequence[str], claimed: Sequence[str] = ()) -> None:
        now_ms = self._clock.now_ms()
        with self._seeing:
            for seen, pools in ((self._leapt, leapt), (self._claimed, claimed)):
                for pool in pools:
                    seen.note(pool, now_ms=now_ms)

    def _found(self) -> Sequence[PoolDevices]:
        now_ms = self._clock.now_ms()
        return self._power.pools(
            now_ms=now_ms,
            gaps_ms=self._readers.gaps_ms,
            factory=self._factories().at(now_ms),
        )
