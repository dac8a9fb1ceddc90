"""A hall of exporters: a recorder that reads them, with a clock that the test sets."""

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine

from meter.energy.counters import Reading
from meter.energy.live import Served
from meter.energy.reading import Readers, gaps_of
from meter.energy.recorder import EnergyRecorder
from meter.energy.sources.port import SourceFailure
from meter.energy.validity import PoolPower
from meter.options import EnergySource
from meter.store.attribution import AttributionStore
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from meter.store.facts import FactStore
from meter.store.power import PowerStore
from tests.clock import FakeClock
from tests.exporter import Exporter
from tests.meter.energy.factory import Factory
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.pooled import pools_of

SCRAPE_MS = 15_000


class TickingClock(FakeClock):
    """A clock that goes on a little whenever it is looked at."""

    def now_ms(self) -> int:
        """The time, a millisecond later than before."""
        self.now += 1
        return self.now


class Hall(Factory):
    """A recorder that reads exporters, a clock that the test sets, and the metrics."""

    def __init__(
        self, engine: Engine, *sources: EnergySource, clock: FakeClock, cadence_ms: int
    ) -> None:
        super().__init__("h100")
        self.clock = clock
        self.elsewhere: list[Served] = []
        """What other servers have counted and nobody has heard of yet."""
        factories = FactoryStore(engine)
        gaps_ms = gaps_of(cadence_ms=cadence_ms, collect_ms=SCRAPE_MS)
        self.recorder = EnergyRecorder(
            EnergyStore(engine, factories=factories),
            attribution=AttributionStore(engine, factories=factories),
            readers=Readers(sources, gaps_ms=gaps_ms, clock=clock),
            live=self.live,
            power=PowerStore(engine),
            factories=factories.load,
            counted=FactStore(engine),
            clock=self.clock,
            served=self._look,
        )

    def _look(self) -> list[Served]:
        found, self.elsewhere = self.elsewhere, []
        return found

    def read_after(self, passed_ms: int) -> None:
        """Read all exporters once more time has passed."""
        self.clock.now += passed_ms
        self.recorder.read_sources_now()

    def power(self, pool: str = "h100") -> PoolPower:
        """Return how a pool's power is known."""
        return next(it for it in self.recorder.power() if it.pool == pool)

    @property
    def failures(self) -> list[SourceFailure | None]:
        """Why the last reads failed."""
        return [state.failure for state in self.recorder.source_states()]


@contextlib.contextmanager
def hall_of(
    engine: Engine,
    *sources: Exporter | EnergySource,
    clock: FakeClock | None = None,
    cadence_ms: int = SCRAPE_MS,
) -> Iterator[Hall]:
    """A hall for the time of the block; exporters are those of its pool."""
    found = [it if isinstance(it, EnergySource) else source_of(it) for it in sources]
    hall = Hall(engine, *found, clock=clock or FakeClock(BEGIN_MS), cadence_ms=cadence_ms)
    try:
        yield hall
    finally:
        hall.recorder.stop()


def source_of(exporter: Exporter, *, pool: str = "h100") -> EnergySource:
    """Return an exporter as the settings name it."""
    return EnergySource(pool=pool, url=exporter.url)


def reported(counter_mj: int, *, time_ms: int, **changes: Any) -> Reading:  # noqa: ANN401
    """Return a reading that somebody reports, so many ms after the begin."""
    fields = {"name": "h100", "device": "rack", **changes}
    return Reading(counter_mj=counter_mj, time_ms=BEGIN_MS + time_ms, **fields)


def measured_mj(engine: Engine) -> int:
    """Return what was measured in all."""
    return sum(it.measured_mj for it in pools_of(engine).values())
