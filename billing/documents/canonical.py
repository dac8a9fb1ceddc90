"""A document as canonical JSON, and back: equal documents are the same bytes.

Keys are sorted, nothing stands between them, decimals are strings without a digit too many, and a
newline ends it. What a document has none of is left out, so that those of before there was any are
the same bytes. `billing/schemas/invoice.schema.json` says what may stand where,
`docs/reference/invoice.md` what it means.
"""

import json
from datetime import date
from decimal import Decimal
from typing import Any, Final

from billing.contracts import ContractVersion
from billing.documents.contract_json import contract_to_json, party_to_json, read_contract
from billing.documents.energy import energy_to_json, read_energy
from billing.documents.format import (
    date_of,
    period_dates,
    read_time,
    write_time,
)
from billing.documents.lines_json import (
    charge_line_to_json,
    credit_line_to_json,
    dumps,
    price_to_json,
    read_charge_line,
    read_credit_line,
    read_line,
    read_tax_total,
    read_unpriced,
    tax_total_to_json,
    unpriced_to_json,
    write_line,
)
from billing.invoicing import DocumentKind, Group, Invoice, InvoiceLine, Issue, TermsFile
from billing.money import Currency, write, write_money
from billing.periods import Span
from billing.price_book import Price

FORMAT: Final = 1
_PREVIEW: Final = "preview"
_LINES: Final = "lines"


class UnknownFormat(ValueError):
    """A document that another version of Tokenworks wrote, or that is no invoice."""


class CanonicalWriter:
    """Writes documents, many after another: what lines of one price have in common, once."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        # By the price itself, which is kept so long.
        self._prices: dict[int, tuple[Price, str]] = {}

    def write(self, invoice: Invoice) -> bytes:
        """Return the document with every fact of it, in UTF-8."""
        document = _to_json(invoice)
        lines = ",".join([self._line(it, invoice.currency) for it in invoice.lines])
        # Keys are in order: what stands before the lines, and what behind.
        before = dumps({key: value for key, value in document.items() if key < _LINES})
        after = dumps({key: value for key, value in document.items() if key > _LINES})
        return f'{before[:-1]},"{_LINES}":[{lines}],{after[1:]}\n'.encode()

    def _line(self, line: InvoiceLine, currency: Currency) -> str:
        price = line.price
        known = self._prices.get(id(price))
        if known is None:
            known = self._prices[id(price)] = (price, dumps(price_to_json(price)))
        return write_line(line, currency, price=known[1])


def to_json(invoice: Invoice) -> bytes:
    """Return the document with every fact of it, in UTF-8."""
    return CanonicalWriter().write(invoice)


def _to_json(invoice: Invoice) -> dict[str, Any]:
    """Return all of a document but its lines of tokens."""
    return {
        "format": FORMAT,
        "kind": _PREVIEW if invoice.issue is None else invoice.kind.value,
        "sandbox": invoice.is_sandbox,
        "engine": invoice.engine,
        "account": invoice.account_id,
        "contract": contract_to_json(invoice.version),
        "seller": party_to_json(invoice.version.seller),
        "buyer": party_to_json(invoice.version.buyer),
        "currency": invoice.currency.code,
        "exponent": invoice.currency.exponent,
        "period": _period_to_json(invoice),
        "issue": None if invoice.issue is None else _issue_to_json(invoice.issue, invoice.version),
        "cut_id": invoice.cut_id,
        "counted_until": write_time(invoice.counted_until_ms),
        "unpriced": [unpriced_to_json(it) for it in invoice.unpriced],
        "total": write_money(invoice.total, invoice.currency),
        "residue": write(invoice.residue),
        **({} if invoice.energy is None else {"energy": energy_to_json(invoice.energy)}),
        **_optional(invoice),
    }


def from_json(document: bytes) -> Invoice:
    """Return the document that `to_json` wrote; raises UnknownFormat."""
    found = json.loads(document)
    written = found.get("format") if isinstance(found, dict) else None
    if written != FORMAT:
        raise UnknownFormat(f"format {written!r} of an invoice is unknown; this reads {FORMAT}")
    return Invoice(
        version=read_contract(found),
        span=Span(
            start_ms=read_time(found["period"]["start_time"]),
            end_ms=read_time(found["period"]["end_time"]),
        ),
        issue=None if found["issue"] is None else _read_issue(found["issue"]),
        cut_id=found["cut_id"],
        counted_until_ms=read_time(found["counted_until"]),
        engine=found["engine"],
        is_sandbox=found["sandbox"],
        lines=tuple(map(read_line, found["lines"])),
        unpriced=tuple(map(read_unpriced, found["unpriced"])),
        total=Decimal(found["total"]),
        residue=Decimal(found["residue"]),
        energy=read_energy(found["energy"]) if "energy" in found else None,
        kind=_read_kind(found),
        charges=tuple(map(read_charge_line, found.get("charges", ()))),
        credits=tuple(map(read_credit_line, found.get("credits", ()))),
        groups=tuple(
            Group(account_id=it["account"], path=it["path"]) for it in found.get("groups", ())
        ),
        taxes=tuple(map(read_tax_total, found.get("taxes", ()))),
        refers_to=found.get("refers_to", ""),
        replaces=found.get("replaces", ""),
        reason=found.get("reason", ""),
        usage_sha256=found.get("usage_sha256", ""),
        terms=tuple(map(_read_terms_file, found.get("terms", ()))),
    )


def _optional(invoice: Invoice) -> dict[str, Any]:
    """Return what not every document has, as far as this one does."""
    currency = invoice.currency
    found: dict[str, Any] = {
        "charges": [charge_line_to_json(it, currency) for it in invoice.charges],
        "credits": [credit_line_to_json(it, currency) for it in invoice.credits],
        "groups": [{"account": it.account_id, "path": it.path} for it in invoice.groups],
        "taxes": [tax_total_to_json(it, currency) for it in invoice.taxes],
        # Without taxes it is the total.
        "net": write_money(invoice.net, currency) if invoice.taxes else "",
        "refers_to": invoice.refers_to,
        "replaces": invoice.replaces,
        "reason": invoice.reason,
        "usage_sha256": invoice.usage_sha256,
        "terms": [_terms_file_to_json(it) for it in invoice.terms],
    }
    if invoice.issue is None and invoice.kind is not DocumentKind.INVOICE:
        found["preview_of"] = invoice.kind.value
    return {key: value for key, value in found.items() if value}


def _read_kind(found: dict[str, Any]) -> DocumentKind:
    kind = found["kind"]
    return DocumentKind(found.get("preview_of", "invoice") if kind == _PREVIEW else kind)


def _period_to_json(invoice: Invoice) -> dict[str, Any]:
    first, last = period_dates(invoice)
    return {
        "month": str(invoice.month),
        "zone": invoice.version.zone.key,
        "start_time": write_time(invoice.span.start_ms),
        "end_time": write_time(invoice.span.end_ms),
        "first_date": first.isoformat(),
        "last_date": last.isoformat(),
    }


def _issue_to_json(issue: Issue, version: ContractVersion) -> dict[str, Any]:
    return {
        "number": issue.number,
        "series": issue.series,
        "year": issue.year,
        "time": write_time(issue.issue_ms),
        "date": date_of(issue.issue_ms, version.zone).isoformat(),
        "due_date": issue.due.isoformat(),
    }


def _read_issue(found: dict[str, Any]) -> Issue:
    return Issue(
        number=found["number"],
        series=found["series"],
        year=found["year"],
        issue_ms=read_time(found["time"]),
        due=date.fromisoformat(found["due_date"]),
    )


def _terms_file_to_json(file: TermsFile) -> dict[str, Any]:
    return {
        "kind": file.kind,
        "name": file.name,
        "start_time": write_time(file.start_ms),
        "sha256": file.sha256,
    }


def _read_terms_file(found: dict[str, Any]) -> TermsFile:
    return TermsFile(
        kind=found["kind"],
        name=found["name"],
        start_ms=read_time(found["start_time"]),
        sha256=found["sha256"],
    )
