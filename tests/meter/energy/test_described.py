"""The description in the metrics: what is in force is shown, and nothing of what was."""

from decimal import Decimal

from meter.energy.described import DescribedFactory
from meter.energy.factory import Carbon, Factories, Factory, Pool, Site
from meter.energy.live import LiveEnergy
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
        self._described = DescribedFactory(
            self.metrics,
            live=LiveEnergy(self.metrics, pools=[]),
            factories=lambda: Factories([second, first]),
            marks=lambda: [
                SoftwareMark(pool="h100", software="b", start_ms=15),
                SoftwareMark(pool="h100", software="a", start_ms=5),
            ],
            version="1.0",
            clock=self,
        )

    def now_ms(self) -> int:
        """Return the made-up time."""
        return self.now_ms_now

    def monotonic_seconds(self) -> float:
        """Return the same in seconds."""
        return self.now_ms_now / 1000

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
