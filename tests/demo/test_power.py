"""What the demo makes of energy and revenue: a ranking of tiers, and a site beside its contract."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli.connection import Client
from cli.demo.power import TierPower, rank, read_sites
from cli.demo.world import BEGIN
from tokenworks.meter.v1 import energy_service_pb2 as pb

HOUR_SECONDS = 3_600
HOUR_MJ = HOUR_SECONDS * 1_000


def tier(name: str, *, energy_mj: int, revenue: str) -> TierPower:
    """Return a tier of a month."""
    return TierPower(
        tier=name,
        pool="p",
        request_count=1,
        output_tokens=1_000,
        energy_mj=energy_mj,
        revenue=Decimal(revenue),
    )


def test_rank__by_dollars_per_megawatt_hour() -> None:
    """The tier that earns the most by its energy is first, however little it takes of either."""
    ranks = rank(
        [
            tier("free", energy_mj=6 * HOUR_MJ, revenue="0"),
            tier("large", energy_mj=3 * HOUR_MJ, revenue="6"),
            tier("dear", energy_mj=HOUR_MJ, revenue="4"),
        ]
    )
    assert [(it.tier.tier, it.power_share, it.revenue_share) for it in ranks] == [
        ("dear", "0.1000", "0.4000"),
        ("large", "0.3000", "0.6000"),
        ("free", "0.6000", "0.0000"),
    ]
    assert [it.tier.usd_per_mwh for it in ranks] == ["4000000.00", "2000000.00", "0.00"]


def test_rank__without_energy_or_revenue() -> None:
    """Where nothing was measured or sold there is a ranking all the same."""
    (only,) = rank([tier("free", energy_mj=0, revenue="0")])
    assert (only.power_share, only.revenue_share, only.tier.usd_per_mwh) == ("0", "0", "0")


@pytest.mark.parametrize(("contracted", "headroom"), [(3_000, 360), (2_000, -640)])
def test_sites__in_their_highest_hour(contracted: int, headroom: int) -> None:
    """The pools of a site are added up hour by hour, losses on top; the rest is headroom."""
    (site,) = read_sites(_client(contracted))
    assert (site.site, site.pue, site.basis) == ("harbour", "1.2", "configured")
    assert site.highest_watts == 2_640
    assert site.headroom_watts == headroom


def _client(contracted_watts: int) -> Client:
    """A client whose meter has two pools on a site, and two hours of energy."""
    watts = {"latency": (900, 1_200), "throughput": (1_100, 1_000)}
    version = pb.FactoryVersion(
        sites=[pb.FactorySite(site="harbour", contracted_watts=contracted_watts)],
        pools=[pb.FactoryPool(pool=pool, site="harbour") for pool in watts],
    )
    answer = pb.QueryEfficiencyResponse(
        sites=[pb.SiteEnergy(site="harbour", pue="1.2", basis=pb.PUE_BASIS_CONFIGURED)]
    )
    for pool, hours in watts.items():
        for place, each in enumerate(hours):
            row = answer.pools.add(pool=pool, measured_mj=each * HOUR_MJ)
            row.start_time.FromDatetime(BEGIN)
            row.start_time.seconds += place * HOUR_SECONDS
    energy = SimpleNamespace(
        GetFactory=lambda _: pb.GetFactoryResponse(version=version),
        QueryEfficiency=lambda _: answer,
    )
    return cast("Client", cast("Any", SimpleNamespace(energy=energy)))
