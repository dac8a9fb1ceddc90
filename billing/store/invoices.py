"""Invoices in Postgres: a number, a document and its lines, kept in one transaction for good."""

from collections.abc import Sequence

from sqlalchemy import (
    ARRAY,
    Connection,
    Date,
    Engine,
    Text,
    any_,
    cast,
    func,
    literal,
    select,
)

from billing.documents.canonical import from_json
from billing.invoicing import Invoice
from billing.periods import Month, Span
from billing.ports import IssuedPeriod, NotIssued
from billing.store.issuing import issue_all
from billing.store.tables import issued_invoices, terms
from meter.domain.times import to_ms, to_time
from meter.runtime.engine import store_faults


class InvoiceStore:
    """Issues and reads invoices."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def issue(self, invoice: Invoice, *, terms_version: int, now_ms: int) -> Invoice | NotIssued:
        """Give a draft the next number of its series and keep it, in one transaction.

        Two that issue for one contract wait for each other, and the second finds it.
        """
        with store_faults(), self._engine.begin() as connection:
            # Shared: issuing does not wait for issuing, a change of the terms waits for both.
            held = connection.execute(select(terms.c.version).with_for_update(read=True))
            if held.scalar_one() != terms_version:
                return NotIssued.TERMS_CHANGED
            contract = func.hashtextextended(invoice.version.contract, 0)
            connection.execute(select(func.pg_advisory_xact_lock(contract)))
            if _is_issued(connection, invoice):
                return NotIssued.ALREADY_ISSUED
            (issued,) = issue_all(connection, [invoice], terms_version=terms_version, now_ms=now_ms)
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


def _is_issued(connection: Connection, invoice: Invoice) -> bool:
    statement = select(issued_invoices.c.number).where(
        issued_invoices.c.contract == invoice.version.contract,
        issued_invoices.c.period_start == to_time(invoice.span.start_ms),
    )
    return connection.execute(statement).first() is not None
