"""The parts of a document that text, HTML and PDF share: which lines stand where, and the sums.

Usage comes first, by groups where there are any; then what earlier months still come to, charges,
credits, and below them net, taxes and total.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Final

from billing.documents.format import (
    PAYABLE,
    group_count,
    group_money,
    group_price,
    printable,
    subtotal,
    total_label,
    word_month,
    word_start,
)
from billing.invoicing import ChargeLine, CreditLine, Invoice, InvoiceLine, Origin
from billing.money import Currency, write
from billing.tax import Tax

CHARGES: Final = "Charges"
CREDITS: Final = "Credits"
GIVEN_UP: Final = "Given up"
PAYMENT: Final = "To be paid to"
_CATEGORY_NAMES: Final = {
    "S": "",
    "Z": "zero rate",
    "E": "exempt",
    "AE": "reverse charge",
    "K": "intra-community supply",
    "G": "export",
    "O": "outside the scope of tax",
}
# Quantities have the decimals that they have.
_WHOLE: Final = Currency(code="", exponent=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Lines of usage that stand together under a title; empty for those of a plain invoice.

    `subtotal_label` is empty where none is told.
    """

    title: str
    lines: Sequence[InvoiceLine]
    subtotal_label: str

    @property
    def subtotal(self) -> Decimal:
        """The sum of its billed lines."""
        return subtotal(self.lines)


def sections(invoice: Invoice) -> list[Section]:
    """Return the usage of the period by groups, then adjustments by month and document."""
    paths = {it.account_id: it.path for it in invoice.groups}
    usage = [it for it in invoice.lines if it.origin is None]
    adjustments = [it for it in invoice.lines if it.origin is not None]
    found = []
    for group, lines in groupby(usage, key=lambda line: line.group):
        name = printable(paths.get(group, group))
        label = f"Subtotal {name}" if group else ""
        found.append(Section(title=name, lines=tuple(lines), subtotal_label=label))
    for title, lines in groupby(adjustments, key=lambda line: _word_origin(line.origin)):
        found.append(Section(title=title, lines=tuple(lines), subtotal_label="Adjustment"))
    if adjustments and len(found) > 1 and found[0].title == "":
        # Beside adjustments the month's own usage has a title too.
        own = f"Usage of {word_month(invoice.month)}"
        found[0] = Section(title=own, lines=found[0].lines, subtotal_label="Subtotal")
    return found


def section_notes(invoice: Invoice) -> dict[int, str]:
    """Return by line what its section does not say: of an adjustment its group, and its line."""
    paths = {it.account_id: it.path for it in invoice.groups}
    found = {}
    for line in invoice.lines:
        if line.origin is None:
            continue
        words = [printable(paths.get(line.group, line.group))] if line.group else []
        words.append(
            f"changes line {line.origin.line}" if line.origin.line else "not billed before"
        )
        found[line.line] = " · ".join(words)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A charge or a credit as a row: `count` and `price` are empty where there is none."""

    line: int
    text: str
    note: str
    count: str
    price: str
    amount: str


def charge_items(invoice: Invoice) -> list[Item]:
    """Return the charges, with their units and, where it is not the contract's, their tax."""
    return [_charge_item(it, invoice) for it in invoice.charges]


def credit_items(invoice: Invoice) -> list[Item]:
    """Return the credits, each with the line that it is for."""
    return [_credit_item(it, invoice) for it in invoice.credits]


def sums(invoice: Invoice) -> list[tuple[str, str]]:
    """Return what stands above the total: the net amount and each tax; nothing without taxes."""
    if not invoice.taxes:
        return []
    currency = invoice.currency
    rows = [("Net", group_money(invoice.net, currency))]
    for it in invoice.taxes:
        basis = group_money(it.basis, currency)
        rows.append((f"{word_tax(it.tax)} on {basis}", group_money(it.amount, currency)))
    return rows


def tax_notes(invoice: Invoice) -> list[str]:
    """Return what the law wants to be written, once each."""
    notes = (printable(it.tax.note) for it in invoice.taxes if it.tax.note)
    return list(dict.fromkeys(notes))


def payment_rows(invoice: Invoice) -> list[str]:
    """Return where money is to go; nothing where none is due."""
    is_due = invoice.kind in PAYABLE and invoice.total > 0
    return [printable(it) for it in invoice.version.bank] if is_due else []


def total_row(invoice: Invoice) -> tuple[str, str]:
    """Return what the total is called, and the total."""
    label = total_label(invoice)
    if invoice.taxes and invoice.issue is not None:
        label = "Total with tax"
    return label, group_money(invoice.total, invoice.currency)


def word_tax(tax: Tax) -> str:
    """Return a tax in words: `Tax 19 %`, `Tax 0 %, reverse charge`."""
    name = _CATEGORY_NAMES[tax.category]
    return f"Tax {write(tax.rate)} %{f', {name}' if name else ''}"


def word_files(invoice: Invoice) -> Iterator[str]:
    """Yield the files and the usage that the document was made of, for whoever checks it."""
    zone = invoice.version.zone
    for file in invoice.terms:
        start = word_start(file.start_ms, zone)
        yield f"{file.kind.capitalize()} {printable(file.name)} of {start}: SHA-256 {file.sha256}"
    if invoice.usage_sha256:
        yield f"Usage: SHA-256 {invoice.usage_sha256}"


def _charge_item(line: ChargeLine, invoice: Invoice) -> Item:
    words = [] if line.origin is None else [f"of {word_month(line.origin.month)}"]
    if line.tax is not None and line.tax != invoice.version.tax:
        words.append(word_tax(line.tax))
    quantity = group_price(line.quantity, _WHOLE)
    return Item(
        line=line.line,
        text=printable(line.text),
        note=" · ".join(words),
        count=f"{quantity} {printable(line.unit)}".rstrip(),
        price=group_price(line.unit_price, invoice.currency),
        amount=group_money(line.billed, invoice.currency),
    )


def _credit_item(line: CreditLine, invoice: Invoice) -> Item:
    words = [f"line {line.number_line} of {line.number}"] if line.number else []
    if line.tax is not None and len(invoice.taxes) > 1:
        words.append(word_tax(line.tax))
    return Item(
        line=line.line,
        text=printable(line.text),
        note=" · ".join(words),
        count="" if line.token_count is None else group_count(line.token_count),
        price="",
        amount=group_money(line.amount, invoice.currency),
    )


def _word_origin(origin: Origin | None) -> str:
    assert origin is not None
    of = f", invoice {origin.number}" if origin.number else ""
    return f"Adjustment of {word_month(origin.month)}{of}"
