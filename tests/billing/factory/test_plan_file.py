"""What is planned with, as a file: all that it says, what it may leave out, and all its faults."""

from decimal import Decimal
from fractions import Fraction

import pytest

from billing.factory.plan import PlanImpossible, PlanInput, Tier
from billing.factory.plan_file import PlanTerms, TierTerms, read_plan
from meter.toml_file import FileFaults
from tests.billing.terms import cases, check_faults

WHOLE = """
format = 1
name = "oslo, next year"
power_mw = "20"
pue = "1.25"
usd_per_kwh = "0.08"
[tiers.high]
tokens_per_second_per_mw = "700000"
usd_per_million_tokens = "6"
minimum_tokens_per_second = "1000"
demand_tokens_per_second = "8000000"
demand_at_usd_per_million_tokens = "3"
elasticity = "2"
actual_mw = "1.5"
"""
FAULTS = r"""
format = 2  #! format: must be 1
---
format = 1
power = 1  #! power: no such key; here are format, name, power_mw
---
format = 1
power_mw = 20  #! power_mw: must be a string to be exact: "20"
---
format = 1
power_mw = "0"  #! power_mw: must be above 0
---
format = 1
power_mw = "-1"  #! power_mw: is negative
---
format = 1
pue = "0.9"  #! pue: must be 1 or more
---
format = 1
name = 3  #! name: must be a text
---
format = 1
tiers = 3  #! tiers: must be a table
---
format = 1
[tiers]
high = 3  #! tiers.high: must be a table
---
format = 1
[tiers."a\u0000"]  #! tiers."a\u0000": all of which can be printed
---
format = 1
[tiers.high]
price = "6"  #! tiers.high.price: no such key; here are tokens_per_second_per_mw
usd_per_million_tokens = "1e3"  #! tiers.high.usd_per_million_tokens: no plain decimal
---
format = 1
[tiers.high]
demand_tokens_per_second = "5"
elasticity = "1.1"  #! tiers.high.elasticity: needs `demand_at_usd_per_million_tokens`
---
format = 1
[tiers.high]
demand_at_usd_per_million_tokens = "5"
elasticity = "1.1"  #! tiers.high.elasticity: needs `demand_tokens_per_second`
---
format = 1
[tiers.high]
demand_at_usd_per_million_tokens = "5"  #! tiers.high.demand_at_usd_per_million_tokens: without
---
format = 1
[tiers.high]
demand_at_usd_per_million_tokens = "0"  #! tiers.high.demand_at_usd_per_million_tokens: above 0
demand_tokens_per_second = "5"
elasticity = "1.1"
---
format = 1
[tiers.free]
usd_per_million_tokens = "0"
demand_at_usd_per_million_tokens = "5"
demand_tokens_per_second = "5"
elasticity = "1.1"  #! tiers.free.elasticity: has no meaning for a tier that is free
"""
KNOWN = TierTerms(
    tps_per_mw=Fraction(5), price=Fraction(7), minimum_tps=Fraction(2), actual_mw=Fraction(3)
)


def test_read__all_that_it_says() -> None:
    """Each key is in the terms, exactly as it is written."""
    found = read_plan(WHOLE)
    assert found == PlanTerms(
        name="oslo, next year",
        power_mw=Fraction(20),
        pue=Fraction(5, 4),
        usd_per_kwh=Fraction(8, 100),
        tiers={
            "high": TierTerms(
                tps_per_mw=Fraction(700_000),
                price=Fraction(6),
                minimum_tps=Fraction(1_000),
                demand_tps=Fraction(8_000_000),
                demand_at=Fraction(3),
                elasticity=Decimal(2),
                actual_mw=Fraction(3, 2),
            )
        },
    )


@pytest.mark.parametrize("text", cases(FAULTS))
def test_read__faults(text: str) -> None:
    """What is wrong is named with its line, and the way out."""
    with pytest.raises(FileFaults) as caught:
        read_plan(text)
    check_faults(caught.value, text)


def test_read__all_faults_at_once() -> None:
    """Two faults of one file are told together."""
    text = 'pue = "0.5"  #! pue: 1 or more\npower_mw = 3  #! power_mw: a string\nformat = 1\n'
    with pytest.raises(FileFaults) as caught:
        read_plan(text)
    check_faults(caught.value, text)


def test_complete__demand_falls_with_the_price() -> None:
    """At twice the price, an elasticity of 2 leaves a quarter of the demand."""
    (tier,) = read_plan(WHOLE).complete().tiers
    assert tier.demand_tps == 2_000_000
    (tier,) = read_plan(WHOLE).complete(prices={"high": Fraction(3)}).tiers
    assert tier.demand_tps == 8_000_000


def test_complete__demand_of_a_broken_elasticity() -> None:
    """A power with a broken exponent is as exact as forty digits are."""
    terms = read_plan(WHOLE.replace('"2"', '"1.1"')).complete(prices={"high": Fraction(30)})
    assert terms.tiers[0].demand_tps is not None
    assert float(terms.tiers[0].demand_tps) == pytest.approx(8_000_000 * 10**-1.1, rel=1e-15)


def test_complete__a_price_of_nothing_has_no_end_of_demand() -> None:
    """Whoever tries a price of 0 is asked for more than anything."""
    (tier,) = read_plan(WHOLE).complete(prices={"high": Fraction(0)}).tiers
    assert tier.demand_tps is None


def test_complete__the_file_comes_before_what_is_measured() -> None:
    """What the file leaves out is what was measured, tiers that it does not name too."""
    terms = PlanTerms(
        power_mw=Fraction(9), tiers={"a": TierTerms(price=Fraction(1), demand_tps=Fraction(8))}
    )
    known = PlanTerms(
        name="oslo", power_mw=Fraction(4), pue=Fraction(2), tiers={"a": KNOWN, "b": KNOWN}
    )
    found = terms.complete(known, prices={"b": Fraction(10)})
    assert found == PlanInput(
        name="oslo",
        power_mw=Fraction(9),
        pue=Fraction(2),
        usd_per_kwh=Fraction(0),
        tiers=[
            Tier(
                tier="a",
                tps_per_mw=Fraction(5),
                price=Fraction(1),
                minimum_tps=Fraction(2),
                demand_tps=Fraction(8),
                actual_mw=Fraction(3),
            ),
            Tier(
                tier="b",
                tps_per_mw=Fraction(5),
                price=Fraction(10),
                minimum_tps=Fraction(2),
                actual_mw=Fraction(3),
            ),
        ],
    )


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (PlanTerms(), "there are no tiers to plan with"),
        (PlanTerms(tiers={"a": KNOWN}), "power_mw is said nowhere"),
        (
            PlanTerms(power_mw=Fraction(1), tiers={"a": TierTerms()}),
            "tokens_per_second_per_mw of a",
        ),
        (
            PlanTerms(power_mw=Fraction(1), tiers={"a": TierTerms(tps_per_mw=Fraction(1))}),
            "usd_per_million_tokens of a is said nowhere",
        ),
    ],
)
def test_complete__what_is_said_nowhere(terms: PlanTerms, message: str) -> None:
    """What is missing is named by its key, and nothing is made up for it."""
    with pytest.raises(PlanImpossible, match=message):
        terms.complete()


def test_complete__a_price_of_no_tier() -> None:
    """A price to try is of a tier that there is."""
    with pytest.raises(PlanImpossible, match="a price is given for b, which is none of the tiers"):
        PlanTerms(power_mw=Fraction(1), tiers={"a": KNOWN}).complete(prices={"b": Fraction(1)})
