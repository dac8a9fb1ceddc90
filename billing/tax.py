"""Tax: by category, on the sum of the rounded lines, rounded once for each. Pure.

A rate is given by the contract and never found out here. Categories are those of EN 16931 (UNTDID
5305): S standard rate, Z zero rate, E exempt, AE reverse charge, K intra-community, G export,
O outside the scope of tax.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from billing.money import Currency, add_up, multiply, round_half_up

CATEGORIES: Final = ("S", "Z", "E", "AE", "K", "G", "O")
# The only one whose rate is not 0.
STANDARD: Final = "S"
REVERSE_CHARGE: Final = "AE"
INTRA_COMMUNITY: Final = "K"
OUT_OF_SCOPE: Final = "O"
# What an invoice says where the contract has no words of its own.
REVERSE_CHARGE_NOTE: Final = "Reverse charge: VAT to be accounted for by the recipient."
RATE_MAX: Final = 100
_PERCENT: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tax:
    """A category with its rate in percent (0 but for S), and the note that an invoice bears."""

    category: str
    rate: Decimal
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxTotal:
    """The tax of one category and rate: `amount` is `basis` times the rate, rounded once."""

    tax: Tax
    basis: Decimal
    amount: Decimal


def tax_totals(
    lines: Iterable[tuple[Tax | None, Decimal]], currency: Currency
) -> tuple[TaxTotal, ...]:
    """Return the taxes on rounded amounts, by category and rate; lines without tax have none."""
    amounts: dict[Tax, list[Decimal]] = {}
    for tax, billed in lines:
        if tax is not None:
            amounts.setdefault(tax, []).append(billed)
    found = []
    for tax in sorted(amounts, key=lambda it: (CATEGORIES.index(it.category), -it.rate, it.note)):
        basis = add_up(amounts[tax])
        exact = multiply(basis, tax.rate, _PERCENT)
        found.append(TaxTotal(tax=tax, basis=basis, amount=round_half_up(exact, currency)))
    return tuple(found)
