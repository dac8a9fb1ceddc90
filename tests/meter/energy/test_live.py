"""Energy in the metrics: what is shown as measured is attributed or not, at each settling."""

from decimal import Decimal
from random import Random

import pytest

from meter.consumption import SitePue
from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.energy.attribute import attribute
from meter.energy.counters import Source
from meter.energy.delta import EnergyDelta, IntervalEnergy
from meter.energy.factory import Carbon, IdlePolicy, Pool, Site, Weights
from meter.energy.factory import Factory as Description
from meter.energy.sources.port import SourceFailure
from meter.energy.validity import PoolPower, PowerFault
from tests.meter.energy.factory import GAP_MS, Factory
from tests.meter.plain_events import BEGIN_MS

SITE = Site(
    site="oslo",
    contracted_watts=1_000,
    pue=Decimal("1.2"),
    carbon=Carbon(location=Decimal(300), market=None, source="a table"),
)
PUES = {"h100": SitePue(site="oslo", pue=Decimal("1.2"), is_measured=False)}
WEIGHTS = Weights(input=1, cached_input=0, output=10)


def description(*, idle_mw: int = 0, idle: IdlePolicy = IdlePolicy.UNATTRIBUTED) -> Description:
    """A description of the pool h100."""
    pool = Pool(pool="h100", site="oslo", hardware="H100", idle_mw=idle_mw, idle=idle)
    return Description(
        version=1, start_ms=0, sites={"oslo": SITE}, pools={"h100": pool}, weights=(WEIGHTS,)
    )


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


def test_settle__by_model_and_weights() -> None:
    """Tokens weigh as the description says, and each model's share is apart."""
    factory = Factory()
    factory.live.describe(description())
    factory.serve(1, model="a", input_tokens=30)
    factory.serve(6, model="b")
    factory.measure(1_000)
    factory.settle()
    assert factory.show("energy_attributed_joules_total", model="a") == 0.4
    assert factory.show("energy_attributed_joules_total", model="b") == 0.6


@pytest.mark.parametrize("idle", IdlePolicy)
def test_settle__idling_by_its_policy(idle: IdlePolicy) -> None:
    """What devices take for idling is nobody's, or shared out and shown apart."""
    factory = Factory()
    factory.live.describe(description(idle_mw=100, idle=idle))
    factory.serve(1)
    factory.measure(5_000, covered_ms=20_000)
    factory.settle()
    is_shared = idle is IdlePolicy.PROPORTIONAL
    assert factory.show("energy_attributed_joules_total", kind="active") == 3.0
    assert factory.show("energy_attributed_joules_total", kind="idle") == (2.0 if is_shared else 0)
    idling = factory.show("energy_unattributed_joules_total", reason="idle")
    assert idling == (0 if is_shared else 2.0)


def test_settle__gaps_and_unknown_devices_are_nobodys() -> None:
    """Energy of a gap, and of a device that nobody described, belongs to no tier."""
    factory = Factory()
    factory.serve(1)
    factory.measure(4_000, gap_mj=2_000, unmapped_mj=1_000)
    factory.settle()
    assert factory.show("energy_attributed_joules_total") == 1.0
    assert factory.show("energy_unattributed_joules_total", reason="gap") == 2.0
    assert factory.show("energy_unattributed_joules_total", reason="unmapped") == 1.0


def test_settle__each_boundary_on_its_own() -> None:
    """Hosts share their energy out by the same tokens as boards, whenever it comes."""
    factory = Factory()
    factory.serve(1, tier="free")
    factory.measure(1_000)
    factory.settle()
    factory.serve(3)
    factory.measure(1_000)
    factory.measure(8_000, boundary=Boundary.HOST, source=Source.REPORTED)
    factory.settle(at_ms=GAP_MS * 2)
    attributed = "energy_attributed_joules_total"
    assert factory.show(attributed, boundary="board", tier="free") == 1.0
    assert factory.show(attributed, boundary="board", tier="high") == 1.0
    assert factory.show(attributed, boundary="host", tier="free") == 2.0
    assert factory.show(attributed, boundary="host", tier="high") == 6.0


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
    """After each settling, at each boundary measured is attributed and unattributed together."""
    random = Random(seed)
    factory = Factory()
    idle = random.choice(list(IdlePolicy))
    factory.live.describe(description(idle_mw=random.randrange(10**5), idle=idle))
    for step in range(200):
        pool = random.choice(["h100", "h200"])
        boundary = random.choice([Boundary.BOARD, Boundary.HOST])
        match random.choice(["tokens", "energy", "settle"]):
            case "tokens":
                factory.serve(random.randrange(100), tier=random.choice("abc"), pool=pool)
            case "energy":
                amount = random.randrange(10**6)
                gap_mj = random.randrange(amount + 1)
                factory.measure(
                    amount,
                    pool=pool,
                    boundary=boundary,
                    gap_mj=gap_mj,
                    unmapped_mj=random.randrange(amount - gap_mj + 1),
                    covered_ms=random.randrange(10**4),
                )
            case _:
                factory.settle(at_ms=step * 10_000)
                for place in [(a, b) for a in ("h100", "h200") for b in ("board", "host")]:
                    labels = dict(zip(("pool", "boundary"), place, strict=True))
                    measured = factory.show("energy_joules_total", **labels)
                    attributed = factory.show("energy_attributed_joules_total", **labels)
                    rest = factory.show("energy_unattributed_joules_total", **labels)
                    assert attributed + rest == pytest.approx(measured, abs=1e-6)
                    assert factory.show("attribution_residual_joules", **labels) == 0


def test_settle__shows_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that adds up to less than was measured shows as a residual."""

    def attribute_less(*, measured_mj: int, **parts: object) -> object:
        return attribute(measured_mj=measured_mj - 1_500, **parts)  # type: ignore[arg-type]

    monkeypatch.setattr("meter.energy.live.attribute", attribute_less)
    factory = Factory()
    factory.measure(4_000)
    factory.settle()
    assert factory.show("attribution_residual_joules", pool="h100", boundary="board") == 1.5


def test_settle__energy_that_comes_meanwhile_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured while energy is shared out waits for the next time, and is no residual."""
    factory = Factory()

    def attribute_slowly(**parts: object) -> object:
        factory.measure(7_000)
        return attribute(**parts)  # type: ignore[arg-type]

    monkeypatch.setattr("meter.energy.live.attribute", attribute_slowly)
    factory.measure(4_000)
    factory.settle()
    assert factory.show("energy_joules_total") == 11.0
    assert factory.show("energy_unattributed_joules_total") == 4.0
    assert factory.shown("attribution_residual_joules")
    assert factory.show("attribution_residual_joules") == 0


def test_settle__energy_of_a_request() -> None:
    """Each request counts with the mean of its pool, tier and model."""
    factory = Factory()
    factory.serve(1, model="a", request_count=4)
    factory.serve(3, model="b", request_count=1)
    factory.measure(32_000)
    factory.settle()
    bucket = "request_energy_joules_bucket"
    assert factory.show(bucket, tier="high", le="1.0") == 0
    assert factory.show(bucket, tier="high", le="3.16") == 4
    assert factory.show(bucket, tier="high", le="31.62") == 5
    assert factory.show("request_energy_joules_sum", tier="high") == 32.0


def test_settle__carbon_of_the_facility() -> None:
    """A tier emits what its energy takes at the site's meter, by the grid that is described."""
    factory = Factory()
    factory.live.describe(description(), pues=PUES)
    factory.serve(1)
    factory.serve(1, pool="elsewhere")
    factory.measure(3_600_000)
    factory.measure(3_600_000, pool="elsewhere")
    factory.settle()
    assert factory.show("carbon_grams_total", method="location") == pytest.approx(0.36)
    assert factory.show("carbon_grams_total", method="market") == 0


def test_settle__carbon_of_hosts_where_they_are_known() -> None:
    """Boards are within their hosts: where hosts report, boards emit nothing besides."""
    factory = Factory()
    factory.live.describe(description(), pues=PUES)
    for at_ms in (0, INTERVAL_MS):
        factory.serve(1)
        factory.measure(3_600_000, boundary=Boundary.HOST, source=Source.REPORTED)
        factory.measure(1_000_000)
        factory.settle(at_ms=at_ms)
    assert factory.show("carbon_grams_total") == pytest.approx(0.72)
    factory.serve(1)
    factory.measure(3_600_000)
    factory.settle(at_ms=3 * INTERVAL_MS + 1)
    assert factory.show("carbon_grams_total") == pytest.approx(1.08)


def test_show_power__of_each_pool() -> None:
    """A pool is not valid until its power is known, and again when it no longer is."""
    factory = Factory("h100", "h200")
    assert factory.show("power_valid") == 0
    for faults in ((), (PowerFault.STALE,)):
        power = PoolPower(
            pool="h100",
            device_count=2,
            fresh_count=2,
            last_samples_ms={Source.DCGM: 1_500},
            faults=faults,
            cross_check_ratio=None if faults else 1.02,
        )
        factory.live.show_power([power])
        assert factory.show("power_valid", pool="h100") == (not faults)
        assert factory.show("power_fault", pool="h100") == len(faults)
        assert factory.show("power_fault", fault="stale") == len(faults)
        assert len(factory.shown("energy_crosscheck_ratio")) == (not faults)
    last = factory.show("energy_last_sample_timestamp_seconds", pool="h100", source="dcgm")
    assert last == 1.5


def test_show_power__forgets_who_is_gone() -> None:
    """What is no longer known is not shown; a pool of the settings stays, and is not valid."""
    factory = Factory("h100")
    for pool in ("h100", "old"):
        power = PoolPower(
            pool=pool, device_count=1, fresh_count=1, last_samples_ms={Source.DCGM: 1}
        )
        factory.live.show_power([power])
    factory.live.show_power([])
    assert factory.shown("power_valid") == [{"pool": "h100"}]
    assert factory.shown("energy_last_sample_timestamp_seconds") == []


def test_add_energy__of_a_site() -> None:
    """A site's meter is apart from its pools."""
    factory = Factory()
    factory.measure(9_000, pool="oslo", boundary=Boundary.FACILITY, source=Source.REPORTED)
    factory.settle()
    assert factory.show("site_energy_joules_total", site="oslo") == 9.0
    assert factory.show("energy_joules_total") == 0
    assert factory.show("energy_unattributed_joules_total") == 0


@pytest.mark.parametrize(
    ("source", "method"), [(Source.DCGM, "gauge_integral"), (Source.STATIC, "static")]
)
def test_add_energy__says_what_is_estimated(source: Source, method: str) -> None:
    """What no counter measured is marked, with how it was found."""
    factory = Factory()
    factory.measure(4_000, source=source, estimated_mj=3_000)
    assert factory.show("energy_joules_total", source=source.value) == 4.0
    assert factory.show("energy_estimated_joules_total", method=method, boundary="board") == 3.0


def test_add_energy__counts_resets_and_gaps() -> None:
    """Resets and the time of gaps are counted by pool and source, and failures by reason."""
    factory = Factory()
    sums = IntervalEnergy(gap_ms=1_500, reset_count=2)
    delta = EnergyDelta(intervals={((Boundary.BOARD, "h100"), BEGIN_MS): sums})
    factory.live.add_energy(delta, source=Source.DCGM)
    factory.live.add_failure(SourceFailure.TOO_LARGE, pool="h100")
    factory.live.add_ignored(pool="h100")
    assert factory.show("energy_counter_resets_total", pool="h100", source="dcgm") == 2
    assert factory.show("energy_gap_seconds_total", pool="h100", source="dcgm") == 1.5
    assert factory.show("energy_scrapes_failed_total", pool="h100", reason="too_large") == 1
    assert factory.show("energy_readings_ignored_total", pool="h100", reason="conflict") == 1
