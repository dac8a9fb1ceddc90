"""How wide the columns of an invoice's tables are: the same in all, so that numbers stand in line.

Widths are in figures, all of which are equally wide; what stands between them is narrower.
"""

from dataclasses import dataclass
from typing import Final

from billing.documents.cells import width_of
from billing.documents.format import group_by_model, group_count, group_money, group_price, subtotal
from billing.invoicing import Invoice

# Of tokens, price and amount. What is longer goes on in the next row.
_NUMBER_WIDTHS_MIN: Final = (8, 12, 10)
_NUMBER_WIDTHS_MAX: Final = (21, 14, 18)
_TIER_WIDTH_MIN: Final = 5
# The longest class, and the gaps between all columns.
_CLASS_WIDTH: Final = 14
_GAPS_WIDTH: Final = 9
# Between the margins of a page, in the ordinary size and in a smaller one for long numbers.
_PAGE_WIDTH: Final = 74
_DENSE_PAGE_WIDTH: Final = 86
# Prices with more decimals do not have their points below each other.
_DECIMALS_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Widths in figures; the class has what is left.

    `decimals` are those of the price that has most, 0 where points are not aligned. `is_dense` asks
    for the smaller size.
    """

    line: int
    tier: int
    numbers: tuple[int, int, int]
    decimals: int
    is_dense: bool


def columns_of(invoice: Invoice) -> Columns:
    """Return the columns that hold all lines of an invoice."""
    currency, lines = invoice.currency, invoice.lines
    prices = [group_price(it.price.unit_price, currency).partition(".") for it in lines]
    whole = max((len(it) for it, _, _ in prices), default=0)
    decimals = max((len(it) for _, _, it in prices), default=0)
    amounts = [subtotal(of_model) for _, of_model in group_by_model(lines)]
    needed = (
        max((len(group_count(it.token_count)) for it in lines), default=0),
        whole + 1 + decimals,
        # Subtotals are in bold type.
        max((len(group_money(it, currency)) for it in amounts), default=0) + 1,
    )
    limits = zip(needed, _NUMBER_WIDTHS_MIN, _NUMBER_WIDTHS_MAX, strict=True)
    tokens, price, amount = (min(max(width, least), most) for width, least, most in limits)
    line = len(str(len(lines))) + 2
    # Letters may be wider than figures.
    tier = max((width_of(it.tier) * 5 // 4 + 1 for it in lines), default=0)
    others = line + _CLASS_WIDTH + tokens + price + amount + _GAPS_WIDTH
    is_dense = others + tier > _PAGE_WIDTH
    room = (_DENSE_PAGE_WIDTH if is_dense else _PAGE_WIDTH) - others
    return Columns(
        line=line,
        tier=max(_TIER_WIDTH_MIN, min(tier, room)),
        numbers=(tokens, price, amount),
        decimals=decimals if decimals <= _DECIMALS_MAX else 0,
        is_dense=is_dense,
    )
