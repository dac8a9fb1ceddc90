"""What a contract's file says of its documents and of their close: `[document]`, `[closing]`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from billing.contracts import CLOSING_DEFAULT, ClosingTerms
from billing.limits import (
    BANK_LINES_MAX,
    COLLECT_HOURS_MAX,
    SERIES_CHARS_MAX,
    TERMS_DAYS_MAX,
    TEXT_CHARS_MAX,
)
from billing.money import Currency
from meter.domain.boundary import Boundary
from meter.toml_file import Entry, Table

DOCUMENT_KIND: Final = "invoice"
GROUP_BY: Final = "account"
TERMS_DAYS_DEFAULT: Final = 30
_DOCUMENT_KEYS: Final = (
    *("kind", "series", "po", "terms_days", "energy", "bank", "group_by", "minimum", "zero"),
)
_CLOSING_KEYS: Final = ("collect_hours", "hold_first", "hold_jump")
_BOUNDARIES: Final = {it.value: it for it in Boundary}
_SERIES: Final = re.compile(r"[A-Z0-9][A-Z0-9-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentTerms:
    """The `[document]` of a contract, with its defaults."""

    series: str
    po: str
    terms_days: int
    energy: Boundary | None
    bank: tuple[str, ...]
    by_account: bool
    minimum: Decimal
    zero_documents: bool


def read_document(root: Table, *, currency: Currency | None) -> DocumentTerms:
    """Return what documents of a contract say; a minimum is in whole units of the currency."""
    entry = root.find("document")
    table = None if entry is None else entry.table(_DOCUMENT_KEYS)
    entries: Mapping[str, Entry] = {} if table is None else table.entries
    kind, series, po, days, energy, bank, group_by, minimum, zero = (
        entries.get(key) for key in _DOCUMENT_KEYS
    )
    for each, only in ((kind, DOCUMENT_KIND), (group_by, GROUP_BY)):
        if each is not None and each.value != only:
            what = "kind" if each is kind else "way to group"
            each.note(f'must be "{only}", the only {what}')
    terms_days = None if days is None else days.integer(minimum=0, maximum=TERMS_DAYS_MAX)
    return DocumentTerms(
        series=_default_series(root) if series is None else _read_series(series),
        po="" if po is None else po.text(chars_max=TEXT_CHARS_MAX) or "",
        terms_days=TERMS_DAYS_DEFAULT if terms_days is None else terms_days,
        energy=None if energy is None else energy.choice(_BOUNDARIES, what="boundary"),
        bank=() if bank is None else _read_bank(bank),
        by_account=group_by is not None,
        minimum=Decimal(0) if minimum is None else _read_minimum(minimum, currency=currency),
        zero_documents=False if zero is None else zero.truth() or False,
    )


def read_closing(entry: Entry | None) -> ClosingTerms:
    """Return how months of a contract are closed."""
    table = None if entry is None else entry.table(_CLOSING_KEYS)
    if table is None:
        return CLOSING_DEFAULT
    hours, first, jump = map(table.find, _CLOSING_KEYS)
    collect_hours = None if hours is None else hours.integer(minimum=0, maximum=COLLECT_HOURS_MAX)
    return ClosingTerms(
        collect_hours=CLOSING_DEFAULT.collect_hours if collect_hours is None else collect_hours,
        hold_first=False if first is None else first.truth() or False,
        hold_jump=CLOSING_DEFAULT.hold_jump if jump is None else _read_jump(jump),
    )


def _read_bank(entry: Entry) -> tuple[str, ...]:
    lines = entry.entries() or []
    if len(lines) > BANK_LINES_MAX:
        entry.note(f"has more than {BANK_LINES_MAX} lines")
    found = [it.text(chars_max=TEXT_CHARS_MAX) for it in lines]
    return tuple(it for it in found if it is not None)


def _read_minimum(entry: Entry, *, currency: Currency | None) -> Decimal:
    minimum = entry.decimal()
    if minimum is None:
        return Decimal(0)
    exponent = minimum.as_tuple().exponent
    if currency is not None and isinstance(exponent, int) and -exponent > currency.exponent:
        entry.note(f"has more than the {currency.exponent} decimals of {currency.code}")
    return minimum


def _read_jump(entry: Entry) -> Decimal | None:
    jump = entry.decimal()
    if jump is not None and 0 < jump < 1:
        entry.note('must be at least "1", or "0": never')
    return jump or None


def _read_series(entry: Entry) -> str:
    return entry.matching(_SERIES, chars_max=SERIES_CHARS_MAX) or ""


def _default_series(root: Table) -> str:
    """Return the seller's id in capitals."""
    seller = root.find("seller")
    series = str(seller.value).upper().replace("_", "-") if seller is not None else ""
    if len(series) > SERIES_CHARS_MAX:
        root.entry.file.note(
            ("document", "series"),
            f"is missing; the seller's id has more than {SERIES_CHARS_MAX} characters and makes"
            " none",
        )
    return series
