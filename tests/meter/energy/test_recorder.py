"""The recorder with a real database and exporters over real HTTP: whatever these do, it goes on."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from meter.domain.boundary import Boundary
from meter.domain.errors import Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_iso
from meter.energy.counters import Reading
from meter.energy.reading import Readers, gaps_of
from meter.energy.recorder import EnergyRecorder
from meter.energy.sources.port import SourceFailure
from meter.energy.validity import PoolPower, PowerFault
from meter.options import EnergySource
from meter.runtime.engine import make_engine
from meter.store.attribution import AttributionStore
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from meter.store.facts import FactStore
from meter.store.power import PowerStore
from tests.clock import FakeClock
from tests.exporter import NEW_NAME, Exporter, running_exporter, sample, saying
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
        self, engine: Engine, *sources: EnergySource, clock: FakeClock, cadence_ms: int
    ) -> None:
        super().__init__("h100")
        self.clock = clock
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
        )

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
    assert hall.failures == [SourceFailure.UNREACHABLE]
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
        ("<html>Sign in</html>", SourceFailure.NO_COUNTERS),
        (b"\xff", SourceFailure.UNREADABLE),
        (sample("GPU-1", "NaN"), SourceFailure.UNREADABLE),
        (sample("GPU-1", "-5"), SourceFailure.UNREADABLE),
        (sample("GPU-1", 9223372036854775794), SourceFailure.UNREADABLE),
    ],
)
def test_read__garbage_is_counted_and_harms_nothing(
    *, hall: Hall, exporter: Exporter, engine: Engine, page: str | bytes, failure: SourceFailure
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
        assert hall.failures == [None, SourceFailure.UNREACHABLE]
        assert measured_mj(engine) == 500
        assert hall.show("power_valid", pool="h100") == 0
        assert [it.device for it in hall.recorder.silent()] == ["GPU-2"]
        assert hall.power().faults == (PowerFault.STALE,)


def test_read__two_exporters_of_one_board(engine: Engine, exporter: Exporter) -> None:
    """A board that two exporters see, one of them a moment behind, is measured once."""
    clock = TickingClock(BEGIN_MS)
    with running_exporter() as other, hall_of(engine, exporter, other, clock=clock) as hall:
        for value in (10**6, 10**6 + 700, 10**6 + 1_500):
            exporter.boards["GPU-1"], other.boards["GPU-1"] = value, value - 300
            hall.read_after(SCRAPE_MS)
        assert measured_mj(engine) == 1_500
        assert hall.show("energy_counter_resets_total") == 0


def test_read__mixed_fleet_is_the_ground_truth(engine: Engine) -> None:
    """Old and new names, in mJ and J, in parts and by two exporters: each board once, as it is."""
    truth = {f"GPU-{number}": number * 10**9 for number in range(1, 5)}
    with (
        running_exporter() as old,
        running_exporter() as new,
        hall_of(engine, old, new) as hall,
    ):
        for step in range(4):
            joules = {device: value // 1_000 for device, value in truth.items()}
            parts = [sample("GPU-1", truth["GPU-1"], part=str(part)) for part in range(7)]
            old.answer = saying("\n".join([*parts, sample("GPU-2", truth["GPU-2"])]))
            lines = [sample(device, joules[device], name=NEW_NAME) for device in truth]
            hosts = [line.replace('Hostname="node-1"', 'hostname="rack"') for line in lines[1:]]
            new.answer = saying("\n".join(hosts))
            hall.read_after(SCRAPE_MS)
            if step < 3:
                truth = {
                    device: value + (500_000 + step * 1_000) * place
                    for place, (device, value) in enumerate(truth.items(), start=1)
                }
        assert measured_mj(engine) == 10 * (3 * 500_000 + 3_000)
        assert hall.power().device_count == 4
        assert hall.power().is_valid


def test_read__board_of_two_pools(engine: Engine, exporter: Exporter) -> None:
    """Of two pools that show one board, one has its energy; both are not valid, and it is told."""
    with (
        running_exporter() as other,
        hall_of(engine, exporter, source_of(other, pool="h200")) as hall,
    ):
        for _ in range(3):
            exporter.boards["GPU-1"] += 100
            other.boards["GPU-1"] = exporter.boards["GPU-1"]
            hall.read_after(SCRAPE_MS)
        assert {it.pool: it.measured_mj for it in pools_of(engine).values()} == {"h100": 200}
        assert hall.power().faults == (PowerFault.CONFLICT,)
        assert hall.show("energy_readings_ignored_total", pool="h200", reason="conflict") == 3
        # Once it is in one pool alone, and that has been so for a while, power is valid again.
        other.boards = {"GPU-2": 5}
        for _ in range(61):
            for each, board in ((exporter, "GPU-1"), (other, "GPU-2")):
                each.boards[board] += 100
            hall.read_after(SCRAPE_MS)
        assert hall.power().faults == hall.power("h200").faults == ()


def test_record__board_that_is_read_is_not_reported(
    hall: Hall, exporter: Exporter, engine: Engine
) -> None:
    """A board that an exporter shows is read; who reports it as well adds nothing to it."""
    hall.read_after(0)
    again = [reported(10**6 + value, time_ms=value, device="GPU-1") for value in (400, 900)]
    assert hall.recorder.record(again) == 0
    exporter.boards["GPU-1"] += 1_000
    hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 1_000
    assert hall.power().faults == (PowerFault.CONFLICT,)
    # It is reported alone from now on: that counts from there.
    exporter.vanish()
    hall.read_after(SCRAPE_MS * 10)
    later = [
        reported(2 * 10**6 + value, time_ms=165_000 + value, device="GPU-1") for value in (1, 9)
    ]
    assert hall.recorder.record(later) == 2
    assert measured_mj(engine) == 1_008


def test_read__gauges_of_boards_without_counters(
    hall: Hall, exporter: Exporter, engine: Engine, database_url: str
) -> None:
    """Where a board has no counter, what it draws is added up, and all of that is estimated."""
    exporter.boards, exporter.watts = {}, {"GPU-1": 100.0}
    hall.read_after(0)
    exporter.watts["GPU-1"] = 300.0
    hall.read_after(SCRAPE_MS)
    hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == (200 + 300) * SCRAPE_MS
    assert hall.show("energy_estimated_joules_total", method="gauge_integral") == 7_500
    question = "SELECT measured_mj, estimated_mj, covered_ms, gap_ms FROM energy_intervals"
    assert ask(database_url, question) == [(7_500_000, 7_500_000, 2 * SCRAPE_MS, 0)]
    assert hall.power().is_valid


def test_read__gauges_while_the_database_is_away(
    hall: Hall, exporter: Exporter, engine: Engine, database_url: str
) -> None:
    """What gauges add up to is kept until it can be recorded."""
    exporter.boards, exporter.watts = {}, {"GPU-1": 100.0}
    hall.read_after(0)
    hall.read_after(SCRAPE_MS)

    def lose(*_: object) -> None:
        end_connections(database_url)

    event.listen(engine, "before_cursor_execute", lose)
    with pytest.raises(Unavailable):
        hall.read_after(SCRAPE_MS)
    event.remove(engine, "before_cursor_execute", lose)
    hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 3 * 100 * SCRAPE_MS
    assert hall.show("energy_gap_seconds_total") == 0


def test_read__rating_alone(engine: Engine) -> None:
    """A pool of which nothing is measured has its rating, marked as such."""
    rating = EnergySource(pool="old", url="static:2000")
    with hall_of(engine, rating) as hall:
        for _ in range(3):
            hall.read_after(SCRAPE_MS)
        assert measured_mj(engine) == 2 * 2_000 * SCRAPE_MS
        assert hall.show("energy_estimated_joules_total", pool="old", method="static") == 60_000
        assert hall.power("old").is_valid


def test_read__rating_beside_what_is_measured(engine: Engine) -> None:
    """While anything of the pool is measured, and a week on, its rating counts nothing."""
    with hall_of(engine, EnergySource(pool="h100", url="static:2000")) as hall:
        hall.read_after(0)
        hall.read_after(SCRAPE_MS)
        assert measured_mj(engine) == 30_000_000
        hall.recorder.record([reported(0, time_ms=SCRAPE_MS), reported(7, time_ms=2 * SCRAPE_MS)])
        for _ in range(10):
            hall.read_after(SCRAPE_MS)
        assert measured_mj(engine) == 30_000_007
        # Nor is it missed.
        assert hall.power().faults == ()
        # What comes back holds its energy: it would be there twice.
        hall.read_after(3_600_000)
        hall.read_after(SCRAPE_MS)
        assert measured_mj(engine) == 30_000_007
        hall.clock.now += 7 * 24 * 3_600_000
        hall.recorder.forget()
        hall.read_after(0)
        hall.read_after(SCRAPE_MS)
        assert measured_mj(engine) == 60_000_007


FACTORY = f"""
format = 1
from = {to_iso(BEGIN_MS)}
[sites.oslo]
contracted_watts = 1_000_000
[pools.h100]
site = "oslo"
hardware = "H100 SXM"
devices = ["GPU-1", "GPU-2"]
"""


def test_read__boards_that_nobody_described(hall: Hall, exporter: Exporter, engine: Engine) -> None:
    """Energy of a board that the description does not list is unmapped, and ratios are withheld."""
    FactoryStore(engine).set(FACTORY, key_id="", now_ms=BEGIN_MS)
    exporter.boards["GPU-9"] = 5
    for _ in range(2):
        hall.read_after(SCRAPE_MS)
        for device in exporter.boards:
            exporter.boards[device] += 1_000
    assert hall.power().faults == (PowerFault.DEVICES,)
    (pool,) = pools_of(engine).values()
    hall.clock.now += INTERVAL_MS
    hall.recorder.attribute_due()
    hall.recorder.attribute_due()
    (pool,) = pools_of(engine).values()
    assert pool.measured_mj == 2_000
    assert pool.unattributed_mj == {"no_tokens": 1_000, "unmapped": 1_000}
    del exporter.boards["GPU-9"]
    exporter.boards["GPU-2"] = 5
    hall.clock.now += 6 * 3_600_000
    hall.read_after(SCRAPE_MS)
    assert hall.power().faults == ()


def test_record__hosts_and_sites_are_places_of_their_own(
    hall: Hall, exporter: Exporter, database_url: str
) -> None:
    """Boards, the host that holds them and the site's meter are measured, never added up."""
    hall.read_after(0)
    exporter.boards["GPU-1"] += 1_000
    hall.read_after(SCRAPE_MS)
    oslo = {"boundary": Boundary.FACILITY, "name": "oslo", "device": "meter"}
    host = {"boundary": Boundary.HOST}
    readings = [
        *(reported(value, time_ms=value, **host) for value in (0, 3_000)),
        # More than a rack may use, less than a site.
        *(reported(value, time_ms=value // 10**7, **oslo) for value in (0, 9 * 10**10)),
    ]
    assert hall.recorder.record(readings) == 4
    question = "SELECT boundary, name, sum(measured_mj)::bigint FROM energy_intervals GROUP BY 1, 2"
    assert sorted(ask(database_url, question)) == [
        ("board", "h100", 1_000),
        ("facility", "oslo", 9 * 10**10),
        ("host", "h100", 3_000),
    ]
    assert ask(database_url, "SELECT DISTINCT pool FROM pool_intervals") == [("h100",)]
    assert [it.pool for it in hall.recorder.power()] == ["h100"]
    assert hall.power().device_count == 2


def test_read__counter_that_leaps_is_not_plausible(hall: Hall, exporter: Exporter) -> None:
    """A counter in the wrong unit, a thousand times too large, is noticed at once."""
    hall.read_after(0)
    exporter.boards["GPU-1"] *= 1_000
    hall.read_after(SCRAPE_MS)
    assert hall.power().faults == (PowerFault.IMPLAUSIBLE,)
    assert hall.show("power_fault", fault="implausible") == 1
    for _ in range(61):
        exporter.boards["GPU-1"] += 1_000
        hall.read_after(SCRAPE_MS)
    assert hall.power().faults == ()


def test_read__counter_in_thousandths_is_cross_checked(hall: Hall, exporter: Exporter) -> None:
    """A counter that is a thousand times too small is found by its gauge, within minutes."""
    exporter.watts["GPU-1"] = 700.0
    for _ in range(24):
        exporter.boards["GPU-1"] += 700 * SCRAPE_MS // 1_000
        hall.read_after(SCRAPE_MS)
    assert hall.power().faults == (PowerFault.CROSS_CHECK,)
    assert hall.show("power_valid", pool="h100") == 0


def test_read__gauge_agrees_with_its_counter(hall: Hall, exporter: Exporter) -> None:
    """After an hour the ratio of gauge and counter is known, and shown."""
    exporter.watts["GPU-1"] = 690.0
    for _ in range(245):
        exporter.boards["GPU-1"] += 700 * SCRAPE_MS
        hall.read_after(SCRAPE_MS)
    assert hall.power().cross_check_ratio == pytest.approx(690 / 700)
    assert hall.show("energy_crosscheck_ratio", pool="h100") == pytest.approx(690 / 700)
    assert hall.power().is_valid


def test_read__frozen_counter(hall: Hall, exporter: Exporter) -> None:
    """A counter that stands still is no sample: power is not valid until it moves."""
    exporter.boards["GPU-2"] = 5
    hall.read_after(0)
    for _ in range(5):
        exporter.boards["GPU-2"] += 10
        hall.read_after(SCRAPE_MS)
    assert hall.power().faults == (PowerFault.STALE,)
    exporter.boards["GPU-1"] += 10
    hall.read_after(SCRAPE_MS)
    assert hall.power().faults == ()


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
        question = "SELECT measured_mj, gap_mj FROM energy_intervals"
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
