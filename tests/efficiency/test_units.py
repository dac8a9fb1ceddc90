"""Units and what is made of them, exactly; and errors by a thousand that others have printed."""

from decimal import Decimal, Inexact

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.units import (
    EnergyUnit,
    exactly,
    joules_per_token,
    per_million,
    per_token,
    rounded,
    tokens_per_joule,
)

MICROJOULE, MILLIJOULE, JOULE, WATT_HOUR, KILOWATT_HOUR, MEGAWATT_HOUR = (
    EnergyUnit.MICROJOULE,
    EnergyUnit.MILLIJOULE,
    EnergyUnit.JOULE,
    EnergyUnit.WATT_HOUR,
    EnergyUnit.KILOWATT_HOUR,
    EnergyUnit.MEGAWATT_HOUR,
)
AMOUNTS = st.decimals(0, 10**15, places=6, allow_nan=False)


@pytest.mark.parametrize(
    ("amount", "unit", "to", "result"),
    [
        ("1", KILOWATT_HOUR, JOULE, "3600000"),
        ("1", WATT_HOUR, JOULE, "3600"),
        ("1", KILOWATT_HOUR, WATT_HOUR, "1000"),
        ("1", MEGAWATT_HOUR, MILLIJOULE, "3600000000000"),
        ("1", JOULE, MILLIJOULE, "1000"),
        ("1", MILLIJOULE, MICROJOULE, "1000"),
        ("0.24", WATT_HOUR, JOULE, "864"),
        ("864000", MILLIJOULE, WATT_HOUR, "0.24"),
        ("0.000001", JOULE, MICROJOULE, "1"),
        ("9", MICROJOULE, WATT_HOUR, "0.0000000025"),
    ],
)
def test_energy__in_another_unit(
    amount: str, unit: EnergyUnit, to: EnergyUnit, result: str
) -> None:
    """Each pair of units has the factor that it has by definition, as exact decimals."""
    assert exactly(Decimal(amount), unit, to=to) == Decimal(result)


@given(AMOUNTS, st.sampled_from([WATT_HOUR, KILOWATT_HOUR, MEGAWATT_HOUR]))
def test_energy__there_and_back(amount: Decimal, unit: EnergyUnit) -> None:
    """What becomes smaller units comes back from them unchanged."""
    for smaller in (MICROJOULE, MILLIJOULE, JOULE):
        assert exactly(exactly(amount, unit, to=smaller), smaller, to=unit) == amount


def test_energy__without_an_end() -> None:
    """A joule in kilowatt-hours has no last digit: it is refused, and not cut without a word."""
    with pytest.raises(Inexact):
        exactly(1, JOULE, to=KILOWATT_HOUR)
    shown = rounded(1, JOULE, to=KILOWATT_HOUR, decimal_count=10)
    assert shown == Decimal("0.0000002778")


@given(AMOUNTS)
def test_price__of_a_million_and_of_one(amount: Decimal) -> None:
    """Dollars per million and per token are the same price, to the last digit."""
    assert per_million(per_token(amount)) == amount
    assert per_token(amount) * 1_000_000 == amount


@pytest.mark.parametrize(
    ("joules", "kilowatt_hours", "printed"),
    [
        # A provider's draft of what it discloses.
        ("1500", "0.00041667", "4.167e-7"),
        # A client's page about what its answers cost.
        ("1234.56", "0.00034293", "3.43e-7"),
    ],
)
def test_energy__printed_a_thousand_times_too_small(
    joules: str, kilowatt_hours: str, printed: str
) -> None:
    """Two printed figures are not what comes out here: they are a thousandth of it."""
    ours = rounded(Decimal(joules), JOULE, to=KILOWATT_HOUR, decimal_count=8)
    assert ours == Decimal(kilowatt_hours)
    assert round(ours / Decimal(printed)) == 1_000


def test_carbon__printed_a_thousand_times_too_small() -> None:
    """6,500 kg of 50 billion tokens are 130 g a million, not the 0.13 g that a standard prints."""
    per_one = Decimal(6_500) * 1_000 / 50_000_000_000
    assert per_million(per_one) == 130 == 1_000 * Decimal("0.13")


def test_carbon__of_a_joule_a_token() -> None:
    """A million tokens of a joule each take a third of a kWh with losses: 128.7 g at 386 g/kWh."""
    facility = exactly(1_000_000, JOULE, to=MICROJOULE) * Decimal("1.2")
    energy = rounded(facility, MICROJOULE, to=KILOWATT_HOUR, decimal_count=4)
    assert energy == Decimal("0.3333")
    grams = rounded(facility * 386, MICROJOULE, to=KILOWATT_HOUR, decimal_count=1)
    assert grams == Decimal("128.7")


@given(st.integers(1, 10**15), st.integers(1, 10**15))
def test_ratio__and_its_inverse(tokens: int, energy_mj: int) -> None:
    """Tokens per joule and joules per token are each other's inverse."""
    product = tokens_per_joule(tokens, energy_mj=energy_mj) * joules_per_token(
        energy_mj, token_count=tokens
    )
    assert abs(product - 1) < Decimal("1e-25")
