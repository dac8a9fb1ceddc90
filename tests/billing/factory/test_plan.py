"""The best mix of tiers: known vectors, a solver as oracle, and what cannot be."""

import dataclasses
from collections import Counter
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given, settings

from billing.factory.figures import per_year
from billing.factory.plan import Binding, Limit, Plan, PlanImpossible, PlanInput, plan
from tests.billing.factory.plans import (
    figures,
    keynote,
    plan_input,
    random_inputs,
    solve,
    tier,
)

CASES: Final = 1_000
# How far a solver's numbers are from exact ones.
NEAR: Final = 1e-6
SLIVER: Final = Fraction(1, 10**9)


def billions(per_second: Fraction) -> float:
    """USD a second as billions a year."""
    return round(float(per_year(per_second)) / 1e9, 3)


@pytest.mark.parametrize(
    ("name", "best", "earned"), [("blackwell", "medium", 56.765), ("rubin", "premium", 283.824)]
)
def test_plan__without_bounds_is_all_of_the_best_tier(name: str, best: str, earned: float) -> None:
    """Without demand's end all power goes to the tier that earns the most by the megawatt."""
    found = plan(keynote(name))
    assert {name for name, mw in found.best.mw.items() if mw} == {best}
    assert billions(found.best.revenue_per_second) == earned
    assert found.binding is Binding.POWER


def test_plan__blackwell_with_bounds() -> None:
    """Power binds, and a further megawatt earns 28.38 million a year."""
    found = plan(keynote("blackwell", is_capped=True))
    assert figures(found.best.mw) == {
        "free": 142.857,
        "medium": 500.0,
        "high": 357.143,
        "premium": 0.0,
    }
    assert found.tied == ["high", "premium"]
    assert round(float(found.best.revenue_per_second), 2) == 1221.43
    assert billions(found.best.revenue_per_second) == 38.519
    assert found.binding is Binding.POWER
    assert round(float(per_year(found.shadow_per_mw_second)) / 1e6, 2) == 28.38
    assert found.limits == {
        "free": Limit.MINIMUM,
        "medium": Limit.DEMAND,
        "high": Limit.POWER,
        "premium": Limit.POWER,
    }


def test_plan__rubin_with_bounds() -> None:
    """Demand binds: 465.96 MW are enough, and more power earns nothing."""
    found = plan(keynote("rubin", is_capped=True))
    expected = {"free": 60.606, "medium": 187.5, "high": 142.857, "premium": 75.0}
    assert figures(found.best.mw) == expected
    assert round(float(found.best.total_mw), 2) == 465.96
    assert round(float(found.best.revenue_per_second), 6) == 2175
    assert billions(found.best.revenue_per_second) == 68.591
    assert found.binding is Binding.DEMAND
    assert found.shadow_per_mw_second == 0
    assert found.tied == ()


@pytest.mark.parametrize(("name", "earned"), [("blackwell", 28.382), ("rubin", 141.912)])
def test_plan__the_actual_mix_stands_beside(name: str, earned: float) -> None:
    """What is served now is told in the same terms."""
    actual = plan(keynote(name)).actual
    assert actual is not None
    assert billions(actual.revenue_per_second) == earned


def test_plan__no_actual_mix_is_none() -> None:
    """What the tiers take now is not made up."""
    assert plan(plan_input([tier("a")])).actual is None


def check(inputs: PlanInput, found: Plan) -> None:
    """Check a plan by its bounds, by a solver, and by what a sliver more power earns."""
    for each in inputs.tiers:
        served = found.best.tps[each.tier]
        assert served >= each.minimum_tps
        assert each.demand_tps is None or served <= each.demand_tps
    assert found.best.total_mw <= inputs.it_mw
    margin = found.best.revenue_per_second - found.best.electricity_per_second
    solved = solve(inputs)
    assert solved is not None
    assert float(margin) == pytest.approx(solved.margin_per_second, rel=NEAR, abs=NEAR)
    if found.best.total_mw < inputs.it_mw:
        assert found.shadow_per_mw_second == 0
        assert found.binding is Binding.DEMAND
    # Where the last tier is just full, a solver may name what a megawatt less would cost.
    assert float(found.shadow_per_mw_second) <= solved.shadow_per_mw_second + NEAR
    more = plan(dataclasses.replace(inputs, power_mw=inputs.power_mw + SLIVER)).best
    gained = more.revenue_per_second - more.electricity_per_second - margin
    assert gained == found.shadow_per_mw_second * SLIVER


def test_plan__earns_what_a_solver_finds() -> None:
    """The simple rule and a solver of linear programs agree, on what is impossible as well."""
    reached: Counter[str] = Counter()

    @settings(max_examples=CASES, deadline=None)
    @given(random_inputs())
    def each(inputs: PlanInput) -> None:
        try:
            found = plan(inputs)
        except PlanImpossible:
            assert solve(inputs) is None
            reached["impossible"] += 1
            return
        check(inputs, found)
        reached[found.binding] += 1
        reached["tied" if found.tied else "not tied"] += 1

    each()
    assert {"impossible", *Binding, "tied", "not tied"} <= reached.keys()


def test_plan__electricity_dearer_than_its_tokens() -> None:
    """A tier that earns less than its electricity gets its minimum, though power is left."""
    cheap = tier("cheap", tps_per_mw=1_000, price=1, minimum=1_000)
    found = plan(plan_input([cheap, tier("dear")], usd_per_kwh=Fraction(1, 10)))
    assert found.best.mw["cheap"] == 1
    assert found.limits["cheap"] is Limit.MINIMUM
    # A million tokens a second at $1, less 1,000 kW at $0.10 an hour.
    assert found.shadow_per_mw_second == 1 - Fraction(100, 3600)


def test_plan__pue_takes_from_the_power_and_adds_to_its_cost() -> None:
    """Of the meter's megawatts the IT gets its part, and all of them cost."""
    found = plan(plan_input([tier("a")], pue=Fraction(5, 4), usd_per_kwh=Fraction(36, 1000)))
    assert found.best.mw["a"] == 80
    assert found.best.electricity_per_second == Fraction(100 * 1000 * 36, 1000 * 3600)
    assert found.shadow_per_mw_second == Fraction(4, 5) - Fraction(36, 3600)


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        (
            [tier("a", minimum=80_000_000), tier("b", minimum=40_000_000), tier("c")],
            "the minima of a, b take more than the power that there is, by 20 %",
        ),
        ([tier("a", minimum=2, demand=1)], "a: its minimum is more than its demand"),
        ([tier("a", tps_per_mw=0, minimum=1)], "a: has a minimum, and a megawatt serves no tokens"),
    ],
)
def test_plan__minima_that_cannot_be_served(tiers: list[object], message: str) -> None:
    """What cannot be is refused, and the reason names the tier."""
    with pytest.raises(PlanImpossible) as raised:
        plan(plan_input(tiers))  # type: ignore[arg-type]  # tiers, as above
    assert str(raised.value) == message


def test_plan__tiers_of_the_same_earnings_keep_their_order() -> None:
    """Of tiers that earn the same the first one gets the power, and both are named."""
    found = plan(plan_input([tier("b", price=2, tps_per_mw=500_000), tier("a")]))
    assert found.best.mw == {"b": 100, "a": 0}
    assert found.tied == ["b", "a"]


def test_plan__minima_that_take_all_leave_nothing_to_split() -> None:
    """Tiers that have no more than their minima are not said to be tied."""
    full = [tier("a", minimum=50_000_000), tier("b", minimum=50_000_000)]
    assert plan(plan_input(full)).tied == ()
