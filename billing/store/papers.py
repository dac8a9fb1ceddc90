"""Papers in Postgres: which documents have none yet, and the bytes of those that have."""

import hashlib
from collections.abc import Callable

from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.dialects.postgresql import insert as upsert

from billing.documents.canonical import from_json
from billing.invoicing import Invoice
from billing.papers import PaperBatch, PaperForm, Papers
from billing.store.tables import invoice_papers, issued_invoices, papers_due
from billing.typesetting import UnprintableDocument
from meter.runtime.engine import store_faults


class PaperStore:
    """Keeps papers; what is kept never changes."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def find(self, number: str, form: PaperForm) -> bytes | None:
        """Return a paper as it was kept."""
        statement = select(invoice_papers.c.body).where(
            invoice_papers.c.number == number, invoice_papers.c.form == form.value
        )
        with store_faults(), self._engine.connect() as connection:
            body = connection.execute(statement).scalar()
        return None if body is None else bytes(body)

    def keep(self, number: str, papers: Papers) -> None:
        """Keep a document's papers; those that are there already stay as they are."""
        with store_faults(), self._engine.begin() as connection:
            _keep(connection, number, papers)

    def make_missing(
        self, make: Callable[[Invoice], Papers], *, after: str, limit: int
    ) -> PaperBatch:
        """Make and keep the papers of the next documents without, in one transaction.

        A document that another process is at, or that somebody asks for right now, is skipped.
        """
        made: list[str] = []
        unshown: dict[str, str] = {}
        failed: dict[str, str] = {}
        due = (
            select(papers_due.c.number)
            .where(papers_due.c.number > after)
            .order_by(papers_due.c.number)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with store_faults(), self._engine.begin() as connection:
            numbers = list(connection.execute(due).scalars())
            for number, document in _documents(connection, numbers):
                try:
                    papers = make(from_json(document))
                except UnprintableDocument as error:
                    failed[number] = str(error)
                    continue
                _keep(connection, number, papers)
                made.append(number)
                if papers.unshown:
                    unshown[number] = papers.unshown
        return PaperBatch(
            made=made, unshown=unshown, failed=failed, last=numbers[-1] if numbers else ""
        )


def _documents(connection: Connection, numbers: list[str]) -> list[tuple[str, bytes]]:
    statement = (
        select(issued_invoices.c.number, issued_invoices.c.document)
        .where(issued_invoices.c.number.in_(numbers))
        .order_by(issued_invoices.c.number)
    )
    return [(row.number, bytes(row.document)) for row in connection.execute(statement)]


def _keep(connection: Connection, number: str, papers: Papers) -> None:
    # First, as all do that make papers: so that two of them wait for each other, never in a circle.
    connection.execute(delete(papers_due).where(papers_due.c.number == number))
    rows = [
        {
            "number": number,
            "form": form.value,
            "body": body,
            "sha256": hashlib.sha256(body).digest(),
        }
        for form, body in papers.bodies.items()
    ]
    connection.execute(upsert(invoice_papers).values(rows).on_conflict_do_nothing())
