"""The recorder where power is known badly: whose a board is, estimates, units, and what it says."""

import pytest
from sqlalchemy import Engine, event

from meter.domain.boundary import Boundary
from meter.domain.errors import Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_iso
from meter.energy.validity import PowerFault
from meter.options import EnergySource
from meter.store.factories import FactoryStore
from tests.exporter import Exporter, running_exporter
from tests.meter.energy.hall import SCRAPE_MS, Hall, hall_of, measured_mj, reported, source_of
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.pooled import pools_of
from tests.meter.store.recording import (
    ask,
    end_connections,
)


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
