"""Issued documents as they stand, and what is added to them, in Postgres.

What was issued never changes: credits, voids and payments are rows beside it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

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
    update,
)

from billing.invoicing import Invoice
from billing.issued import DocumentState, Doing, IssuedDocument, Settling, Standing
from billing.periods import Month
from billing.ports import NotIssued, PeriodState
from billing.store.contract_locks import hold_contracts, hold_terms
from billing.store.document_change import DocumentChange
from billing.store.issuing import issue_all
from billing.store.standings import (
    find_document,
    invoices_view,
    select_documents,
    to_document,
    to_standing,
)
from billing.store.tables import billing_periods, issued_invoices
from meter.audit_log import ChangeLog
from meter.domain.times import to_time
from meter.runtime.engine import store_faults


class DocumentStore:
    """Reads and changes what came of documents; safe to share between threads."""

    def __init__(self, engine: Engine, *, change_log: ChangeLog) -> None:
        """Take the engine, and what writes the audit log."""
        self._engine = engine
        self._change_log = change_log

    def find(self, number: str) -> IssuedDocument | None:
        """Return a document as it stands."""
        with store_faults(), self._engine.connect() as connection:
            return find_document(connection, number)

    def standings(self, numbers: Collection[str]) -> Mapping[str, Standing]:
        """Return how documents stand, by number."""
        wanted = any_(literal(list(numbers), ARRAY(Text)))
        statement = select(invoices_view).where(invoices_view.c.number == wanted)
        with store_faults(), self._engine.connect() as connection:
            return {row.number: to_standing(row) for row in connection.execute(statement)}

    def list_documents(
        self,
        *,
        contracts: Sequence[str] | None,
        month: Month | None,
        state: DocumentState | None,
        after: str,
        limit: int,
    ) -> Sequence[IssuedDocument]:
        """Return documents by number, after one of them; None stands for all."""
        statement = (
            select_documents()
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
        if state is not None:
            statement = statement.where(invoices_view.c.state == state.value)
        with store_faults(), self._engine.connect() as connection:
            return [to_document(row) for row in connection.execute(statement)]

    @contextmanager
    def changing(self, contract: str, *, doing: Doing) -> Iterator[DocumentChange]:
        """Hold a contract for a transaction, which is committed at the block's end."""
        with store_faults(), self._engine.begin() as connection:
            hold_terms(connection)
            held = hold_contracts(connection, [contract])
            assert contract in held, "what was issued was issued for a period"
            yield DocumentChange(connection, change_log=self._change_log, doing=doing)

    def mark(self, contract: str) -> int:
        """Return a number that moves with each document and void of a contract."""
        with store_faults(), self._engine.connect() as connection:
            return _mark(connection, contract)

    def issue_correction(
        self,
        document: Invoice,
        *,
        settles: Sequence[Settling],
        terms_version: int,
        mark: int,
        doing: Doing,
    ) -> Invoice | NotIssued:
        """Issue what corrects a closed period, if terms and mark are still those given."""
        with store_faults(), self._engine.begin() as connection:
            if hold_terms(connection) != terms_version:
                return NotIssued.TERMS_CHANGED
            contract = document.version.contract
            hold_contracts(connection, [contract])
            if _mark(connection, contract) != mark:
                return NotIssued.ALREADY_ISSUED
            if not _settle(connection, settles, cut_id=document.cut_id):
                # Somebody has opened a period of them again.
                connection.rollback()
                return NotIssued.ALREADY_ISSUED
            (issued,) = issue_all(
                connection, [document], terms_version=terms_version, now_ms=doing.now_ms
            )
            change = DocumentChange(connection, change_log=self._change_log, doing=doing)
            change.log_correction(issued)
        return issued


def _mark(connection: Connection, contract: str) -> int:
    # A void comes with a credit note: the number of documents moves with both.
    statement = select(func.count()).where(issued_invoices.c.contract == contract)
    return int(connection.execute(statement).scalar_one())


def _settle(connection: Connection, settles: Sequence[Settling], *, cut_id: int | None) -> bool:
    """Keep up to where closed periods are billed; False when one is not closed any more."""
    count = 0
    for it in settles:
        statement = (
            update(billing_periods)
            .where(
                billing_periods.c.contract == it.contract,
                billing_periods.c.period_start == to_time(it.start_ms),
                billing_periods.c.state == PeriodState.CLOSED.value,
            )
            .values(settled_cut_id=cut_id, settled_terms=it.terms)
        )
        count += connection.execute(statement).rowcount
    return count == len(settles)
