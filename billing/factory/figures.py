"""The units of a plan: megawatts, a year of them, a million tokens, and ratios of fractions."""

from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation, Overflow
from fractions import Fraction
from typing import Final

from meter.domain.units import SECONDS_PER_YEAR

HOURS_PER_YEAR: Final = 8_760
SECONDS_PER_HOUR: Final = 3_600
KILOWATTS_PER_MEGAWATT: Final = 1_000
WATTS_PER_MEGAWATT: Final = 1_000_000
TOKENS_PER_PRICE: Final = 1_000_000

# A power with a broken exponent has no end; this many digits are more than any figure shows.
_POWERS: Final = Context(prec=40, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, Overflow])


def ratio(part: Fraction | int, whole: Fraction | int) -> Fraction:
    """Return an exact ratio; `whole` is not 0."""
    return Fraction(Fraction(part), Fraction(whole))


def raise_to(base: Fraction, exponent: Decimal) -> Fraction:
    """Return a power of a base above 0, to 40 digits."""
    numerator, denominator = Decimal(base.numerator), Decimal(base.denominator)
    return Fraction(_POWERS.power(_POWERS.divide(numerator, denominator), exponent))


def per_year(per_second: Fraction) -> Fraction:
    """Return what comes together in a year of 365 days."""
    return per_second * SECONDS_PER_YEAR
