"""Inputs of plans for tests, and the same plan by a solver that shares nothing with ours."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from hypothesis import strategies as st
from scipy.optimize import linprog

from billing.factory.plan import PlanInput, Tier
from billing.factory.plan_file import read_plan
from billing.factory.shipped import read_shipped

MILLION: Final = 1_000_000
# The vectors that were worked out with scipy: million tokens a second.
MINIMA: Final = {"free": 100}
DEMANDS: Final = {"medium": 300, "high": 100, "premium": 15}


class Solved(NamedTuple):
    """A solver's answer: USD a second, and what a further megawatt at the meter earns in one."""

    margin_per_second: float
    shadow_per_mw_second: float


def keynote(name: str, *, is_capped: bool = False) -> PlanInput:
    """A generation of the keynote, with the bounds of the vectors or without."""
    inputs = read_plan(read_shipped(f"keynote-{name}")).complete()
    if not is_capped:
        return inputs
    return PlanInput(
        name=inputs.name,
        power_mw=inputs.power_mw,
        pue=inputs.pue,
        usd_per_kwh=inputs.usd_per_kwh,
        tiers=[
            Tier(
                tier=it.tier,
                tps_per_mw=it.tps_per_mw,
                price=it.price,
                minimum_tps=Fraction(MINIMA.get(it.tier, 0) * MILLION),
                demand_tps=Fraction(DEMANDS[it.tier] * MILLION) if it.tier in DEMANDS else None,
                actual_mw=it.actual_mw,
            )
            for it in inputs.tiers
        ],
    )


def plan_input(
    tiers: Sequence[Tier],
    *,
    power_mw: int = 100,
    pue: Fraction = Fraction(1),
    usd_per_kwh: Fraction = Fraction(0),
) -> PlanInput:
    """An input of these tiers."""
    return PlanInput(
        name="a factory",
        power_mw=Fraction(power_mw),
        pue=pue,
        usd_per_kwh=usd_per_kwh,
        tiers=tiers,
    )


def tier(
    name: str,
    *,
    tps_per_mw: int = MILLION,
    price: int = 1,
    minimum: int = 0,
    demand: int | None = None,
) -> Tier:
    """A tier, whose bounds are in tokens a second."""
    return Tier(
        tier=name,
        tps_per_mw=Fraction(tps_per_mw),
        price=Fraction(price),
        minimum_tps=Fraction(minimum),
        demand_tps=None if demand is None else Fraction(demand),
    )


def solve(inputs: PlanInput) -> Solved | None:
    """The best that a solver finds; None when there is no way to serve the minima."""
    electricity = float(inputs.usd_per_kwh) * 1000 / 3600 * float(inputs.pue)
    rates = [float(it.tps_per_mw) for it in inputs.tiers]
    earned = [
        float(it.price) * rate / 1e6 - electricity
        for it, rate in zip(inputs.tiers, rates, strict=True)
    ]
    bounds = [
        (
            float(it.minimum_tps) / rate,
            None if it.demand_tps is None else float(it.demand_tps) / rate,
        )
        for it, rate in zip(inputs.tiers, rates, strict=True)
    ]
    found = linprog(
        c=[-it for it in earned],
        A_ub=[[float(inputs.pue)] * len(earned)],
        b_ub=[float(inputs.power_mw)],
        bounds=bounds,
    )
    if not found.success:
        return None
    return Solved(
        margin_per_second=-float(found.fun),
        shadow_per_mw_second=-float(found.ineqlin.marginals[0]),
    )


def figures(numbers: Mapping[str, Fraction], *, digits: int = 3) -> dict[str, float]:
    """Numbers as they are printed in the research."""
    return {name: round(float(it), digits) for name, it in numbers.items()}


@st.composite
def random_inputs(draw: st.DrawFn) -> PlanInput:
    """A factory of some tiers, most of them with bounds; not all of their minima can be served."""
    count = draw(st.integers(1, 6))
    tiers = []
    for place in range(count):
        rate = draw(st.integers(1, 2_000)) * 1_000
        minimum = draw(st.sampled_from([0, 0, 1_000, 1_000_000, 20_000_000]))
        more = draw(st.one_of(st.none(), st.integers(0, 60_000_000)))
        tiers.append(
            tier(
                f"tier-{place}",
                tps_per_mw=rate,
                price=draw(st.sampled_from([0, 1, 3, 6, 45, 150])),
                minimum=minimum,
                demand=None if more is None else minimum + more,
            )
        )
    return plan_input(
        tiers,
        power_mw=draw(st.integers(1, 500)),
        pue=Fraction(draw(st.integers(100, 160)), 100),
        usd_per_kwh=Fraction(draw(st.sampled_from([0, 8, 30, 2_000])), 100),
    )
