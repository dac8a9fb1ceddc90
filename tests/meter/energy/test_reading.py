"""Rounds of reading sources: what is made of counters, gauges and ratings, and what fails alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from meter.energy.counters import Estimate, Reading, Source
from meter.energy.reading import Readers, SourceState, gaps_of
from meter.energy.sources.dcgm import DcgmReader
from meter.energy.sources.nvml import NvmlReader
from meter.energy.sources.opening import open_source
from meter.energy.sources.port import Found, Sample, SourceFailed, SourceFailure
from meter.energy.sources.static import StaticReader
from meter.options import EnergySource
from tests.clock import FakeClock
from tests.meter.plain_events import BEGIN_MS

SCRAPE_MS = 15_000
GAP_MS = 120_000


class Shown:
    """A source that shows what a test has it show."""

    def __init__(self, source: Source = Source.DCGM, *, pool: str = "h100") -> None:
        self.source = source
        self.pool = pool
        self.url = "nvml" if source is Source.NVML else "http://x/"
        self.found: Found | SourceFailure = Found(samples=[])
        self.is_closed = False

    def show(self, *samples: Sample, failure: SourceFailure | None = None) -> None:
        """Show samples."""
        self.found = Found(samples=samples, failure=failure)

    def read(self) -> Found:
        """Return them."""
        if isinstance(self.found, SourceFailure):
            raise SourceFailed(self.found)
        return self.found

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


class Room:
    """Sources that are read, by a clock that the test sets."""

    def __init__(self, shown: Sequence[Shown]) -> None:
        self.clock = FakeClock(BEGIN_MS)
        rest = iter(shown)

        def open_reader(*_: object, **__: object) -> tuple[Source, Shown]:
            opened = next(rest)
            return opened.source, opened

        self.readers = Readers(
            [EnergySource(pool=it.pool, url=it.url) for it in shown],
            gaps_ms=gaps_of(cadence_ms=SCRAPE_MS, collect_ms=30_000),
            clock=self.clock,
            open_reader=open_reader,
        )
        self.implausible: list[str] = []

    def read(
        self, *, after_ms: int = SCRAPE_MS, recorded: bool = True, is_ours: bool = True
    ) -> list[Any]:
        """Read once more time has passed; return all readings."""
        self.clock.now += after_ms
        taken = self.readers.read(is_ours=lambda source: is_ours or source.is_nvml)
        self.implausible = taken.implausible
        readings = [it for found in taken.readings.values() for it in found]
        if recorded:
            self.readers.settle(readings)
        return readings


@contextmanager
def room_of(*shown: Shown) -> Iterator[Room]:
    """A room for the time of the block."""
    room = Room(shown)
    try:
        yield room
    finally:
        room.readers.stop()


def reading(counter_mj: int, *, power_mw: int | None = None, **changes: Any) -> Reading:  # noqa: ANN401
    """Return the reading of the board after the first round."""
    fields = {"name": "h100", "device": "a", "time_ms": BEGIN_MS + SCRAPE_MS, **changes}
    return Reading(counter_mj=counter_mj, power_mw=power_mw, **fields)


@pytest.mark.parametrize(
    ("cadence_ms", "collect_ms", "read_ms", "reported_ms"),
    [
        (15_000, 30_000, 120_000, 900_000),
        (15_000, 10_000, 60_000, 900_000),
        (1_000, 1_000, 60_000, 900_000),
        (60_000, 30_000, 240_000, 900_000),
        (900_000, 30_000, 3_600_000, 3_600_000),
    ],
)
def test_gaps__four_of_the_rarer(
    cadence_ms: int, collect_ms: int, read_ms: int, reported_ms: int
) -> None:
    """Four scrapes, or four collections, a minute at least; for reports a quarter of an hour."""
    gaps = gaps_of(cadence_ms=cadence_ms, collect_ms=collect_ms)
    assert gaps.keys() == set(Source)
    assert gaps[Source.REPORTED] == reported_ms
    assert {gaps[it] for it in Source if it is not Source.REPORTED} == {read_ms}


@pytest.mark.parametrize(
    ("url", "source", "kind"),
    [
        ("http://node-1:9400/metrics", Source.DCGM, DcgmReader),
        ("nvml", Source.NVML, NvmlReader),
        ("static:700", Source.STATIC, StaticReader),
    ],
)
def test_open__by_how_it_is_written(url: str, source: Source, kind: type) -> None:
    """What is written in the settings says what reads it."""
    opened, reader = open_source(EnergySource(pool="a", url=url), monotonic_seconds=float)
    assert opened is source
    assert isinstance(reader, kind)


def test_read__counters_with_their_gauges() -> None:
    """A board with a counter is a reading, with what it draws beside it; its gauge counts not."""
    shown = Shown()
    with room_of(shown) as room:
        shown.show(Sample(device="a", counter_mj=5, power_mw=7), Sample(device="b", counter_mj=6))
        assert room.read() == [reading(5, power_mw=7), reading(6, device="b")]
        assert [type(it) for it in room.read()] == [Reading, Reading]


@pytest.mark.parametrize("swapped", [False, True])
def test_read__two_exporters_of_one_board(*, swapped: bool) -> None:
    """A board that two show is one, with the higher counter, and a gauge that either has."""
    low, high = Shown(), Shown()
    low.show(Sample(device="a", counter_mj=5, power_mw=7), Sample(device="b", power_mw=3))
    high.show(Sample(device="a", counter_mj=6), Sample(device="b", counter_mj=9))
    with room_of(*((high, low) if swapped else (low, high))) as room:
        found = [reading(6, power_mw=7), reading(9, device="b", power_mw=3)]
        assert room.read() == found


def test_read__of_two_pools_both_are_told() -> None:
    """Whose a board is that two pools show is decided where its counter is kept."""
    first, second = Shown(), Shown(pool="h200")
    first.show(Sample(device="a", counter_mj=5))
    second.show(Sample(device="a", counter_mj=6))
    with room_of(first, second) as room:
        assert room.read() == [reading(5), reading(6, name="h200")]


def test_read__while_another_server_does() -> None:
    """What another server reads is left to it; the accelerators of this machine are not."""
    near, far = Shown(source=Source.NVML), Shown()
    near.show(Sample(device="a", counter_mj=5))
    far.show(Sample(device="b", counter_mj=6))
    with room_of(near, far) as room:
        assert len(room.read()) == 2
        assert [it.device for it in room.read(is_ours=False)] == ["a"]
        assert [it.read_ms for it in room.readers.states] == [room.clock.now, None]
        assert len(room.read()) == 2


def test_read__gauges_alone_are_estimates() -> None:
    """A board without a counter is the integral of its gauge, from its second sample on."""
    shown = Shown()
    with room_of(shown) as room:
        shown.show(Sample(device="a", power_mw=400_000))
        assert room.read() == []
        for step in (1, 2):
            begin_ms = BEGIN_MS + step * SCRAPE_MS
            assert room.read() == [
                Estimate(
                    name="h100",
                    device="a",
                    since_ms=begin_ms,
                    time_ms=begin_ms + SCRAPE_MS,
                    energy_mj=400 * SCRAPE_MS,
                )
            ]


def test_read__what_was_not_recorded_comes_again() -> None:
    """An estimate that could not be recorded is part of the next one."""
    shown = Shown()
    shown.show(Sample(device="a", power_mw=400_000))
    with room_of(shown) as room:
        room.read()
        room.read(recorded=False)
        (found,) = room.read()
        assert found.energy_mj == 2 * 400 * SCRAPE_MS


def test_read__counter_that_is_missing_for_once() -> None:
    """While a board had a counter of late its gauge is not counted: the counter will hold it."""
    shown = Shown()
    with room_of(shown) as room:
        shown.show(Sample(device="a", counter_mj=5, power_mw=400_000))
        room.read()
        shown.show(Sample(device="a", power_mw=400_000))
        for _ in range(GAP_MS // SCRAPE_MS):
            assert room.read() == []
        # It is gone for good. The first sample only says where the integral begins.
        assert room.read() == []
        (found,) = room.read()
        assert isinstance(found, Estimate)
        shown.show(Sample(device="a", counter_mj=9, power_mw=400_000))
        assert [type(it) for it in room.read()] == [Reading]


def test_read__gauge_that_no_board_can_show() -> None:
    """A gauge of more than a board draws, such as one in milliwatts, gives no energy."""
    shown = Shown()
    with room_of(shown) as room:
        shown.show(Sample(device="a", power_mw=412_105))
        room.read()
        shown.show(Sample(device="a", power_mw=412_105_000))
        assert room.read() == []
        assert room.implausible == ["h100"]
        shown.show(Sample(device="a", power_mw=412_105))
        (found,) = room.read()
        assert room.implausible == []
        # The straight line leads over what was left out.
        assert found.energy_mj == 412_105 * 2 * SCRAPE_MS // 1_000


def test_read__gauge_silent_for_too_long() -> None:
    """What a board drew while nobody looked is not known."""
    shown = Shown()
    shown.show(Sample(device="a", power_mw=400_000))
    with room_of(shown) as room:
        room.read()
        assert room.read(after_ms=GAP_MS + 1) == []
        assert len(room.read()) == 1


def test_withdraw__ratings_beside_what_is_measured() -> None:
    """A rating whose pool is measured is no reading, and begins anew when it counts again."""
    shown = Shown(Source.STATIC)
    shown.show(Sample(device="static:h100", power_mw=10**9))
    with room_of(shown) as room:
        room.read()
        room.clock.now += SCRAPE_MS
        taken = room.readers.read()
        assert len(taken.readings[Source.STATIC]) == 1
        room.readers.withdraw(taken, pools={"h100"})
        assert taken.readings[Source.STATIC] == []
        assert room.read() == []
        assert len(room.read()) == 1


@pytest.mark.parametrize("failure", list(SourceFailure))
def test_read__one_source_harms_no_other(failure: SourceFailure) -> None:
    """What fails is in its state, with what it was before; the others are read."""
    bad, good = Shown(), Shown(Source.NVML)
    bad.show(Sample(device="b", counter_mj=1))
    good.show(Sample(device="a", counter_mj=5))
    with room_of(bad, good) as room:
        room.read()
        bad.found = failure
        assert [it.device for it in room.read()] == ["a"]
        source = EnergySource(pool="h100", url="http://x/")
        assert room.readers.states[0] == SourceState(
            source=source, read_ms=BEGIN_MS + SCRAPE_MS, device_count=1, failure=failure
        )
        assert room.readers.states[1].failure is None
        # Some of its samples make no sense, or none: others count, and the failure is told.
        for samples in ((), (Sample(device="b", counter_mj=2),)):
            bad.show(*samples, failure=failure)
            assert len(room.read()) == 1 + len(samples)
            assert room.readers.states[0].failure is failure


def test_stop__closes_all() -> None:
    """Who stops lets go of all sources."""
    shown = (Shown(), Shown())
    with room_of(*shown):
        assert not any(it.is_closed for it in shown)
    assert all(it.is_closed for it in shown)
