"""Reads engines' own counters in rounds, and shows how far usage is from them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from meter.domain.clock import Clock
from meter.domain.interval import interval_start_ms
from meter.domain.limits import (
    ENERGY_READ_SECONDS_MAX,
    ENERGY_READS_AT_ONCE_MAX,
    ENGINE_KEPT_MS,
    ENGINE_SETTLE_MS,
)
from meter.energy.sources.page import fetch_page
from meter.energy.sources.port import SourceFailed, SourceFailure
from meter.engine_drift import EngineDrift, EngineDrifts
from meter.engine_metrics import EngineMetrics
from meter.engines.counting import Counted, EngineRead
from meter.engines.page import read_page
from meter.options import EnginePlace

_HOUR_MS: Final = 3_600_000
WINDOWS: Final[Mapping[str, int]] = {"1h": _HOUR_MS, "1d": 24 * _HOUR_MS}
# Less of a window than this, in tenths, says nothing of it.
_COMPARED_TENTHS_MIN: Final = 9
# How often the same hour and day are looked at again: what comes late changes them.
_LOOK_SECONDS: Final = 60.0


class EngineStore(Protocol):
    """Where it is kept what engines counted."""

    def record(self, read: EngineRead, *, gap_ms: int) -> Counted | None:
        """Take a read and what it adds in one transaction; None when it is not newer."""
        ...

    def forget(self, *, before_ms: int) -> None:
        """Delete what was counted before an edge."""
        ...


class EngineWatch:
    """One for a meter; its two calls may be made on different threads. Both block."""

    def __init__(
        self,
        places: Sequence[EnginePlace],
        *,
        store: EngineStore,
        drifts: EngineDrifts,
        metrics: EngineMetrics,
        clock: Clock,
        gap_ms: int,
        is_reader: Callable[[], bool],
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        """Take the pages, where what they show goes, and the metrics.

        `is_reader` says whether this server reads them, of those that share them. Reads more than
        `gap_ms` apart leave a gap.
        """
        self._places = places
        self._store = store
        self._drifts = drifts
        self._metrics = metrics
        self._clock = clock
        self._gap_ms = gap_ms
        self._is_reader = is_reader
        self._look_seconds = look_seconds
        self._threads = ThreadPoolExecutor(ENERGY_READS_AT_ONCE_MAX, thread_name_prefix="engines")
        self._looked: tuple[Mapping[str, int], float] | None = None

    def read_now(self) -> None:
        """Read all pages once, by the clock's time, and record what they say; one at a time.

        What goes wrong with a page is counted and harms no other. Raises MeterError when something
        cannot be recorded: the next read brings it, for the counters keep it.
        """
        if not self._places or not self._is_reader():
            return
        for place, read in zip(
            self._places, self._threads.map(self._read, self._places), strict=True
        ):
            if isinstance(read, SourceFailure):
                self._metrics.reads_failed.labels(place.pool, read).inc()
                continue
            counted = self._store.record(read, gap_ms=self._gap_ms)
            for (model, kind, _), sums in ({} if counted is None else counted.tokens).items():
                self._metrics.tokens.labels(place.pool, model, kind).inc(sums.tokens)

    def look(self) -> None:
        """Show the drift of the last complete hour and day; raises Unavailable.

        Servers that do not read show it too: it is of all of them.
        """
        if not self._places:
            return
        settled_ms = self._clock.now_ms() - ENGINE_SETTLE_MS
        ends = {name: settled_ms - settled_ms % length for name, length in WINDOWS.items()}
        now_seconds = self._clock.monotonic_seconds()
        if self._looked is not None:
            last_ends, looked_seconds = self._looked
            if last_ends == ends and now_seconds - looked_seconds < self._look_seconds:
                return
        found = {
            name: self._drifts.compare(start_ms=end_ms - WINDOWS[name], end_ms=end_ms)
            for name, end_ms in ends.items()
        }
        self._show(found)
        self._looked = (ends, now_seconds)

    def forget(self) -> None:
        """Forget what was counted so long ago that nobody may ask for it; raises Unavailable."""
        before_ms = interval_start_ms(self._clock.now_ms() - ENGINE_KEPT_MS)
        self._store.forget(before_ms=before_ms)

    def stop(self) -> None:
        """Read nothing more; returns when the reads under way have ended."""
        self._threads.shutdown(cancel_futures=True)

    def _read(self, place: EnginePlace) -> EngineRead | SourceFailure:
        try:
            text = fetch_page(
                place.url,
                seconds_max=ENERGY_READ_SECONDS_MAX,
                monotonic_seconds=self._clock.monotonic_seconds,
            )
        except SourceFailed as error:
            return error.failure
        page = read_page(text)
        if page.unreadable_count:
            # A counter that is missing would be taken for one that began anew.
            return SourceFailure.UNREADABLE
        if not page.profile:
            return SourceFailure.NO_COUNTERS
        return EngineRead(
            replica=place.url, pool=place.pool, time_ms=self._clock.now_ms(), page=page
        )

    def _show(self, found: Mapping[str, Sequence[EngineDrift]]) -> None:
        shown = set()
        for name, drifts in found.items():
            for it in drifts:
                if it.compared_ms * 10 < WINDOWS[name] * _COMPARED_TENTHS_MIN:
                    continue
                labels = (it.pool, it.model, it.kind.value, name)
                self._metrics.drift_tokens.labels(*labels).set(it.tokens)
                self._metrics.drift_ppm.labels(*labels).set(it.ppm)
                shown.add(labels)
        self._metrics.drift_tokens.keep(shown)
        self._metrics.drift_ppm.keep(shown)
