"""The best mix of a gigawatt: vectors that a solver of others has worked out once."""

from decimal import Decimal
from fractions import Fraction

import pytest

from billing.factory.plan import Binding, plan
from tests.efficiency.keynote import (
    SECONDS_PER_YEAR,
    billions_a_year,
    generation,
    inputs_of,
    shown,
)

# Millions of tokens a second: at least so many free ones, at most so many of the others.
BOUNDS = {
    "free": ("100", ""),
    "medium": ("", "300"),
    "high": ("", "100"),
    "premium": ("", "15"),
}


@pytest.mark.parametrize(
    ("name", "usd"),
    [
        ("keynote-blackwell", {"free": "0", "medium": "1.8", "high": "0.9", "premium": "0.9"}),
        ("keynote-rubin", {"free": "0", "medium": "4.8", "high": "4.2", "premium": "9"}),
    ],
)
def test_tier__earns_a_second_and_megawatt(name: str, usd: dict[str, str]) -> None:
    """What a megawatt of each tier earns ranks the tiers, and not by their price."""
    tiers = inputs_of(generation(name)).tiers
    assert {it.tier: it.usd_per_mw_second for it in tiers} == {
        tier: Fraction(each) for tier, each in usd.items()
    }


@pytest.mark.parametrize(
    ("name", "tier", "billions"),
    [("keynote-blackwell", "medium", "56.765"), ("keynote-rubin", "premium", "283.824")],
)
def test_plan__without_bounds(name: str, tier: str, billions: str) -> None:
    """Where demand has no end, the tier that earns the most takes all of the power."""
    found = plan(inputs_of(generation(name)))
    assert found.best.mw[tier] == found.best.total_mw == 1_000
    assert billions_a_year(found.best.revenue_per_second) == Decimal(billions)
    assert found.binding is Binding.POWER


def test_plan__where_power_binds() -> None:
    """Blackwell under caps: the last megawatts are a tie, and a further one is worth something."""
    found = plan(inputs_of(generation("keynote-blackwell"), bounds=BOUNDS))
    mw = found.best.mw
    assert shown(mw["free"], "0.001") == Decimal("142.857")
    assert mw["medium"] == 500
    assert shown(mw["high"] + mw["premium"], "0.001") == Decimal("357.143")
    assert shown(found.best.revenue_per_second, "0.01") == Decimal("1221.43")
    assert billions_a_year(found.best.revenue_per_second) == Decimal("38.519")
    assert set(found.tied) == {"high", "premium"}
    assert found.binding is Binding.POWER
    shadow = found.shadow_per_mw_second * SECONDS_PER_YEAR / 10**6
    assert shown(shadow, "0.01") == Decimal("28.38")


def test_plan__where_demand_binds() -> None:
    """Rubin under the same caps: all that is asked for is served, and more power earns nothing."""
    found = plan(inputs_of(generation("keynote-rubin"), bounds=BOUNDS))
    assert {tier: shown(mw, "0.001") for tier, mw in found.best.mw.items()} == {
        "free": Decimal("60.606"),
        "medium": Decimal("187.500"),
        "high": Decimal("142.857"),
        "premium": Decimal("75.000"),
    }
    assert shown(found.best.total_mw, "0.01") == Decimal("465.96")
    assert found.best.revenue_per_second == 2_175
    assert billions_a_year(found.best.revenue_per_second) == Decimal("68.591")
    assert found.binding is Binding.DEMAND
    assert found.shadow_per_mw_second == 0
