"""Invoices as they are kept, row by row beside their documents: what the audit compares."""

from collections.abc import Sequence

from sqlalchemy import Engine, select

from billing.auditing import KeptInvoice, KeptLine
from billing.documents.canonical import from_json
from billing.periods import Span
from billing.store.tables import issued_invoices, issued_lines
from meter.domain.times import to_time
from meter.runtime.engine import store_faults


class KeptInvoiceStore:
    """Reads invoices and their lines."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def numbers(self, span: Span) -> Sequence[str]:
        """Return the numbers of the invoices whose periods meet a span, in order."""
        statement = (
            select(issued_invoices.c.number)
            .where(
                issued_invoices.c.period_start < to_time(span.end_ms),
                issued_invoices.c.period_end > to_time(span.start_ms),
            )
            .order_by(issued_invoices.c.series, issued_invoices.c.year, issued_invoices.c.serial)
        )
        with store_faults(), self._engine.connect() as connection:
            return connection.execute(statement).scalars().all()

    def read(self, number: str) -> KeptInvoice:
        """Return one of them."""
        own = select(issued_invoices).where(issued_invoices.c.number == number)
        lines = (
            select(issued_lines)
            .where(issued_lines.c.number == number)
            .order_by(issued_lines.c.line)
        )
        with store_faults(), self._engine.connect() as connection:
            row = connection.execute(own).one()
            rows = connection.execute(lines).all()
        return KeptInvoice(
            invoice=from_json(bytes(row.document)),
            cut_id=row.cut_id,
            total=row.total,
            line_count=row.line_count,
            lines=[
                KeptLine(
                    line=it.line,
                    key=(it.model, it.tier, it.mode, it.token_class),
                    quantity=it.quantity,
                    billed=it.billed,
                )
                for it in rows
            ],
        )
