"""Reads the sources of the settings in rounds, and makes readings of what they show."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from meter.domain.boundary import Boundary
from meter.domain.clock import Clock
from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import (
    BOARD_WATTS_MAX,
    ENERGY_READS_AT_ONCE_MAX,
    GAP_MS_MIN,
    GAP_SCRAPES,
)
from meter.energy.counters import Estimate, Reading, Source
from meter.energy.integral import PowerIntegral
from meter.energy.sources.opening import open_source
from meter.energy.sources.port import Sample, SourceFailed, SourceFailure, SourceReader
from meter.options import EnergySource

_MW_PER_WATT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """An energy source as it was last read; None and 0 until then.

    `read_ms` is when it last gave samples, `device_count` of how many devices. `failure` is why
    the last read gave less than it should, None when it did not.
    """

    source: EnergySource
    read_ms: int | None = None
    device_count: int = 0
    failure: SourceFailure | None = None


@dataclass(slots=True, kw_only=True)
class Taken:
    """What a round found: readings by their source, and pools with a gauge that cannot be right."""

    readings: dict[Source, list[Reading | Estimate]] = field(default_factory=dict)
    implausible: list[str] = field(default_factory=list)


def gaps_of(*, cadence_ms: int, collect_ms: int) -> Mapping[Source, int]:
    """Return from how far apart on samples leave a gap, by source (ms).

    `cadence_ms` is how often sources are read, and `collect_ms` how often exporters look at their
    boards. For as long a sample is fresh, and its device belongs to who has read it.
    """
    read_ms = max(GAP_MS_MIN, GAP_SCRAPES * max(cadence_ms, collect_ms))
    # Who reports keeps to intervals, and is not known to be as prompt as our own reads.
    return {
        source: max(INTERVAL_MS, read_ms) if source is Source.REPORTED else read_ms
        for source in Source
    }


class Readers:
    """The sources of a meter; one of its methods at a time."""

    def __init__(
        self,
        sources: Sequence[EnergySource],
        *,
        gaps_ms: Mapping[Source, int],
        clock: Clock,
        open_reader: Callable[..., tuple[Source, SourceReader]] = open_source,
    ) -> None:
        """Take the sources; nothing is read yet."""
        self.gaps_ms = gaps_ms
        self.states: Sequence[SourceState] = [SourceState(source=source) for source in sources]
        self._clock = clock
        self._opened = [
            open_reader(source, monotonic_seconds=clock.monotonic_seconds) for source in sources
        ]
        self._threads = ThreadPoolExecutor(ENERGY_READS_AT_ONCE_MAX, thread_name_prefix="energy")
        self._integral = PowerIntegral()
        # When a device last showed a counter: its gauge is not counted beside it.
        self._counted_ms: dict[str, int] = {}

    def read(self, *, is_ours: Callable[[EnergySource], bool] = lambda _: True) -> Taken:
        """Read the sources, by the clock's time; what goes wrong with one is in its state.

        Those that are not `is_ours` are another server's.
        """
        readers = [
            reader if is_ours(state.source) else None
            for state, (_, reader) in zip(self.states, self._opened, strict=True)
        ]
        results = list(self._threads.map(self._read, self.states, readers))
        self.states = [state for state, _ in results]
        by_source: dict[Source, dict[tuple[str, str], _Shown]] = {}
        for (source, _), (state, shown) in zip(self._opened, results, strict=True):
            found = by_source.setdefault(source, {})
            for each in shown:
                # Two exporters may see the same board.
                key = (state.source.pool, each.sample.device)
                found[key] = found[key].joined(each) if key in found else each
        taken = Taken()
        for source, found in by_source.items():
            readings = taken.readings.setdefault(source, [])
            for pool, device in sorted(found):
                one = found[pool, device]
                if _is_possible(one.sample, source=source):
                    reading = self._reading_of(one, pool=pool, source=source)
                    readings.extend(() if reading is None else (reading,))
                else:
                    taken.implausible.append(pool)
        self._forget()
        return taken

    def withdraw(self, taken: Taken, *, pools: Collection[str]) -> None:
        """Take ratings out again, of pools of which something is measured."""
        kept: list[Reading | Estimate] = []
        for each in taken.readings[Source.STATIC]:
            if each.name in pools:
                self._integral.forget(each.device)
            else:
                kept.append(each)
        taken.readings[Source.STATIC] = kept

    def settle(self, readings: Sequence[Reading | Estimate]) -> None:
        """Go on from readings that are recorded."""
        for each in readings:
            if isinstance(each, Estimate):
                self._integral.settle(each)

    def stop(self) -> None:
        """Read nothing more; returns when the reads under way have ended."""
        self._threads.shutdown(cancel_futures=True)
        for _, reader in self._opened:
            reader.close()

    def _read(
        self, state: SourceState, reader: SourceReader | None
    ) -> tuple[SourceState, Sequence["_Shown"]]:
        if reader is None:
            # Another server knows how it was read last.
            return SourceState(source=state.source), ()
        try:
            found = reader.read()
        except SourceFailed as error:
            return _after(state, failure=error.failure), ()
        now_ms = self._clock.now_ms()
        if not found.samples:
            return _after(state, failure=found.failure), ()
        read = SourceState(
            source=state.source,
            read_ms=now_ms,
            device_count=len(found.samples),
            failure=found.failure,
        )
        return read, [_Shown(sample=sample, time_ms=now_ms) for sample in found.samples]

    def _reading_of(
        self, shown: "_Shown", *, pool: str, source: Source
    ) -> Reading | Estimate | None:
        """Return what a device's sample says, None when that is nothing."""
        sample, time_ms = shown.sample, shown.time_ms
        if sample.counter_mj is not None:
            self._counted_ms[sample.device] = time_ms
            self._integral.forget(sample.device)
            return Reading(
                boundary=Boundary.BOARD,
                name=pool,
                device=sample.device,
                time_ms=time_ms,
                counter_mj=sample.counter_mj,
                power_mw=sample.power_mw,
            )
        gap_ms = self.gaps_ms[source]
        counted_ms = self._counted_ms.get(sample.device)
        if sample.power_mw is None or (counted_ms is not None and time_ms - counted_ms <= gap_ms):
            # A counter that is missing for once will hold all of it.
            return None
        return self._integral.take(
            name=pool,
            device=sample.device,
            time_ms=time_ms,
            power_mw=sample.power_mw,
            gap_ms=gap_ms,
        )

    def _forget(self) -> None:
        """Forget devices that were not seen for longer than it matters."""
        before_ms = self._clock.now_ms() - max(self.gaps_ms.values())
        self._integral.forget_before(before_ms)
        for device, counted_ms in list(self._counted_ms.items()):
            if counted_ms < before_ms:
                del self._counted_ms[device]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A sample, and when it was taken."""

    sample: Sample
    time_ms: int

    @property
    def counter_mj(self) -> int | None:
        """Its counter."""
        return self.sample.counter_mj

    def joined(self, other: "_Shown") -> "_Shown":
        """Return the two as one, of the same board in one round: the one whose counter is higher.

        A value that it lacks is the other's.
        """
        low, high = sorted(
            (self, other), key=lambda it: -1 if it.counter_mj is None else it.counter_mj
        )
        if high.sample.power_mw is not None:
            return high
        return _Shown(
            sample=Sample(
                device=high.sample.device,
                counter_mj=high.counter_mj,
                power_mw=low.sample.power_mw,
            ),
            time_ms=high.time_ms,
        )


def _is_possible(sample: Sample, *, source: Source) -> bool:
    """Tell whether a gauge without a counter shows what a board may draw; a rating is a pool's."""
    if sample.counter_mj is not None or sample.power_mw is None or source is Source.STATIC:
        return True
    return sample.power_mw <= BOARD_WATTS_MAX * _MW_PER_WATT


def _after(state: SourceState, *, failure: SourceFailure | None) -> SourceState:
    """Return the state after a read that gave nothing."""
    return SourceState(
        source=state.source,
        read_ms=state.read_ms,
        device_count=state.device_count,
        failure=failure,
    )
