"""The lines of a document as CSV (RFC 4180): a row for each, with the document's own facts on it.

Rows of many invoices can stand in one table. What has no price follows the lines, with no amounts.
"""

import csv
import io
from collections.abc import Iterator
from typing import Final

from billing.documents.format import date_of, write_time
from billing.invoicing import DocumentKind, Invoice, Origin
from billing.money import write, write_money
from billing.price_book import MODE_NAMES, class_name
from billing.tax import Tax

# A spreadsheet takes a cell that begins so for a formula, blanks before it or not; an apostrophe
# is among them, so that the one that is put before a text can be told from a text's own.
_FORMULA_STARTS: Final = tuple("=+-@\t\r\n'＝＋－＠")  # noqa: RUF001
COLUMNS: Final = (
    *("kind", "sandbox", "number", "issue_date", "due_date", "contract", "account_id"),
    *("seller", "buyer", "po", "currency", "zone", "period_start", "period_end", "counted_until"),
    *("line", "priced", "model", "tier", "mode", "token_class", "above", "window_name", "book"),
    *("price_from", "unit_price", "quantity", "exact", "billed", "residue"),
    *("line_kind", "group", "origin_month", "origin_number", "origin_line", "description", "unit"),
    *("tax_category", "tax_rate", "refers_to", "replaces"),
)


def to_csv(invoice: Invoice) -> bytes:
    """Return the header and the rows in UTF-8; numbers are plain, texts harmless."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    head = _head(invoice)
    writer.writerows(head | row for row in _rows(invoice))
    return file.getvalue().encode()


def harmless(text: str) -> str:
    """Return a text that no spreadsheet runs: behind an apostrophe where it might be a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA_STARTS) else text


def _head(invoice: Invoice) -> dict[str, str]:
    version, issue = invoice.version, invoice.issue
    head = {
        "kind": "preview" if issue is None else invoice.kind.value,
        "sandbox": _truth(is_true=invoice.is_sandbox),
        "contract": harmless(version.contract),
        "account_id": harmless(invoice.account_id),
        "seller": harmless(version.seller.name),
        "buyer": harmless(version.buyer.name),
        "po": harmless(version.po),
        "currency": invoice.currency.code,
        "zone": version.zone.key,
        "period_start": write_time(invoice.span.start_ms),
        "period_end": write_time(invoice.span.end_ms),
        "counted_until": write_time(invoice.counted_until_ms),
        "refers_to": harmless(invoice.refers_to),
        "replaces": harmless(invoice.replaces),
    }
    if issue is not None:
        head["number"] = harmless(issue.number)
        head["issue_date"] = date_of(issue.issue_ms, version.zone).isoformat()
        head["due_date"] = issue.due.isoformat()
    return head


def _rows(invoice: Invoice) -> Iterator[dict[str, str]]:
    yield from _usage(invoice)
    for charge in invoice.charges:
        yield {
            "line": str(charge.line),
            "priced": _truth(is_true=True),
            "unit_price": write(charge.unit_price),
            "quantity": write(charge.quantity),
            "exact": write(charge.exact),
            "billed": write_money(charge.billed, invoice.currency),
            "residue": write(charge.residue),
            "line_kind": "charge",
            **_origin(charge.origin),
            "description": harmless(charge.text),
            "unit": harmless(charge.unit),
            **_tax(charge.tax),
        }
    is_write_off = invoice.kind is DocumentKind.WRITE_OFF
    for credit in invoice.credits:
        yield {
            "line": str(credit.line),
            "priced": _truth(is_true=True),
            "quantity": "" if credit.token_count is None else str(credit.token_count),
            "exact": write(credit.amount),
            "billed": write_money(credit.amount, invoice.currency),
            "residue": "0",
            "line_kind": "write_off" if is_write_off else "credit",
            "origin_number": harmless(credit.number),
            "origin_line": str(credit.number_line) if credit.number else "",
            "description": harmless(credit.text),
            **_tax(credit.tax),
        }
    for key in invoice.unpriced:
        yield {
            "priced": _truth(is_true=False),
            "model": harmless(key.model),
            "tier": harmless(key.tier),
            "mode": MODE_NAMES[key.mode],
            "token_class": class_name(key.token_class),
            "quantity": str(key.token_count),
        }


def _usage(invoice: Invoice) -> Iterator[dict[str, str]]:
    """Yield the lines of tokens: of the period, and adjustments of earlier ones."""
    for line in invoice.lines:
        yield {
            "line": str(line.line),
            "priced": _truth(is_true=True),
            "model": harmless(line.model),
            "tier": harmless(line.tier),
            "mode": MODE_NAMES[line.mode],
            "token_class": class_name(line.token_class),
            "above": str(line.price.above),
            "window_name": harmless(line.price.window),
            "book": harmless(line.price.book),
            "price_from": write_time(line.price.version_start_ms),
            "unit_price": write(line.price.unit_price),
            "quantity": str(line.token_count),
            "exact": write(line.exact),
            "billed": write_money(line.billed, invoice.currency),
            "residue": write(line.residue),
            "line_kind": "usage" if line.origin is None else "adjustment",
            "group": harmless(line.group),
            **_origin(line.origin),
            **_tax(invoice.version.tax),
        }


def _origin(origin: Origin | None) -> dict[str, str]:
    if origin is None:
        return {}
    return {
        "origin_month": str(origin.month),
        "origin_number": harmless(origin.number),
        "origin_line": str(origin.line) if origin.line else "",
    }


def _tax(tax: Tax | None) -> dict[str, str]:
    return {} if tax is None else {"tax_category": tax.category, "tax_rate": write(tax.rate)}


def _truth(*, is_true: bool) -> str:
    return "true" if is_true else "false"
