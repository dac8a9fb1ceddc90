"""How issued documents stand: the view that readers have says it, in one place."""

from typing import Any, Final

from sqlalchemy import Connection, Select, column, select, table

from billing.documents.canonical import from_json
from billing.issued import DocumentState, IssuedDocument, Standing
from billing.store.tables import issued_invoices

invoices_view: Final = table(
    "invoices",
    column("number"),
    column("state"),
    column("credited"),
    column("paid"),
    column("voided_by"),
)


def find_document(connection: Connection, number: str) -> IssuedDocument | None:
    """Return a document as it stands."""
    row = connection.execute(
        select_documents().where(issued_invoices.c.number == number)
    ).one_or_none()
    return None if row is None else to_document(row)


def select_documents() -> Select[Any]:
    """Return the question for documents as they stand."""
    return select(issued_invoices.c.document, invoices_view).join(
        invoices_view, invoices_view.c.number == issued_invoices.c.number
    )


def to_document(row: Any) -> IssuedDocument:  # noqa: ANN401
    """Return the document of a row of `select_documents`."""
    return IssuedDocument(invoice=from_json(bytes(row.document)), standing=to_standing(row))


def to_standing(row: Any) -> Standing:  # noqa: ANN401
    """Return what came of a document, of a row of the view."""
    return Standing(
        state=DocumentState(row.state),
        credited=row.credited,
        paid=row.paid,
        voided_by=row.voided_by or "",
    )
