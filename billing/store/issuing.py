"""The one place that issues: numbers without a gap, documents and their rows, many at once.

Numbers are taken under the row of their series and given back when the transaction fails; all else
goes up by COPY. Whoever calls commits.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert as upsert

from billing.documents.canonical import CanonicalWriter
from billing.invoicing import (
    ChargeLine,
    CreditLine,
    DocumentKind,
    Invoice,
    InvoiceLine,
    Origin,
    issue,
    issue_year,
    series_of,
)
from billing.money import ZERO, subtract
from billing.price_book import MODE_NAMES, class_name
from billing.store.tables import invoice_numbers
from billing.tax import Tax
from meter.domain.times import to_time
from meter.runtime.engine import driver_connection

# A series and a year.
_Series = tuple[str, int]
_INVOICE_COLUMNS: Final = {
    "number": "text",
    "series": "text",
    "year": "int4",
    "serial": "int4",
    "contract": "text",
    "version_start": "timestamptz",
    "account_id": "text",
    "seller": "text",
    "buyer": "text",
    "currency": "text",
    "zone": "text",
    "period_start": "timestamptz",
    "period_end": "timestamptz",
    "issue_time": "timestamptz",
    "due_date": "date",
    "total": "numeric",
    "residue": "numeric",
    "line_count": "int4",
    "cut_id": "int4",
    "engine": "int2",
    "sandbox": "bool",
    "document": "bytea",
    "sha256": "bytea",
    "kind": "text",
    "tax": "numeric",
    "refers_to": "text",
    "replaces": "text",
    "reason": "text",
    "terms_version": "int8",
}
# What no two lines have in common, and what all lines of one price have.
_OWN_COLUMNS: Final = ("number", "line", "quantity", "exact", "billed", "residue")
_SHARED_COLUMNS: Final = (
    *("kind", "model", "tier", "mode", "token_class", "above", "window_name", "book"),
    *("price_from", "unit_price", "group_account", "origin_start", "origin_number", "origin_line"),
    *("description", "unit", "charge", "tax_category", "tax_rate"),
)
_COPY_LINES: Final = (
    f"COPY issued_lines ({', '.join((*_OWN_COLUMNS, *_SHARED_COLUMNS))}) FROM STDIN"
)
# What would end a field of COPY's text.
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
# What a line has that is not of tokens.
_NO_TOKENS: Final = {
    "model": "",
    "tier": "",
    "mode": "",
    "token_class": "",
    "above": 0,
    "window_name": "",
    "book": "",
    "price_from": None,
    "group_account": "",
}


def issue_all(
    connection: Connection, documents: Sequence[Invoice], *, terms_version: int, now_ms: int
) -> list[Invoice]:
    """Give drafts the next numbers of their series and keep them; return them in their order.

    Of one series they are numbered in the order in which they come. Rows of series are locked in
    the order of their names, so that two that issue wait for each other and never in a circle:
    call it once in a transaction, last. `terms_version` is that of the terms they were drafted by.
    """
    last = _take_numbers(connection, documents, now_ms=now_ms)
    issued: list[Invoice] = []
    serials: list[int] = []
    for document in documents:
        series = _series(document, now_ms=now_ms)
        last[series] += 1
        serials.append(last[series])
        issued.append(issue(document, number=last[series], issue_ms=now_ms))
    if issued:
        writer = CanonicalWriter()
        rows = (
            invoice_row(document, serial=serial, terms_version=terms_version, writer=writer)
            for document, serial in zip(issued, serials, strict=True)
        )
        _copy(connection, "issued_invoices", columns=_INVOICE_COLUMNS, rows=rows)
        _copy_lines(connection, issued)
        due = ({"number": it.issue.number} for it in issued if it.issue is not None)
        _copy(connection, "papers_due", columns={"number": "text"}, rows=due)
    return issued


def _series(document: Invoice, *, now_ms: int) -> _Series:
    return series_of(document), issue_year(document.version, now_ms)


def _take_numbers(
    connection: Connection, documents: Sequence[Invoice], *, now_ms: int
) -> dict[_Series, int]:
    """Take as many numbers of each series as there are documents; return those before."""
    counts = Counter(_series(document, now_ms=now_ms) for document in documents)
    last: dict[_Series, int] = {}
    for series, year in sorted(counts):
        count = counts[series, year]
        statement = upsert(invoice_numbers).values(series=series, year=year, last=count)
        taken = connection.execute(
            statement.on_conflict_do_update(
                index_elements=["series", "year"], set_={"last": invoice_numbers.c.last + count}
            ).returning(invoice_numbers.c.last)
        ).scalar_one()
        last[series, year] = taken - count
    return last


def _copy(
    connection: Connection,
    table: str,
    *,
    columns: Mapping[str, str],
    rows: Iterator[Mapping[str, Any]],
) -> None:
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(statement) as copy,
    ):
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row([row[name] for name in columns])


def _copy_lines(connection: Connection, documents: Sequence[Invoice]) -> None:
    """Keep the lines of documents, as text: most of a line is that of others at its price."""
    shared: dict[object, str] = {}
    texts = []
    for document in documents:
        assert document.issue is not None
        number = _copied(document.issue.number)
        for line in document.lines:
            row = _shared_text(line, document.version.tax, known=shared)
            own = f"{line.line}\t{line.token_count}\t{line.exact}\t{line.billed}"
            texts.append(f"{number}\t{own}\t{line.residue}\t{row}\n")
        for other in _other_rows(document):
            own = _to_text(other, _OWN_COLUMNS[1:])
            texts.append(f"{number}\t{own}\t{_to_text(other, _SHARED_COLUMNS)}\n")
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(_COPY_LINES) as copy,
    ):
        copy.write("".join(texts))


def _shared_text(line: InvoiceLine, tax: Tax | None, *, known: dict[object, str]) -> str:
    """Return what a line has in common with others, of documents that all live on meanwhile."""
    if line.origin is not None:
        return _to_text(_token_line(line, tax=tax), _SHARED_COLUMNS)
    key = (
        *(id(line.price), id(tax), line.model, line.tier, line.mode, line.token_class),
        line.group,
    )
    found = known.get(key)
    if found is None:
        found = known[key] = _to_text(_token_line(line, tax=tax), _SHARED_COLUMNS)
    return found


def _to_text(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    return "\t".join(_copied(row[name]) for name in columns)


def _copied(value: object) -> str:
    """Return a value as COPY reads it."""
    if value is None:
        return r"\N"
    return str(value).translate(_ESCAPES)


def invoice_row(
    invoice: Invoice, *, serial: int, terms_version: int, writer: CanonicalWriter | None = None
) -> dict[str, Any]:
    """Return the row that an issued document is kept as."""
    assert invoice.issue is not None
    version, document = invoice.version, (writer or CanonicalWriter()).write(invoice)
    return {
        "number": invoice.issue.number,
        "series": invoice.issue.series,
        "year": invoice.issue.year,
        "serial": serial,
        "contract": version.contract,
        "version_start": to_time(version.start_ms),
        "account_id": invoice.account_id,
        "seller": version.seller.name,
        "buyer": version.buyer.name,
        "currency": version.currency.code,
        "zone": version.zone.key,
        "period_start": to_time(invoice.span.start_ms),
        "period_end": to_time(invoice.span.end_ms),
        "issue_time": to_time(invoice.issue.issue_ms),
        "due_date": invoice.issue.due,
        "total": invoice.total,
        "residue": invoice.residue,
        "line_count": len(invoice.lines) + len(invoice.charges) + len(invoice.credits),
        "cut_id": invoice.cut_id,
        "engine": invoice.engine,
        "sandbox": invoice.is_sandbox,
        "document": document,
        "sha256": hashlib.sha256(document).digest(),
        "kind": invoice.kind.value,
        "tax": subtract(invoice.total, invoice.net),
        "refers_to": invoice.refers_to or None,
        "replaces": invoice.replaces or None,
        "reason": invoice.reason,
        "terms_version": terms_version,
    }


def line_rows(invoice: Invoice) -> Iterator[dict[str, Any]]:
    """Yield the rows that its lines are kept as."""
    assert invoice.issue is not None
    number = {"number": invoice.issue.number}
    for line in invoice.lines:
        yield {**number, **_token_line(line, tax=invoice.version.tax)}
    for row in _other_rows(invoice):
        yield {**number, **row}


def _other_rows(invoice: Invoice) -> Iterator[dict[str, Any]]:
    for charge in invoice.charges:
        yield _charge_line(charge)
    for credit in invoice.credits:
        yield _credit_line(credit, kind=invoice.kind)


def _token_line(line: InvoiceLine, *, tax: Tax | None) -> dict[str, Any]:
    return {
        "line": line.line,
        "kind": "usage" if line.origin is None else "adjustment",
        "model": line.model,
        "tier": line.tier,
        "mode": MODE_NAMES[line.mode],
        "token_class": class_name(line.token_class),
        "above": line.price.above,
        "window_name": line.price.window,
        "book": line.price.book,
        "price_from": to_time(line.price.version_start_ms),
        "unit_price": line.price.unit_price,
        "quantity": line.token_count,
        "exact": line.exact,
        "billed": line.billed,
        "residue": line.residue,
        "group_account": line.group,
        **_origin(line.origin),
        "description": "",
        "unit": "",
        "charge": "",
        **_tax(tax),
    }


def _charge_line(charge: ChargeLine) -> dict[str, Any]:
    return {
        **_NO_TOKENS,
        **_origin(charge.origin),
        "line": charge.line,
        "kind": "charge",
        "unit_price": charge.unit_price,
        "quantity": charge.quantity,
        "exact": charge.exact,
        "billed": charge.billed,
        "residue": charge.residue,
        "description": charge.text,
        "unit": charge.unit,
        "charge": charge.charge_id,
        **_tax(charge.tax),
    }


def _credit_line(credit: CreditLine, *, kind: DocumentKind) -> dict[str, Any]:
    """A credit takes money off and no tokens back: its quantity says which it was for."""
    return {
        **_NO_TOKENS,
        "line": credit.line,
        "kind": "write_off" if kind is DocumentKind.WRITE_OFF else "credit",
        "unit_price": ZERO,
        "quantity": credit.token_count or 0,
        "exact": credit.amount,
        "billed": credit.amount,
        "residue": ZERO,
        "origin_start": None,
        "origin_number": credit.number,
        "origin_line": credit.number_line,
        "description": credit.text,
        "unit": "",
        "charge": "",
        **_tax(credit.tax),
    }


def _origin(origin: Origin | None) -> dict[str, Any]:
    if origin is None:
        return {"origin_start": None, "origin_number": "", "origin_line": 0}
    return {
        "origin_start": to_time(origin.start_ms),
        "origin_number": origin.number,
        "origin_line": origin.line,
    }


def _tax(tax: Tax | None) -> dict[str, Any]:
    if tax is None:
        return {"tax_category": "", "tax_rate": ZERO}
    return {"tax_category": tax.category, "tax_rate": tax.rate}
