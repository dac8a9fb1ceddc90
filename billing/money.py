"""Exact money: currencies, products without rounding, and the one place that rounds.

Amounts are `Decimal`s that were made without loss: the context below traps what would be inexact,
so a rounding that nobody asked for is an error and not a cent. A price is per 1,000,000 tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from fractions import Fraction
from functools import cache
from typing import Final

import iso4217

from meter.domain.units import divide_half_up

TOKENS_PER_PRICE_EXPONENT: Final = 6
# Decimals of a part of an amount, at least: far below what anybody pays.
_SHARE_DECIMALS: Final = 12

# Wide enough for 10^18 tokens at a price of a hundred digits, times factors of a hundred more.
_EXACT: Final = Context(
    prec=1000,
    rounding=ROUND_HALF_UP,
    traps=[Clamped, DivisionByZero, Inexact, InvalidOperation, Overflow],
)
_ROUNDING: Final = Context(prec=1000, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])
ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency: its ISO 4217 code, and how many decimals its smallest unit has (0 to 4)."""

    code: str
    exponent: int


def find_currency(code: str) -> Currency | None:
    """Return the currency of an ISO 4217 code in capitals; None for one that is unknown.

    Codes without a smallest unit (gold, testing) are no currencies: nobody can pay 0.01 of them.
    """
    try:
        known = iso4217.Currency(code)
    except ValueError:
        return None
    return None if known.exponent is None else Currency(known.code, known.exponent)


def multiply(first: Decimal, *others: Decimal) -> Decimal:
    """Return the exact product."""
    product = first
    for factor in others:
        product = _EXACT.multiply(product, factor)
    return product


def amount_of(token_count: int, *, unit_price: Decimal) -> Decimal:
    """Return the exact amount of so many tokens (signed) at a price per 1,000,000."""
    product = _EXACT.multiply(Decimal(token_count), unit_price)
    return _EXACT.scaleb(product, -TOKENS_PER_PRICE_EXPONENT)


def add_up(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum."""
    total = ZERO
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


def subtract(first: Decimal, second: Decimal) -> Decimal:
    """Return the exact difference."""
    return _EXACT.subtract(first, second)


def share_out(amount: Decimal, *, weights: Sequence[int]) -> list[Decimal]:
    """Divide an amount by weights ≥ 0, of which one is not 0, into parts that add up to it.

    Parts have at most 12 decimals, or as many as the amount. By largest remainder; of equal
    remainders the first goes first.
    """
    whole = sum(weights)
    assert whole > 0, "something has to have a weight"
    assert min(weights) >= 0, "weights are not negative"
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int), "an amount is a number"
    decimals = max(_SHARE_DECIMALS, -exponent)
    total = int(_EXACT.scaleb(amount, decimals))
    divided = [divmod(total * weight, whole) for weight in weights]
    parts = [part for part, _ in divided]
    left_over = total - sum(parts)
    if left_over:
        by_remainder = sorted(range(len(weights)), key=lambda it: -divided[it][1])
        for place in by_remainder[:left_over]:
            parts[place] += 1
    return [_EXACT.scaleb(Decimal(part), -decimals) for part in parts]


def round_half_up(amount: Decimal, currency: Currency) -> Decimal:
    """Return the amount in whole smallest units, halves away from zero: the one rounding."""
    return _ROUNDING.quantize(amount, _smallest_unit(currency.exponent))


@cache
def _smallest_unit(exponent: int) -> Decimal:
    return Decimal(1).scaleb(-exponent)


def write(amount: Decimal) -> str:
    """Return a decimal as plain digits: no exponent, no zeros behind that say nothing.

    `write_money` keeps the currency's decimals.
    """
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def write_money(amount: Decimal, currency: Currency) -> str:
    """Return a rounded amount with exactly its currency's decimals, without separators."""
    # Plus makes 0 of the -0 that a small loss is rounded to.
    return format(_EXACT.plus(round_half_up(amount, currency)), "f")


def round_fraction(value: Fraction, *, decimals: int) -> Decimal:
    """Return a fraction with so many decimals, halves away from zero.

    For what is planned and compared, whose ratios have no end; what anybody pays is never a ratio.
    """
    scaled = value * 10**decimals
    whole = divide_half_up(scaled.numerator, scaled.denominator)
    return Decimal(whole).scaleb(-decimals, _ROUNDING)
