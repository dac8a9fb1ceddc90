"""A thousand is the error of this trade: each unit is told from its neighbours, to the digit."""

from decimal import Decimal, Inexact
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.units import (
    MJ_PER_JOULE,
    MJ_PER_KILOWATT_HOUR,
    MJ_PER_MEGAWATT_HOUR,
    EnergyUnit,
    divide_half_up,
    energy_of,
    exactly,
    joules_per_token,
    per_megawatt_hour,
    per_million,
    per_token,
    rounded,
    tokens_per_joule,
)

_UNITS = st.sampled_from(list(EnergyUnit))
_AMOUNTS = st.decimals(
    min_value=-(10**15), max_value=10**15, allow_nan=False, allow_infinity=False, places=6
)


@pytest.mark.parametrize(
    ("amount", "unit", "to", "expected"),
    [
        ("1", EnergyUnit.KILOWATT_HOUR, EnergyUnit.JOULE, "3600000"),
        ("1", EnergyUnit.WATT_HOUR, EnergyUnit.JOULE, "3600"),
        ("1", EnergyUnit.MEGAWATT_HOUR, EnergyUnit.KILOWATT_HOUR, "1000"),
        ("1", EnergyUnit.KILOWATT_HOUR, EnergyUnit.WATT_HOUR, "1000"),
        ("1", EnergyUnit.JOULE, EnergyUnit.MILLIJOULE, "1000"),
        ("1", EnergyUnit.MILLIJOULE, EnergyUnit.MICROJOULE, "1000"),
        ("1", EnergyUnit.KILOJOULE, EnergyUnit.JOULE, "1000"),
        ("0.24", EnergyUnit.WATT_HOUR, EnergyUnit.JOULE, "864"),
        ("9", EnergyUnit.JOULE, EnergyUnit.WATT_HOUR, "0.0025"),
        ("-9", EnergyUnit.JOULE, EnergyUnit.KILOWATT_HOUR, "-0.0000025"),
        ("0", EnergyUnit.JOULE, EnergyUnit.KILOWATT_HOUR, "0"),
    ],
)
def test_exactly__known_amounts(
    amount: str, unit: EnergyUnit, to: EnergyUnit, expected: str
) -> None:
    """A unit has as many of another as the books say."""
    assert exactly(Decimal(amount), unit, to=to) == Decimal(expected)


def test_exactly__no_decimal_number() -> None:
    """A joule is no finite number of kilowatt-hours, and nobody rounds it in silence."""
    with pytest.raises(Inexact):
        exactly(1, EnergyUnit.JOULE, to=EnergyUnit.KILOWATT_HOUR)


def test_constants__as_the_units() -> None:
    """What others multiply by is what the units say."""
    for count, unit in (
        (MJ_PER_JOULE, EnergyUnit.JOULE),
        (MJ_PER_KILOWATT_HOUR, EnergyUnit.KILOWATT_HOUR),
        (MJ_PER_MEGAWATT_HOUR, EnergyUnit.MEGAWATT_HOUR),
    ):
        assert exactly(count, EnergyUnit.MILLIJOULE, to=unit) == 1


@pytest.mark.parametrize(
    ("joules", "kilowatt_hours", "published"),
    [
        # A provider's draft of a disclosure, and the README of a client: both off by a thousand.
        ("1500", "0.00041667", "0.0000004167"),
        ("1234.56", "0.00034293", "0.000000343"),
    ],
)
def test_rounded__published_errors(joules: str, kilowatt_hours: str, published: str) -> None:
    """Joules that were printed as kilowatt-hours a thousand times too small come out right."""
    found = rounded(Decimal(joules), EnergyUnit.JOULE, to=EnergyUnit.KILOWATT_HOUR, decimal_count=8)
    assert found == Decimal(kilowatt_hours)
    assert found > 900 * Decimal(published)


def test_per_token__published_error() -> None:
    """6,500 kg over 50 billion tokens are 130 g a million, and not the 0.13 g that was printed."""
    grams = Decimal(6_500) * 1_000
    assert per_million(grams / 50_000_000_000) == 130
    assert per_token(Decimal(130)) * 50_000_000_000 == grams


@pytest.mark.parametrize(
    ("price_per_million", "price_per_one"),
    [("0", "0"), ("3", "0.000003"), ("150", "0.00015"), ("0.16575", "0.00000016575")],
)
def test_per_token__prices(price_per_million: str, price_per_one: str) -> None:
    """A price of a million tokens and that of one are the same digits, six places apart."""
    assert per_token(Decimal(price_per_million)) == Decimal(price_per_one)
    assert per_million(Decimal(price_per_one)) == Decimal(price_per_million)


@given(_AMOUNTS, _UNITS, _UNITS)
def test_rounded__nearest(amount: Decimal, unit: EnergyUnit, to: EnergyUnit) -> None:
    """A rounded amount is at most half a place from the exact one, in the shape that was asked."""
    found = rounded(amount, unit, to=to, decimal_count=10)
    exact = Fraction(amount) * unit.value / to.value
    assert abs(Fraction(found) - exact) <= Fraction(1, 2 * 10**10)
    assert found.as_tuple().exponent == -10


@given(_AMOUNTS, _UNITS)
def test_exactly__there_and_back(amount: Decimal, unit: EnergyUnit) -> None:
    """An amount that went into smaller units and back is the same, to the last digit."""
    micro = exactly(amount, unit, to=EnergyUnit.MICROJOULE)
    assert exactly(micro, EnergyUnit.MICROJOULE, to=unit) == amount


@given(st.integers(0, 2**62))
def test_rounded__millijoules_are_found_again(energy_mj: int) -> None:
    """Ten decimals of a kilowatt-hour tell each millijoule from the next."""
    written = rounded(
        energy_mj, EnergyUnit.MILLIJOULE, to=EnergyUnit.KILOWATT_HOUR, decimal_count=10
    )
    back = rounded(written, EnergyUnit.KILOWATT_HOUR, to=EnergyUnit.MILLIJOULE, decimal_count=0)
    assert back == energy_mj


@pytest.mark.parametrize(
    ("dividend", "divisor", "expected"),
    [(1, 2, 1), (-1, 2, -1), (1, 3, 0), (5, 3, 2), (-5, 3, -2), (0, 7, 0), (3, 2, 2)],
)
def test_divide_half_up__halves_away_from_zero(dividend: int, divisor: int, expected: int) -> None:
    """The nearest whole number, and of two as near the one farther from zero."""
    assert divide_half_up(dividend, divisor) == expected


def test_energy_of__watts_and_seconds() -> None:
    """75.5 W over four seconds are 302 J; what is no whole millijoule is left out."""
    assert energy_of(75_500, time_ms=4_000) == 302_000
    assert energy_of(1, time_ms=999) == 0


def test_ratios__one_joule_a_token() -> None:
    """At a joule a token, a million tokens for $6 earn $21,600 a megawatt-hour."""
    energy_mj = 1_000_000 * MJ_PER_JOULE
    assert tokens_per_joule(1_000_000, energy_mj=energy_mj) == 1
    assert joules_per_token(energy_mj, token_count=1_000_000) == 1
    assert per_megawatt_hour(Decimal(6), energy_mj=energy_mj) == 21_600
