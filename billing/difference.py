"""The difference rule: what a period comes to by now, less what was billed for it. Pure.

A key's tokens are rounded as one, whenever they came: what is billed now is the rounded amount of
all of them, less what was billed before. So parts add up to the cent, in any order and number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter

from billing.money import Currency, add_up, amount_of, round_half_up, subtract
from billing.price_book import Price
from billing.rating import LineKey, RatedLine


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledLine:
    """A line of a document that is not void: what it billed for a period."""

    key: LineKey
    number: str
    line: int
    token_count: int
    billed: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftLine:
    """What is left to bill of a key: `token_count` (signed) at its price.

    `exact` is their amount, `billed` the rounded amount of all tokens of the key less what was
    billed before. `first` is the first line that billed any; None: none did. `price` is None
    where nothing has that price any more: that line knows it.
    """

    key: LineKey
    price: Price | None
    token_count: int
    exact: Decimal
    billed: Decimal
    first: BilledLine | None


def find_left(
    rated: Iterable[RatedLine], billed: Sequence[BilledLine], *, currency: Currency
) -> list[LeftLine]:
    """Return what is left to bill of a period, by key, in the order of keys.

    `rated` is all its usage by now, `billed` the lines for it in the order of their issue. Keys
    of which nothing is left are not there.
    """
    by_key: dict[LineKey, tuple[Price | None, int]] = {}
    for line in rated:
        key = line.key
        price, count = by_key.get(key, (line.price, 0))
        by_key[key] = (price, count + line.token_count)
    before: dict[LineKey, list[BilledLine]] = {}
    for it in billed:
        before.setdefault(it.key, []).append(it)
    for key in before:
        by_key.setdefault(key, (None, 0))
    left = []
    for key, (price, now) in sorted(by_key.items(), key=itemgetter(0)):
        lines = before.get(key, ()) if before else ()
        token_count = now - sum(it.token_count for it in lines)
        exact = amount_of(now, unit_price=key.unit_price)
        amount = round_half_up(exact, currency)
        if lines:
            amount = subtract(amount, add_up(it.billed for it in lines))
            exact = amount_of(token_count, unit_price=key.unit_price)
        if token_count or amount:
            left.append(
                LeftLine(
                    key=key,
                    price=price,
                    token_count=token_count,
                    exact=exact,
                    billed=amount,
                    first=lines[0] if lines else None,
                )
            )
    return left
