"""Charges: what a contract bills beside tokens, each month or once. Pure."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from billing.tax import Tax


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """So many units at a price each: every month in full, or (`on`) once, on a local date.

    `tax` is the charge's own; None: the contract's.
    """

    charge_id: str
    text: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    on: date | None
    tax: Tax | None
