"""How often energy is attributed anew: never so often that most of the time goes into it."""

from collections.abc import Iterator, Mapping

import pytest
from sqlalchemy import Engine

from meter.domain.interval import INTERVAL_MS
from meter.energy.reading import Readers, gaps_of
from meter.energy.recorder import EnergyRecorder
from meter.runtime.engine import make_engine
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from meter.store.power import PowerStore
from tests.clock import FakeClock
from tests.meter.energy.factory import Factory

WORK_SECONDS = 2
PAUSE_TIMES = 10


class SlowAttribution:
    """Takes two seconds for what changed, and notes when it was asked for which."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.due = {True: 0, False: 0}
        self.done: list[tuple[int, bool]] = []

    def attribute(self, *, end_ms: int, intervals_max: int, new_only: bool = False) -> int:
        """Attribute what is due, each kind by its own call."""
        del end_ms, intervals_max
        count, self.due[new_only] = self.due[new_only], 0
        if count:
            self.done.append((self.clock.now // 1_000, new_only))
            self.clock.now += WORK_SECONDS * 1_000
        return count


class AllCounted:
    """Nothing is ever behind."""

    def recorded_up_to(self) -> Mapping[int, int]:
        """Return no shard."""
        return {}

    def is_counted(self, positions: Mapping[int, int]) -> bool:
        """All is."""
        return not positions


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("pause_times", "again_at"),
    [(0, [10, 13, 18, 21, 24]), (PAUSE_TIMES, [10, 32])],
)
def test_attribute__anew_with_pauses(engine: Engine, pause_times: int, again_at: list[int]) -> None:
    """What changed again waits ten times as long as it took; what is new never waits."""
    clock = FakeClock(10_000)
    attribution = SlowAttribution(clock)
    recorder = EnergyRecorder(
        EnergyStore(engine, factories=FactoryStore(engine)),
        attribution=attribution,
        readers=Readers((), gaps_ms=gaps_of(cadence_ms=INTERVAL_MS, collect_ms=1), clock=clock),
        live=Factory("h100").live,
        power=PowerStore(engine),
        factories=FactoryStore(engine).load,
        counted=AllCounted(),
        clock=clock,
        pause_times=pause_times,
    )
    while clock.now < 35_000:
        attribution.due = {True: clock.now == 16_000, False: 1}
        recorder.attribute_due()
        clock.now += 1_000
    recorder.stop()
    assert [at for at, new_only in attribution.done if new_only] == [16]
    assert [at for at, new_only in attribution.done if not new_only][: len(again_at)] == again_at
