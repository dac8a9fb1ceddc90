"""The cross-check: gauges and counters that agree, that differ a little, and by a thousand."""

import csv
from bisect import bisect_right
from collections.abc import Callable

import pytest

from meter.domain.boundary import Boundary
from meter.domain.limits import CROSS_CHECK_DEVICES_MAX
from meter.energy.counters import Bounds, Counter, Reading, Source, take
from meter.energy.cross_check import MINUTE_MS, Agreement, CrossCheck
from tests.meter.plain_events import BEGIN_MS
from tests.nvml import H100

BOUNDS = Bounds(watts_max=dict.fromkeys(Boundary, 10**9), gaps_ms=dict.fromkeys(Source, 120_000))
SCRAPE_MS = 15_000
HOUR = 60


class Boards:
    """Boards that draw so many watts, whose counters and gauges say what a test has them say."""

    def __init__(self) -> None:
        self.check = CrossCheck()
        self.now_ms = BEGIN_MS
        self._known: dict[str, Counter] = {}
        self._counters: dict[str, float] = {}

    def run(
        self,
        minutes: float,
        *,
        watts: float = 700,
        counter: float = 1,
        gauge: float = 1,
        devices: tuple[str, ...] = ("GPU-1",),
        pool: str = "h100",
        collect_ms: int = SCRAPE_MS,
    ) -> None:
        """Let time pass; what is shown is new each `collect_ms`, and so many times wrong."""
        end_ms = self.now_ms + int(minutes * MINUTE_MS)
        while self.now_ms < end_ms:
            self.now_ms += SCRAPE_MS
            if self.now_ms % collect_ms == 0:
                for device in devices:
                    gained = counter * watts * collect_ms
                    self._counters[device] = self._counters.get(device, 10**9) + gained
            readings = [
                Reading(
                    name=pool,
                    device=device,
                    time_ms=self.now_ms,
                    counter_mj=int(self._counters[device]),
                    power_mw=int(gauge * watts * 1_000),
                )
                for device in devices
                if device in self._counters
            ]
            done = take(readings, source=Source.DCGM, known=self._known, bounds=BOUNDS)
            self._known.update(done.counters)
            self.check.add(done.steps)

    def look(self, pool: str = "h100") -> Agreement | None:
        """Return how the pool's gauges and counters agree now."""
        return self.check.look(now_ms=self.now_ms).get(pool)


@pytest.mark.parametrize("collect_ms", [SCRAPE_MS, 2 * SCRAPE_MS])
def test_look__agree(collect_ms: int) -> None:
    """Where both say the same, the ratio is 1 once most of an hour is known, repeated or not."""
    boards = Boards()
    boards.run(48, collect_ms=collect_ms)
    assert boards.look() == Agreement(ratio=None, is_faulty=False)
    boards.run(6, collect_ms=collect_ms)
    found = boards.look()
    assert found is not None
    assert found.ratio == pytest.approx(1.0)
    assert not found.is_faulty


@pytest.mark.parametrize(
    ("gauge", "is_faulty"), [(1.04, False), (0.96, False), (1.06, True), (0.94, True)]
)
def test_look__differ_a_little(gauge: float, *, is_faulty: bool) -> None:
    """More than 5 % over an hour is a fault; for less time it is a gauge that looks too seldom."""
    boards = Boards()
    boards.run(40, gauge=gauge)
    assert boards.look() == Agreement(ratio=None, is_faulty=False)
    boards.run(20, gauge=gauge)
    found = boards.look()
    assert found is not None
    assert found.ratio == pytest.approx(gauge, rel=1e-4)
    assert found.is_faulty is is_faulty


@pytest.mark.parametrize(
    ("counter", "gauge"), [(0.001, 1), (1000, 1), (1, 0.001), (1, 1000), (0.45, 1), (1, 0)]
)
def test_look__lie_in_their_unit(counter: float, gauge: float) -> None:
    """A counter or a gauge that is a thousand times wrong is noticed within minutes."""
    boards = Boards()
    boards.run(3, counter=counter, gauge=gauge)
    assert boards.look() == Agreement(ratio=None, is_faulty=False)
    boards.run(2, counter=counter, gauge=gauge)
    assert boards.look() == Agreement(ratio=None, is_faulty=True)


def test_look__one_of_many_boards() -> None:
    """A board that lies is noticed among many that do not; their sum would hide it."""
    boards = Boards()
    many = tuple(f"GPU-{number}" for number in range(50))
    for _ in range(60):
        boards.run(0.25, devices=many)
        boards.now_ms -= SCRAPE_MS
        boards.run(0.25, devices=("GPU-X",), counter=0.4)
    found = boards.look()
    assert found is not None
    assert found.is_faulty


def test_look__mended() -> None:
    """What is put right is believed again, and by the hour once that has passed."""
    boards = Boards()
    boards.run(10, gauge=1000)
    boards.run(6)
    boards.run(20)
    assert boards.look() == Agreement(ratio=None, is_faulty=False)
    boards.run(HOUR)
    found = boards.look()
    assert found is not None
    assert not found.is_faulty


def test_look__other_pools_are_others() -> None:
    """Each pool is looked at alone."""
    boards = Boards()
    for _ in range(24):
        boards.run(0.25)
        boards.now_ms -= SCRAPE_MS
        boards.run(0.25, devices=("GPU-2",), pool="h200", gauge=0.1)
    assert boards.look() == Agreement(ratio=None, is_faulty=False)
    assert boards.look("h200") == Agreement(ratio=None, is_faulty=True)


def test_look__nothing_of_late() -> None:
    """A pool of which nothing was seen for an hour is not known."""
    boards = Boards()
    boards.run(HOUR, gauge=2.5)
    boards.now_ms += HOUR * MINUTE_MS
    assert boards.look() is None


@pytest.fixture(scope="module")
def card() -> Callable[[int], tuple[int, int]]:
    """An H100 under a load that never rests, over and over: its counter and gauge by the ms."""
    with (H100 / "trace.csv").open(encoding="utf-8") as file:
        rows = [
            (int(row["time_us"]) // 1_000, int(row["counter_mj"]), int(row["power_mw"]))
            for row in csv.DictReader(file)
        ]
    times = [time_ms - rows[0][0] for time_ms, _, _ in rows]
    gained_mj = rows[-1][1] - rows[0][1]

    def at(time_ms: int) -> tuple[int, int]:
        rounds, rest_ms = divmod(time_ms, times[-1])
        _, counter_mj, power_mw = rows[bisect_right(times, rest_ms) - 1]
        return counter_mj + rounds * gained_mj, power_mw

    return at


@pytest.mark.parametrize("offset_ms", [0, 700, 1_900])
@pytest.mark.parametrize("cadence_ms", [5_000, 15_000, 30_000])
def test_look__a_real_card(
    card: Callable[[int], tuple[int, int]], cadence_ms: int, offset_ms: int
) -> None:
    """A real card's gauge, looked at now and then, is close enough to its counter, at all times."""
    check, known = CrossCheck(), dict[str, Counter]()
    for time_ms in range(0, 70 * MINUTE_MS, cadence_ms):
        counter_mj, power_mw = card(time_ms + offset_ms)
        done = take(
            [reading(time_ms, counter_mj, power_mw=power_mw)],
            source=Source.NVML,
            known=known,
            bounds=BOUNDS,
        )
        known.update(done.counters)
        check.add(done.steps)
        found = check.look(now_ms=BEGIN_MS + time_ms).get("h100")
        assert found is None or not found.is_faulty
    assert found is not None
    assert found.ratio == pytest.approx(1, abs=0.02)


def reading(
    time_ms: int,
    counter_mj: int,
    *,
    power_mw: int | None = 1_000,
    boundary: Boundary = Boundary.BOARD,
) -> Reading:
    """Return a reading so many ms after the begin."""
    return Reading(
        boundary=boundary,
        name="h100",
        device="GPU-1",
        time_ms=BEGIN_MS + time_ms,
        counter_mj=counter_mj,
        power_mw=power_mw,
    )


@pytest.mark.parametrize(
    "readings",
    [
        # The time between lies within a gap, or no gauge was there.
        [reading(0, 0), reading(1, 1), reading(600_001, 10**9)],
        [reading(step * 60_000, step * 9_000_000, power_mw=None) for step in range(20)],
        # A counter that begins anew, or leaps: what it gained is not what it shows.
        [reading(step * 60_000, 10**15 * (step % 2)) for step in range(20)],
        [reading(step * 60_000, 10**9 - step) for step in range(20)],
        # What holds boards has gauges of its own kinds.
        [reading(step * 60_000, step * 9_000_000, boundary=Boundary.HOST) for step in range(20)],
    ],
)
def test_add__tells_nothing(readings: list[Reading]) -> None:
    """What cannot be compared says nothing, and is no fault."""
    check = CrossCheck()
    known: dict[str, Counter] = {}
    for each in readings:
        done = take([each], source=Source.DCGM, known=known, bounds=BOUNDS)
        known.update(done.counters)
        check.add(done.steps)
    assert check.look(now_ms=readings[-1].time_ms) == {}


def test_add__many_boards_are_a_limit() -> None:
    """However many boards there are, so many are followed at most."""
    check = CrossCheck()
    for number in range(CROSS_CHECK_DEVICES_MAX + 5):
        each = Reading(name="h100", device=str(number), time_ms=BEGIN_MS, counter_mj=1, power_mw=1)
        check.add([(each, None)])
    assert check.device_count == CROSS_CHECK_DEVICES_MAX
