"""The description in the metrics: what is in force is shown, and nothing of what was."""

from decimal import Decimal

import pytest

from meter.consumption import SitePue
from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.energy.counters import Source
from meter.energy.delta import EnergyDelta, IntervalEnergy
from meter.energy.described import DescribedFactory
from meter.energy.factory import Carbon, Factories, Factory, Pool, Site
from meter.energy.live import LiveEnergy, Served
from meter.energy.marks import SoftwareMark
from meter.metrics import Metrics

SITE = Site(
    site="oslo",
    contracted_watts=1_000,
    pue=Decimal("1.2"),
    reserved_watts={"high": 100},
    carbon=Carbon(location=Decimal(386), market=None, source="a table"),
)
POOL = Pool(pool="h100", site="oslo", hardware="H100")


class Shown:
    """Two versions of a description, and what the metrics show of them at a time."""

    def __init__(self) -> None:
        self.now_ms_now = 0
        self.metrics = Metrics()
        first = Factory(version=1, start_ms=10, sites={"oslo": SITE}, pools={"h100": POOL})
        moved = Pool(pool="h100", site="narvik", hardware="H100")
        sites = {"narvik": Site(site="narvik", contracted_watts=2_000)}
        second = Factory(version=2, start_ms=20, sites=sites, pools={"h100": moved})
        self.live = LiveEnergy(self.metrics, pools=[])
        self.asked: list[tuple[int, int]] = []
        self._described = DescribedFactory(
            self.metrics,
            live=self.live,
            factories=lambda: Factories([second, first]),
            marks=lambda: [
                SoftwareMark(pool="h100", software="b", start_ms=15),
                SoftwareMark(pool="h100", software="a", start_ms=5),
            ],
            pues=self._pues,
            version="1.0",
            clock=self,
        )

    def now_ms(self) -> int:
        """Return the made-up time."""
        return self.now_ms_now

    def monotonic_seconds(self) -> float:
        """Return the same in seconds."""
        return self.now_ms_now / 1000

    def _pues(self, *, start_ms: int, end_ms: int) -> dict[str, SitePue]:
        self.asked.append((start_ms, end_ms))
        return {"h100": SitePue(site="oslo", pue=Decimal(2), is_measured=True)}

    def at(self, now_ms: int, name: str) -> list[tuple[tuple[str, ...], float]]:
        """Return a metric's samples after a look at a time."""
        self.now_ms_now = now_ms
        self._described.look()
        return [
            (tuple(sample.labels.values()), sample.value)
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == f"tokenworks_{name}"
        ]


def test_look__follows_the_version_in_force() -> None:
    """A pool that moves stands at one site alone, and what a site no longer has is gone."""
    shown = Shown()
    assert shown.at(0, "pool_info") == []
    assert shown.at(10, "pool_info") == [(("h100", "oslo", "H100", "a"), 1)]
    assert shown.at(15, "pool_info") == [(("h100", "oslo", "H100", "b"), 1)]
    assert shown.at(15, "power_reserved_watts") == [(("oslo", "high"), 100)]
    assert shown.at(15, "pue_ratio") == [(("oslo", "configured"), 1.2)]
    assert shown.at(15, "grid_carbon_grams_per_kilowatt_hour") == [(("oslo", "location"), 386)]
    assert shown.at(20, "pool_info") == [(("h100", "narvik", "H100", "b"), 1)]
    assert shown.at(20, "power_budget_watts") == [(("narvik",), 2_000)]
    for name in ("power_reserved_watts", "pue_ratio", "grid_carbon_grams_per_kilowatt_hour"):
        assert shown.at(20, name) == []


def test_look__says_which_version_is_in_force() -> None:
    """The server's version stands beside the description's, 0 where there is none."""
    shown = Shown()
    assert shown.at(0, "build_info") == [(("1.0", "0"), 1)]
    assert shown.at(20, "build_info") == [(("1.0", "2"), 1)]


def test_look__takes_the_pue_of_the_last_hour() -> None:
    """PUE is asked for when an interval has ended or another version is in force, no oftener."""
    shown = Shown()
    for now_ms in (10, 11, 20, INTERVAL_MS - 1, INTERVAL_MS, INTERVAL_MS + 1):
        shown.at(now_ms, "pue_ratio")
    hour_ms = 4 * INTERVAL_MS
    assert shown.asked == [(-hour_ms, 0), (-hour_ms, 0), (INTERVAL_MS - hour_ms, INTERVAL_MS)]


def test_look__carbon_by_the_pue_that_was_measured() -> None:
    """What a tier emits follows the site's meter, and not what the description says."""
    shown = Shown()
    shown.at(10, "pue_ratio")
    place = (Boundary.BOARD, "h100")
    energy = IntervalEnergy(measured_mj=3_600_000)
    shown.live.add_served(Served(pool="h100", tier="high", model="m", output_tokens=1))
    shown.live.add_energy(EnergyDelta(intervals={(place, 0): energy}), source=Source.DCGM)
    shown.live.settle(now_ms=10, gap_ms=60_000)
    ((_, grams),) = shown.at(10, "carbon_grams_total")
    assert grams == pytest.approx(0.001 * 2 * 386)
