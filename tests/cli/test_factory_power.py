"""What sites draw: pure cases; what is not known is absent, and never a headroom."""

from decimal import Decimal

import pytest

from cli.factory.power import SiteDraw, find_draws, find_site_draws
from cli.factory.show import print_power
from tokenworks.meter.v1 import energy_service_pb2 as pb

VERSION = pb.FactoryVersion(
    sites=[pb.FactorySite(site="oslo", contracted_watts=6_000)],
    pools=[pb.FactoryPool(pool="h100", site="oslo"), pb.FactoryPool(pool="b200", site="oslo")],
)
SITES = [pb.SiteEnergy(site="oslo", pue="1.20", basis=pb.PUE_BASIS_CONFIGURED)]


def _sites(*pools: pb.PoolEnergy) -> list[SiteDraw]:
    boards = pb.QueryEfficiencyResponse(pools=pools)
    draws = find_draws(boards, pb.QueryEfficiencyResponse(), seconds=900)
    return find_site_draws(VERSION, draws, SITES)


def test_site__without_energy() -> None:
    """A site of which nothing is known draws no 0 W, and its whole contract is no headroom."""
    (site,) = _sites(pb.PoolEnergy(pool="h100", interval_count=1))
    assert (site.machines_watts, site.facility_watts, site.headroom_watts) == (None, None, None)
    assert site.silent_pools == ["h100", "b200"]


def test_site__one_pool_silent() -> None:
    """A pool without energy is named: without it the headroom is too good."""
    (site,) = _sites(pb.PoolEnergy(pool="h100", measured_mj=900_000_000, interval_count=1))
    assert (site.machines_watts, site.headroom_watts) == (Decimal(1_000), Decimal(4_800))
    assert site.silent_pools == ["b200"]


def test_show__says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the tables stand the pools that are not in them, and those measured badly."""
    print_power(VERSION, draws=[], site_draws=_sites(), software={})
    shown = capsys.readouterr().out
    (of_site,) = [line.split() for line in shown.splitlines() if "6.000" in line]
    assert of_site == ["oslo", "6.000", "-", "1.20", "configured", "-", "-", "-"]
    assert "oslo: no energy is known of h100, b200" in shown
    half = pb.PoolEnergy(pool="h100", measured_mj=9, interval_count=1)
    draws = find_draws(
        pb.QueryEfficiencyResponse(pools=[half]), pb.QueryEfficiencyResponse(), seconds=900
    )
    print_power(VERSION, draws=draws, site_draws=_sites(half), software={})
    assert "not valid: h100: not all of that time" in capsys.readouterr().out
