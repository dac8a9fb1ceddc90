"""Issued documents in Postgres, as they were issued."""

from sqlalchemy import Engine, select

from billing.documents.canonical import from_json
from billing.invoicing import Invoice
from billing.store.tables import issued_invoices
from meter.runtime.engine import store_faults


class InvoiceStore:
    """Reads documents as they were issued."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def find(self, number: str) -> Invoice | None:
        """Return an invoice as it was issued."""
        statement = select(issued_invoices.c.document).where(issued_invoices.c.number == number)
        with store_faults(), self._engine.connect() as connection:
            document = connection.execute(statement).scalar()
        return None if document is None else from_json(bytes(document))
