"""Units of energy, power and prices, turned into each other without loss or guess. Pure.

Energy is kept in whole millijoules. Not every amount has a finite number of digits in every unit
(a joule is 1/3.6 of a milliwatt-hour): `exactly` refuses such a one, `rounded` says to how many
decimals. Ratios are told and never added up: they have 34 digits.
"""

from decimal import (
    ROUND_HALF_UP,
    Clamped,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)
from enum import Enum
from fractions import Fraction
from typing import Final

SECONDS_PER_YEAR: Final = 31_536_000

# Wide enough for what billing reckons with: 10^18 tokens at a price of a hundred digits.
_TRAPS: Final = (Clamped, DivisionByZero, InvalidOperation, Overflow)
_EXACT: Final = Context(prec=1000, rounding=ROUND_HALF_UP, traps=[*_TRAPS, Inexact])
_RATIO: Final = Context(prec=34, rounding=ROUND_HALF_UP, traps=list(_TRAPS))
_MICROJOULES_PER_MILLIJOULE: Final = 1_000
_MILLION_EXPONENT: Final = 6


class EnergyUnit(Enum):
    """A unit of energy; its value is how many microjoules it has."""

    MICROJOULE = 1
    MILLIJOULE = 1_000
    JOULE = 1_000_000
    KILOJOULE = 1_000_000_000
    WATT_HOUR = 3_600_000_000
    KILOWATT_HOUR = 3_600_000_000_000
    MEGAWATT_HOUR = 3_600_000_000_000_000


MJ_PER_JOULE: Final = EnergyUnit.JOULE.value // _MICROJOULES_PER_MILLIJOULE
MJ_PER_KILOWATT_HOUR: Final = EnergyUnit.KILOWATT_HOUR.value // _MICROJOULES_PER_MILLIJOULE
MJ_PER_MEGAWATT_HOUR: Final = EnergyUnit.MEGAWATT_HOUR.value // _MICROJOULES_PER_MILLIJOULE


def exactly(amount: Decimal | int, unit: EnergyUnit, *, to: EnergyUnit) -> Decimal:
    """Return energy in another unit; raises decimal.Inexact where no decimal number says it."""
    product = _EXACT.multiply(Decimal(amount), Decimal(unit.value))
    return _EXACT.divide(product, Decimal(to.value))


def rounded(
    amount: Decimal | int, unit: EnergyUnit, *, to: EnergyUnit, decimal_count: int
) -> Decimal:
    """Return energy in another unit with so many decimals, halves away from zero."""
    # One rounding of the exact quotient: of one that was cut before, no half can be told.
    exact = Fraction(amount) * unit.value / to.value * 10**decimal_count
    whole = divide_half_up(exact.numerator, exact.denominator)
    return _EXACT.scaleb(Decimal(whole), -decimal_count)


def energy_of(power_mw: int, *, time_ms: int) -> int:
    """Return the whole millijoules of a power (mW ≥ 0) over a time (ms ≥ 0), rounded down."""
    return power_mw * time_ms // _MICROJOULES_PER_MILLIJOULE


def divide_half_up(dividend: int, divisor: int) -> int:
    """Return the whole number nearest to a quotient, halves away from zero; the divisor is > 0."""
    assert divisor > 0, "a ratio without a base is nobody's to round"
    magnitude = (2 * abs(dividend) + divisor) // (2 * divisor)
    return magnitude if dividend >= 0 else -magnitude


def per_token(per_million: Decimal) -> Decimal:
    """Return what one token is or costs, of what a million are or cost; exact."""
    return _EXACT.scaleb(per_million, -_MILLION_EXPONENT)


def per_million(of_one: Decimal) -> Decimal:
    """Return what a million tokens are or cost, of what one is or costs; exact."""
    return _EXACT.scaleb(of_one, _MILLION_EXPONENT)


def per_megawatt_hour(amount: Decimal, *, energy_mj: int) -> Decimal:
    """Return an amount by energy (mJ, not 0) as one by megawatt-hours."""
    return _RATIO.divide(_EXACT.multiply(amount, Decimal(MJ_PER_MEGAWATT_HOUR)), Decimal(energy_mj))


def tokens_per_joule(token_count: int, *, energy_mj: int) -> Decimal:
    """Return tokens by energy (mJ, not 0) as tokens per joule: tokens a second per watt."""
    return _RATIO.divide(Decimal(token_count * MJ_PER_JOULE), Decimal(energy_mj))


def joules_per_token(energy_mj: int, *, token_count: int) -> Decimal:
    """Return energy (mJ) by tokens (not 0) in joules per token."""
    return _RATIO.divide(Decimal(energy_mj), Decimal(token_count * MJ_PER_JOULE))
