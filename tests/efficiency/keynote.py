"""The keynote's generations as inputs of a plan, made of the published figures alone."""

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from billing.factory.plan import PlanInput
from billing.factory.plan_file import read_plan
from tests.efficiency.published import KEYNOTE, KEYNOTE_PRICES, Generation

SECONDS_PER_YEAR = 31_536_000


def generation(name: str) -> Generation:
    """Return the generation whose input is shipped under a name."""
    return next(it for it in KEYNOTE if it.shipped == name)


def inputs_of(it: Generation, *, bounds: dict[str, tuple[str, str]] | None = None) -> PlanInput:
    """Return a gigawatt in equal parts; `bounds` are a tier's minimum and demand, or "" for none.

    Both are in millions of tokens a second.
    """
    lines = ["format = 1", 'power_mw = "1000"']
    for tier, rate in it.million_tokens_per_megawatt.items():
        lines += [f"[tiers.{tier}]", f'tokens_per_second_per_mw = "{_million(rate)}"']
        lines += [f'usd_per_million_tokens = "{KEYNOTE_PRICES[tier]}"', 'actual_mw = "250"']
        minimum, demand = (bounds or {}).get(tier, ("", ""))
        lines += [f'minimum_tokens_per_second = "{_million(minimum)}"'] if minimum else []
        lines += [f'demand_tokens_per_second = "{_million(demand)}"'] if demand else []
    return read_plan("\n".join(lines) + "\n").complete()


def billions_a_year(usd_per_second: Fraction) -> Decimal:
    """Return billions of dollars a year, to the million."""
    return shown(usd_per_second * SECONDS_PER_YEAR / 10**9, "0.001")


def shown(value: Fraction, unit: str) -> Decimal:
    """Return a value to the digits of a unit, halves up."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    return exact.quantize(Decimal(unit), rounding=ROUND_HALF_UP)


def _million(number: str) -> str:
    return format(Decimal(number) * 1_000_000, "f")
