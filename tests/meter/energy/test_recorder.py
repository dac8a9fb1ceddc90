"""The recorder with a real database and exporters over real HTTP: whatever these do, it goes on."""

import contextlib
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event

from meter.domain.errors import Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.energy.recorder import EnergyRecorder
from meter.energy.scrape import ScrapeFailure
from meter.options import EnergySource
from meter.runtime.engine import make_engine
from meter.store.attribution import AttributionStore
from meter.store.efficiency import EfficiencyStore
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from meter.store.facts import FactStore
from tests.clock import FakeClock
from tests.exporter import Exporter, running_exporter, sample, saying
from tests.meter.energy.factory import Factory
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.pooled import pools_of, serve, shares_of
from tests.meter.store.recording import (
    ask,
    counting_of,
    create_accounts,
    end_connections,
    follow,
    owner,
)

SCRAPE_MS = 15_000


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role, to a database with accounts."""
    create_accounts(database_url)
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """An exporter with one board."""
    with running_exporter() as running:
        running.boards["GPU-1"] = 1_000_000
        yield running


class TickingClock(FakeClock):
    """A clock that goes on a little whenever it is looked at."""

    def now_ms(self) -> int:
        """The time, a millisecond later than before."""
        self.now += 1
        return self.now


class Hall(Factory):
    """A recorder that reads exporters, a clock that the test sets, and the metrics."""

    def __init__(
        self, engine: Engine, *exporters: Exporter, clock: FakeClock, cadence_ms: int
    ) -> None:
        super().__init__("h100")
        self.clock = clock
        self.recorder = EnergyRecorder(
            EnergyStore(engine),
            attribution=AttributionStore(engine, factories=FactoryStore(engine)),
            sources=[EnergySource(pool="h100", url=each.url) for each in exporters],
            cadence_ms=cadence_ms,
            live=self.live,
            power=EfficiencyStore(engine),
            counted=FactStore(engine),
            clock=self.clock,
        )

    def read_after(self, passed_ms: int) -> None:
        """Read all exporters once more time has passed."""
        self.clock.now += passed_ms
        self.recorder.read_sources_now()

    @property
    def failures(self) -> list[ScrapeFailure | None]:
        """Why the last reads failed."""
        return [state.failure for state in self.recorder.source_states()]


@contextlib.contextmanager
def hall_of(
    engine: Engine,
    *exporters: Exporter,
    clock: FakeClock | None = None,
    cadence_ms: int = SCRAPE_MS,
) -> Iterator[Hall]:
    """A hall for the time of the block."""
    hall = Hall(engine, *exporters, clock=clock or FakeClock(BEGIN_MS), cadence_ms=cadence_ms)
    try:
        yield hall
    finally:
        hall.recorder.stop()


@pytest.fixture
def hall(engine: Engine, exporter: Exporter) -> Iterator[Hall]:
    """A hall with the one exporter."""
    with hall_of(engine, exporter) as hall:
        yield hall


def measured_mj(engine: Engine) -> int:
    """Return what was measured in all."""
    return sum(it.measured_mj for it in pools_of(engine).values())


def test_read__energy_between_two_reads(hall: Hall, exporter: Exporter, engine: Engine) -> None:
    """The first read says where counters stand; from then on what they gain is energy."""
    hall.read_after(0)
    assert measured_mj(engine) == 0
    exporter.boards["GPU-1"] += 700 * SCRAPE_MS
    hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 700 * SCRAPE_MS
    assert hall.show("energy_joules_total", pool="h100", source="dcgm") == 10_500
    assert hall.show("power_valid", pool="h100") == 1
    last_seconds = hall.show("energy_last_sample_timestamp_seconds", pool="h100")
    assert last_seconds == (BEGIN_MS + SCRAPE_MS) / 1000


def test_read__exporter_vanishes_and_comes_back(
    hall: Hall, exporter: Exporter, engine: Engine
) -> None:
    """While it is away power is not valid; when it is back its energy is there, as a gap."""
    hall.read_after(0)
    exporter.vanish()
    for _ in range(5):
        hall.read_after(SCRAPE_MS)
    assert hall.failures == [ScrapeFailure.UNREACHABLE]
    assert hall.show("energy_scrapes_failed_total", reason="unreachable") == 5
    assert hall.show("power_valid", pool="h100") == 0
    exporter.open()
    exporter.boards["GPU-1"] += 90_000
    hall.read_after(SCRAPE_MS)
    assert hall.failures == [None]
    assert hall.show("power_valid", pool="h100") == 1
    assert hall.show("energy_gap_seconds_total") == 90
    assert hall.show("energy_unattributed_joules_total", reason="gap") == 90
    assert measured_mj(engine) == 90_000


def test_read__counters_begin_anew(hall: Hall, exporter: Exporter, engine: Engine) -> None:
    """A driver that was loaded anew loses nothing but what was used before it, and is noted."""
    hall.read_after(0)
    exporter.boards["GPU-1"] = 2_500
    hall.read_after(SCRAPE_MS)
    assert hall.show("energy_counter_resets_total", pool="h100") == 1
    assert measured_mj(engine) == 2_500


def test_read__board_in_parts_counts_once(hall: Hall, exporter: Exporter, engine: Engine) -> None:
    """A board that repeats its counter for each of its parts (MIG) is measured once."""
    for value in (1_000_000, 1_007_000):
        parts = [sample("GPU-1", value, part=str(part)) for part in range(7)]
        exporter.answer = saying("\n".join(parts))
        hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 7_000
    (state,) = hall.recorder.source_states()
    assert state.device_count == 1


@pytest.mark.parametrize(
    ("page", "failure"),
    [
        ("<html>Sign in</html>", ScrapeFailure.NO_COUNTERS),
        (b"\xff", ScrapeFailure.UNREADABLE),
        (sample("GPU-1", "NaN"), ScrapeFailure.UNREADABLE),
        (sample("GPU-1", "-5"), ScrapeFailure.UNREADABLE),
        (sample("GPU-1", 9223372036854775794), ScrapeFailure.UNREADABLE),
    ],
)
def test_read__garbage_is_counted_and_harms_nothing(
    *, hall: Hall, exporter: Exporter, engine: Engine, page: str | bytes, failure: ScrapeFailure
) -> None:
    """What makes no sense is counted by what it is; no energy comes of it and none is lost."""
    hall.read_after(0)
    exporter.answer = saying(page)
    hall.read_after(SCRAPE_MS)
    assert hall.failures == [failure]
    assert hall.show("energy_scrapes_failed_total", reason=failure) == 1
    assert measured_mj(engine) == 0
    exporter.answer = None
    exporter.boards["GPU-1"] += 123
    hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 123
    assert hall.show("energy_counter_resets_total") == 0


def test_read__counter_of_something_else(hall: Hall, exporter: Exporter, engine: Engine) -> None:
    """A leap that no board can have used is no energy, there and back, and its time is a gap."""
    lifetime_mj = 10**12
    for value in (lifetime_mj, 10**15, lifetime_mj + 300, lifetime_mj + 400):
        exporter.boards["GPU-1"] = value
        hall.read_after(SCRAPE_MS)
    assert hall.show("energy_counter_resets_total") == 2
    assert hall.show("energy_gap_seconds_total") == 30
    assert measured_mj(engine) == 100


def test_read__one_exporter_harms_no_other(engine: Engine, exporter: Exporter) -> None:
    """Two nodes of a pool: while one is away the other is measured, and power is not valid."""
    with running_exporter() as other, hall_of(engine, exporter, other) as hall:
        other.boards["GPU-2"] = 5
        hall.read_after(0)
        other.vanish()
        for _ in range(5):
            exporter.boards["GPU-1"] += 100
            hall.read_after(SCRAPE_MS)
        assert hall.failures == [None, ScrapeFailure.UNREACHABLE]
        assert measured_mj(engine) == 500
        assert hall.show("power_valid", pool="h100") == 0
        _, silent = hall.recorder.power()
        assert [it.device for it in silent] == ["GPU-2"]


def test_read__two_exporters_of_one_board(engine: Engine, exporter: Exporter) -> None:
    """A board that two exporters see, one of them a moment behind, is measured once."""
    clock = TickingClock(BEGIN_MS)
    with running_exporter() as other, hall_of(engine, exporter, other, clock=clock) as hall:
        for value in (10**6, 10**6 + 700, 10**6 + 1_500):
            exporter.boards["GPU-1"], other.boards["GPU-1"] = value, value - 300
            hall.read_after(SCRAPE_MS)
        assert measured_mj(engine) == 1_500
        assert hall.show("energy_counter_resets_total") == 0


def test_read__database_away_loses_no_energy(
    hall: Hall, exporter: Exporter, engine: Engine, database_url: str
) -> None:
    """What cannot be recorded is not lost: the counters keep it until the next read."""
    hall.read_after(0)

    def lose(*_: object) -> None:
        end_connections(database_url)

    exporter.boards["GPU-1"] += 100
    event.listen(engine, "before_cursor_execute", lose)
    with pytest.raises(Unavailable):
        hall.read_after(SCRAPE_MS)
    event.remove(engine, "before_cursor_execute", lose)
    exporter.boards["GPU-1"] += 11
    hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 111
    assert hall.show("energy_joules_total") == 0.111


def test_read__at_edges_alone_is_no_gap(
    engine: Engine, exporter: Exporter, database_url: str
) -> None:
    """Where the clock is driven from edge to edge, a read at each is all that is expected."""
    with hall_of(engine, exporter, cadence_ms=INTERVAL_MS) as hall:
        hall.read_after(0)
        for _ in range(4):
            exporter.boards["GPU-1"] += 700 * INTERVAL_MS
            hall.read_after(INTERVAL_MS)
        assert hall.show("power_valid", pool="h100") == 1
        assert hall.show("energy_gap_seconds_total") == 0
        assert hall.show("energy_unattributed_joules_total", reason="no_tokens") == 4 * 630_000
        question = "SELECT measured_mj, gap_mj FROM pool_intervals"
        assert ask(database_url, question) == [(630_000_000, 0)] * 4


def test_attribute__once_counted_past_the_end(
    hall: Hall, exporter: Exporter, engine: Engine, database_url: str
) -> None:
    """An interval is attributed when it has ended and what was recorded until then is counted."""
    journal, usage = owner(engine), counting_of(engine)
    hall.recorder.attribute_due()
    assert hall.recorder.attributed_until_ms == BEGIN_MS
    hall.read_after(0)
    exporter.boards["GPU-1"] += 10_000
    hall.read_after(60_000)
    serve(journal, 0, output=5)
    hall.recorder.attribute_due()
    assert shares_of(database_url) == {}
    # It has ended, but not all of it is counted.
    hall.clock.now = BEGIN_MS + INTERVAL_MS
    hall.recorder.attribute_due()
    hall.recorder.attribute_due()
    assert hall.recorder.attributed_until_ms == BEGIN_MS
    assert shares_of(database_url) == {}
    follow(usage).count_once()
    hall.recorder.attribute_due()
    hall.recorder.attribute_due()
    assert hall.recorder.attributed_until_ms == BEGIN_MS + INTERVAL_MS
    assert shares_of(database_url) == {("h100", "free"): 10_000}


def test_attribute__goes_on_while_there_is_always_more_to_count(hall: Hall, engine: Engine) -> None:
    """Under load something is always uncounted: what counts is what had been recorded by then."""
    journal, usage = owner(engine), counting_of(engine)
    serve(journal, 0, output=1)
    hall.recorder.attribute_due()
    for place in range(1, 4):
        with usage.counting() as step:
            step.read(events_max=1)
            step.advance()
        serve(journal, 0, output=1)
        hall.clock.now = BEGIN_MS + place * INTERVAL_MS
        hall.recorder.attribute_due()
    assert hall.recorder.attributed_until_ms == BEGIN_MS + 2 * INTERVAL_MS
    assert not FactStore(engine).is_counted(FactStore(engine).recorded_up_to())


def test_forget__after_a_week_of_silence(hall: Hall, engine: Engine, database_url: str) -> None:
    """A counter that was silent for a week is forgotten, and begins anew when it comes back."""
    hall.read_after(0)
    hall.clock.now += 7 * 24 * 3_600_000
    hall.recorder.forget()
    assert len(ask(database_url, "SELECT * FROM energy_counters")) == 1
    hall.clock.now += 1
    hall.recorder.forget()
    assert ask(database_url, "SELECT * FROM energy_counters") == []
    assert measured_mj(engine) == 0
