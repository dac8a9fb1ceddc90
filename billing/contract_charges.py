"""Taxes and charges of a contract's file: `[tax]`, `[[charges]]`, and what contradicts them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from billing.charges import Charge
from billing.contracts import Party
from billing.file_terms import read_id
from billing.limits import CHARGES_MAX, TEXT_CHARS_MAX, UNIT_CHARS_MAX
from billing.tax import (
    CATEGORIES,
    INTRA_COMMUNITY,
    OUT_OF_SCOPE,
    RATE_MAX,
    REVERSE_CHARGE,
    REVERSE_CHARGE_NOTE,
    STANDARD,
    Tax,
)
from meter.domain.times import to_ms
from meter.toml_file import Entry, Table

EVERY: Final = "month"
_TAX_KEYS: Final = ("category", "rate", "note")
_CHARGE_KEYS: Final = ("id", "text", "quantity", "unit", "price", "every", "on", "tax")
_CATEGORIES: Final = {it: it for it in CATEGORIES}
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Force:
    """When a version is in force: `[start_ms, end_ms)`, in its zone; None: not known, or open."""

    zone: ZoneInfo | None
    start_ms: int | None
    end_ms: int | None

    def meets(self, day: date) -> bool:
        """Tell whether it is in force at some time of a local day; true where that is not known."""
        if self.zone is None or self.start_ms is None:
            return True
        begin, end = (
            to_ms(datetime.combine(it, time(), tzinfo=self.zone).astimezone(UTC))
            for it in (day, day + _DAY)
        )
        return end > self.start_ms and (self.end_ms is None or begin < self.end_ms)


def read_tax(entry: Entry | None) -> Tax | None:
    """Return a tax: its category, and the rate that is given and never found out."""
    table = None if entry is None else entry.table(_TAX_KEYS)
    if table is None:
        return None
    written = table.need("category")
    category = None if written is None else written.choice(_CATEGORIES, what="category of tax")
    rate_entry, note_entry = table.find("rate"), table.find("note")
    rate = None if rate_entry is None else rate_entry.decimal()
    note = None if note_entry is None else note_entry.text(chars_max=TEXT_CHARS_MAX)
    if category is None:
        return None
    if category == STANDARD and rate_entry is None:
        table.need("rate")
    elif category == STANDARD and rate is not None and not 0 < rate <= RATE_MAX:
        assert rate_entry is not None
        rate_entry.note(f"must be more than 0 and at most {RATE_MAX} percent; without tax: another")
    elif category != STANDARD and rate_entry is not None:
        rate_entry.note(f"category {category} has no rate; leave it out")
    if note is None:
        note = REVERSE_CHARGE_NOTE if category == REVERSE_CHARGE else ""
    return Tax(category=category, rate=rate or Decimal(0), note=note)


def read_charges(entry: Entry | None, *, force: Force) -> tuple[Charge, ...]:
    """Return the charges of a list, in its order; empty for none."""
    entries = (entry.entries() if entry else None) or []
    if entry is not None and len(entries) > CHARGES_MAX:
        entry.note(f"has more than {CHARGES_MAX} charges")
        return ()
    charges: dict[str, Charge] = {}
    lines: dict[str, int] = {}
    for each in entries:
        charge = _read_charge(each, force=force)
        if charge is not None and charge.charge_id in charges:
            each.note(f"has the id of the charge of line {lines[charge.charge_id]}")
        elif charge is not None:
            charges[charge.charge_id] = charge
            lines[charge.charge_id] = each.line
    return tuple(charges.values())


def check_tax_parties(
    root: Table, taxes: Iterable[Tax | None], *, seller: Party | None, buyer: Party | None
) -> None:
    """Note which tax id is missing where documents bear these taxes."""
    categories = {it.category for it in taxes if it is not None}
    within = categories - {OUT_OF_SCOPE}
    to_buyer = sorted(categories & {REVERSE_CHARGE, INTRA_COMMUNITY})
    if within and seller is not None and not seller.tax_id:
        _note_tax_id(root, seller, "who charges tax is named by it")
    if to_buyer and buyer is not None and not buyer.tax_id:
        _note_tax_id(root, buyer, f"category {to_buyer[0]} leaves the tax to whom it names")


def _note_tax_id(root: Table, party: Party, why: str) -> None:
    root.entry.file.note(("parties", party.party_id, "tax_id"), f"is missing; {why}")


def _read_charge(entry: Entry, *, force: Force) -> Charge | None:
    table = entry.table(_CHARGE_KEYS)
    if table is None:
        return None
    charge_id = read_id(table.need("id"))
    text_entry, unit_entry = table.need("text"), table.find("unit")
    text = None if text_entry is None else text_entry.text(chars_max=TEXT_CHARS_MAX)
    unit = None if unit_entry is None else unit_entry.text(chars_max=UNIT_CHARS_MAX)
    quantity_entry, price_entry = table.find("quantity"), table.need("price")
    quantity = Decimal(1) if quantity_entry is None else quantity_entry.decimal()
    if quantity_entry is not None and quantity == 0:
        quantity_entry.note("is 0; leave the charge out")
    price = None if price_entry is None else price_entry.decimal()
    on = _read_when(table, force=force)
    tax = read_tax(table.find("tax"))
    if charge_id is None or text is None or quantity is None or price is None:
        return None
    return Charge(
        charge_id=charge_id,
        text=text,
        quantity=quantity,
        unit=unit or "",
        unit_price=price,
        on=on,
        tax=tax,
    )


def _read_when(table: Table, *, force: Force) -> date | None:
    """Return the date of a charge; None for one of every month."""
    every, on = table.find("every"), table.find("on")
    if (every is None) == (on is None):
        table.entry.note(f'must have either `every = "{EVERY}"` or `on`, a date')
    if every is not None and every.value != EVERY:
        every.note(f'must be "{EVERY}", the only rhythm')
    day = None if on is None else on.local_date()
    if on is not None and day is not None and not force.meets(day):
        on.note("never billed: this version is not in force on that day")
    return day


def taxes_of(tax: Tax | None, charges: Sequence[Charge]) -> list[Tax | None]:
    """Return all taxes that documents may bear."""
    return [tax, *(it.tax for it in charges)]
