"""The simulated exporter: pages that the meter reads, counters that only go up."""

import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cli.demo.children import Link, child
from cli.demo.exporter import HOST, Counters, page, run_exporter
from cli.demo.teams import LATENCY, THROUGHPUT
from cli.demo.traffic import HOUR_MS, hourly_output
from cli.demo.world import BEGIN, BOARDS, END, to_ms
from meter.energy.sources.dcgm import read_page
from tests.simulate.fake_meter import API_KEY, FakeMeter, running

BEGIN_MS = to_ms(BEGIN)
LOADS = {pool: hourly_output(pool, event_count=20_000, seed=1) for pool in BOARDS}


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    """A running exporter."""
    with child(run_exporter, 20_000, 1, name="exporter", logs=tmp_path) as link:
        yield link


@pytest.mark.parametrize("pool", BOARDS)
def test_page__is_read_by_the_meter(pool: str) -> None:
    """The meter finds each board once, though one of them is shown in parts, in mJ or in J."""
    counters = Counters(BOARDS[pool], load=LOADS[pool])
    at_ms = BEGIN_MS + 40 * HOUR_MS + 123_456
    text = page(pool, counters, boards=BOARDS[pool], at_ms=at_ms)
    found = read_page(text)
    energy = [counters.energy_mj(it, at_ms=at_ms) for it in range(BOARDS[pool].count)]
    unit = 1 if pool == THROUGHPUT else 1_000
    assert list(found.counters_mj.values()) == [it // unit * unit for it in energy]
    assert found.unreadable_count == 0
    samples = [line for line in text.splitlines() if "ENERGY" in line and not line.startswith("#")]
    assert len(samples) == BOARDS[pool].count + (2 if pool == THROUGHPUT else 0)


@pytest.mark.parametrize("pool", BOARDS)
def test_counter__adds_up_the_watts(pool: str) -> None:
    """Within an hour a counter grows by the watts times the milliseconds, to the millijoule."""
    counters = Counters(BOARDS[pool], load=LOADS[pool])
    for hour in range(0, 700, 7):
        begin_ms = BEGIN_MS + hour * HOUR_MS
        watts = counters.watts(1, at_ms=begin_ms)
        assert BOARDS[pool].idle_watts <= watts <= BOARDS[pool].peak_watts
        passed = [counters.energy_mj(1, at_ms=begin_ms + ms) for ms in (0, 900_000, HOUR_MS)]
        assert passed == [passed[0] + watts * ms for ms in (0, 900_000, HOUR_MS)]


def test_counter__outside_the_month() -> None:
    """Before the month and behind it a counter stands still."""
    counters = Counters(BOARDS[LATENCY], load=LOADS[LATENCY])
    for at_ms, beyond_ms in ((BEGIN_MS, 0), (to_ms(END), to_ms(END) * 2)):
        assert counters.energy_mj(0, at_ms=at_ms) == counters.energy_mj(0, at_ms=beyond_ms)


def test_exporter__before_it_knows_the_clock(link: Link) -> None:
    """Without a time there is nothing to show; other pages are not there."""
    port = link.recv()
    assert _get(port, f"/{LATENCY}/metrics")[0] == http.client.SERVICE_UNAVAILABLE
    assert _get(port, "/elsewhere/metrics")[0] == http.client.NOT_FOUND


def test_exporter__follows_the_driven_clock(link: Link) -> None:
    """Each scrape shows the counters at the time where the installation's clock stands."""
    port = link.recv()
    counters = Counters(BOARDS[LATENCY], load=LOADS[LATENCY])
    with running(FakeMeter(driven_ms=BEGIN_MS + 30 * HOUR_MS)) as meter:
        link.send((meter.target, API_KEY))
        for hours in (30, 31, 700):
            meter.driven_ms = BEGIN_MS + hours * HOUR_MS
            with ThreadPoolExecutor(4) as pool:
                answers = set(pool.map(lambda _: _get(port, f"/{LATENCY}/metrics"), range(4)))
            wanted = page(LATENCY, counters, boards=BOARDS[LATENCY], at_ms=meter.driven_ms)
            assert answers == {(http.client.OK, wanted)}


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
