"""Energy in the metrics: what is shown as measured is attributed or not, at each settling."""

from random import Random

import pytest

from meter.energy.counters import EnergyDelta, IntervalEnergy, Source
from meter.energy.efficiency import PoolPower
from meter.energy.scrape import ScrapeFailure
from tests.meter.energy.factory import GAP_MS, Factory
from tests.meter.plain_events import BEGIN_MS


def test_settle__by_the_tokens_since_the_last_time() -> None:
    """Energy goes to the tiers whose tokens were counted since, and tokens count once."""
    factory = Factory()
    factory.serve(1, tier="free")
    factory.serve(3)
    factory.measure(4_000)
    factory.settle()
    assert factory.show("energy_attributed_joules_total", pool="h100", tier="free") == 1.0
    assert factory.show("energy_attributed_joules_total", pool="h100", tier="high") == 3.0
    factory.measure(500)
    factory.settle()
    assert factory.show("energy_attributed_joules_total") == 4.0
    assert factory.show("energy_unattributed_joules_total", reason="no_tokens") == 0.5


def test_settle__gap_is_nobodys() -> None:
    """Energy of a gap belongs to no tier, however many tokens there are."""
    factory = Factory()
    factory.serve(1)
    factory.measure(4_000, gap_mj=3_000)
    factory.settle()
    assert factory.show("energy_attributed_joules_total") == 1.0
    assert factory.show("energy_unattributed_joules_total", reason="gap") == 3.0


def test_settle__what_many_report_is_settled_together() -> None:
    """Devices that are reported one after the other share the tokens of their time."""
    factory = Factory()
    factory.serve(1)
    for _ in range(8):
        factory.measure(1_000, source=Source.REPORTED)
    factory.settle()
    assert factory.show("energy_attributed_joules_total") == 8.0
    assert factory.show("energy_joules_total", source="reported") == 8.0


def test_settle__tokens_wait_for_energy_but_not_for_long() -> None:
    """Tokens wait for a counter that not every scrape moves; what is older is no one's weight."""
    factory = Factory()
    factory.serve(1, tier="free")
    factory.settle()
    factory.settle(at_ms=GAP_MS)
    factory.serve(1)
    factory.measure(2_000)
    factory.settle(at_ms=GAP_MS)
    assert factory.show("energy_attributed_joules_total", tier="free") == 1.0
    factory.serve(1, tier="free")
    factory.settle(at_ms=2 * GAP_MS + 1)
    factory.serve(1)
    factory.measure(2_000)
    factory.settle(at_ms=2 * GAP_MS + 1)
    assert factory.show("energy_attributed_joules_total", tier="free") == 1.0
    assert factory.show("energy_attributed_joules_total", tier="high") == 3.0


@pytest.mark.parametrize("seed", range(5))
def test_settle__adds_up(seed: int) -> None:
    """After each settling, measured is attributed and unattributed together, for each pool."""
    random = Random(seed)
    factory = Factory()
    for step in range(200):
        pool = random.choice(["h100", "h200"])
        match random.choice(["tokens", "energy", "settle"]):
            case "tokens":
                factory.serve(random.randrange(100), tier=random.choice("abc"), pool=pool)
            case "energy":
                amount = random.randrange(10**6)
                factory.measure(amount, gap_mj=random.randrange(amount + 1), pool=pool)
            case _:
                factory.settle(at_ms=step * 10_000)
                for each in ("h100", "h200"):
                    measured = factory.show("energy_joules_total", pool=each)
                    attributed = factory.show("energy_attributed_joules_total", pool=each)
                    rest = factory.show("energy_unattributed_joules_total", pool=each)
                    assert attributed + rest == pytest.approx(measured, abs=1e-6)


def test_show_power__of_each_pool() -> None:
    """A pool is not valid until its power is known, and again when it no longer is."""
    factory = Factory("h100", "h200")
    assert factory.show("power_valid") == 0
    for fresh_count, valid in ((2, 1), (1, 0)):
        power = PoolPower(
            pool="h100", device_count=2, fresh_count=fresh_count, last_sample_ms=1_500
        )
        factory.live.show_power([power])
        assert factory.show("power_valid", pool="h100") == valid
    assert factory.show("energy_last_sample_timestamp_seconds", pool="h100") == 1.5


def test_add_energy__counts_resets_and_gaps() -> None:
    """Resets and the time of gaps are counted by pool."""
    factory = Factory()
    sums = IntervalEnergy(gap_ms=1_500, reset_count=2)
    factory.live.add_energy(EnergyDelta(intervals={("h100", BEGIN_MS): sums}), source=Source.DCGM)
    factory.live.add_failure(ScrapeFailure.TOO_LARGE, pool="h100")
    assert factory.show("energy_counter_resets_total", pool="h100") == 2
    assert factory.show("energy_gap_seconds_total", pool="h100") == 1.5
    assert factory.show("energy_scrapes_failed_total", pool="h100", reason="too_large") == 1
