"""Invoices in Postgres: a number, a document and its lines, kept in one transaction for good."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    Date,
    Engine,
    Text,
    any_,
    cast,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from billing.documents.canonical import from_json, to_json
from billing.invoicing import Invoice, issue, issue_year, series_of
from billing.money import subtract
from billing.periods import Month, Span
from billing.ports import IssuedPeriod, NotIssued
from billing.price_book import MODE_NAMES, class_name
from billing.store.tables import invoice_numbers, issued_invoices, issued_lines, terms
from meter.domain.times import to_ms, to_time
from meter.runtime.engine import store_faults


class InvoiceStore:
    """Issues and reads invoices."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def issue(self, invoice: Invoice, *, terms_version: int, now_ms: int) -> Invoice | NotIssued:
        """Give a draft the next number of its series and keep it, in one transaction.

        The number is taken under a row's lock and given back when the transaction fails: numbers
        have no gaps. Two that issue the same period wait for each other, and the second finds it.
        """
        with store_faults(), self._engine.begin() as connection:
            # Shared: issuing does not wait for issuing, a change of the terms waits for both.
            held = connection.execute(select(terms.c.version).with_for_update(read=True))
            if held.scalar_one() != terms_version:
                return NotIssued.TERMS_CHANGED
            number = _next_number(connection, invoice, now_ms=now_ms)
            if _is_issued(connection, invoice):
                connection.rollback()
                return NotIssued.ALREADY_ISSUED
            issued = issue(invoice, number=number, issue_ms=now_ms)
            connection.execute(insert(issued_invoices).values(_to_row(issued, serial=number)))
            if issued.lines:
                connection.execute(insert(issued_lines), list(_to_lines(issued)))
        return issued

    def issued_periods(self) -> Sequence[IssuedPeriod]:
        """Return all periods that invoices were issued for."""
        with store_faults(), self._engine.connect() as connection:
            return select_issued_periods(connection)

    def find(self, number: str) -> Invoice | None:
        """Return an invoice as it was issued."""
        statement = select(issued_invoices.c.document).where(issued_invoices.c.number == number)
        with store_faults(), self._engine.connect() as connection:
            document = connection.execute(statement).scalar()
        return None if document is None else from_json(bytes(document))

    def list_invoices(
        self, *, contracts: Sequence[str] | None, month: Month | None, after: str, limit: int
    ) -> Sequence[Invoice]:
        """Return invoices of these contracts and this month by number, after one of them.

        None stands for all of them.
        """
        statement = (
            select(issued_invoices.c.document)
            .where(issued_invoices.c.number > after)
            .order_by(issued_invoices.c.number)
            .limit(limit)
        )
        if contracts is not None:
            wanted = any_(literal(list(contracts), ARRAY(Text)))
            statement = statement.where(issued_invoices.c.contract == wanted)
        if month is not None:
            first = cast(f"{month}-01", Date)
            local_start = func.timezone(issued_invoices.c.zone, issued_invoices.c.period_start)
            statement = statement.where(func.date_trunc("month", local_start) == first)
        with store_faults(), self._engine.connect() as connection:
            documents = connection.execute(statement).scalars().all()
        return [from_json(bytes(document)) for document in documents]


def select_issued_periods(connection: Connection) -> list[IssuedPeriod]:
    """Return all periods that invoices were issued for."""
    rows = connection.execute(
        select(
            issued_invoices.c.contract,
            issued_invoices.c.version_start,
            issued_invoices.c.period_start,
            issued_invoices.c.period_end,
            issued_invoices.c.number,
        )
    )
    return [
        IssuedPeriod(
            contract=row.contract,
            version_start_ms=to_ms(row.version_start),
            span=Span(start_ms=to_ms(row.period_start), end_ms=to_ms(row.period_end)),
            number=row.number,
        )
        for row in rows
    ]


def _next_number(connection: Connection, invoice: Invoice, *, now_ms: int) -> int:
    series, year = series_of(invoice), issue_year(invoice.version, now_ms)
    statement = upsert(invoice_numbers).values(series=series, year=year, last=1)
    return int(
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["series", "year"], set_={"last": invoice_numbers.c.last + 1}
            ).returning(invoice_numbers.c.last)
        ).scalar_one()
    )


def _is_issued(connection: Connection, invoice: Invoice) -> bool:
    statement = select(issued_invoices.c.number).where(
        issued_invoices.c.contract == invoice.version.contract,
        issued_invoices.c.period_start == to_time(invoice.span.start_ms),
    )
    return connection.execute(statement).first() is not None


def _to_row(invoice: Invoice, *, serial: int) -> dict[str, Any]:
    assert invoice.issue is not None
    version, document = invoice.version, to_json(invoice)
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
        "line_count": len(invoice.lines),
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
    }


def _to_lines(invoice: Invoice) -> Iterator[dict[str, Any]]:
    assert invoice.issue is not None
    for line in invoice.lines:
        yield {
            "number": invoice.issue.number,
            "line": line.line,
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
        }
