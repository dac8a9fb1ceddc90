"""One transaction that adds to what came of a contract's documents."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, func, insert, select, update

from billing.actions import BillingAction
from billing.crediting import TakenOff, Wanted
from billing.invoicing import DocumentKind, Invoice
from billing.issued import Doing, GivenCredit, IssuedDocument, Payment
from billing.money import ZERO, add_up, subtract, write_money
from billing.store.issuing import issue_all
from billing.store.standings import find_document
from billing.store.tables import (
    billing_periods,
    invoice_credits,
    invoice_voids,
    issued_invoices,
    issued_lines,
    payments,
)
from meter.audit_log import Change, ChangeLog
from meter.domain.times import to_time


class DocumentChange:
    """What is done while the contract is held; see `billing.issued.DocumentChange`."""

    def __init__(self, connection: Connection, *, change_log: ChangeLog, doing: Doing) -> None:
        """Take the connection of the transaction, the audit log, and who does what comes."""
        self._connection = connection
        self._change_log = change_log
        self._doing = doing

    def find(self, number: str) -> IssuedDocument | None:
        """Return a document of the contract as it stands."""
        return find_document(self._connection, number)

    def taken_off(self, number: str) -> Sequence[TakenOff]:
        """Return what credit notes took off its lines, in order."""
        statement = (
            select(issued_lines.c.origin_line, issued_lines.c.quantity, issued_lines.c.billed)
            .where(issued_lines.c.kind == "credit", issued_lines.c.origin_number == number)
            .order_by(issued_lines.c.number, issued_lines.c.line)
        )
        return [
            TakenOff(
                line=row.origin_line,
                token_count=int(row.quantity) or None,
                amount=-row.billed,
            )
            for row in self._connection.execute(statement)
        ]

    def find_credit(self, credit_id: str) -> GivenCredit | None:
        """Return a credit that was given, of whichever document.

        Until the transaction's end nobody else gives one of that name.
        """
        self._hold_name("credit", credit_id)
        statement = select(invoice_credits).where(invoice_credits.c.credit_id == credit_id)
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            return None
        return GivenCredit(
            credit_id=credit_id,
            credit_note=row.credit_note,
            number=row.number,
            line=row.line,
            wanted=Wanted(token_count=row.token_count, amount=row.amount),
            reason=row.reason,
        )

    def find_payment(self, payment_id: str) -> Payment | None:
        """Return a payment that was recorded, of whichever document.

        Until the transaction's end nobody else records one of that name.
        """
        self._hold_name("payment", payment_id)
        statement = select(payments).where(payments.c.payment_id == payment_id)
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            return None
        return Payment(
            payment_id=payment_id,
            number=row.number,
            amount=row.amount,
            receive_date=row.receive_date,
            note=row.note,
        )

    def issue(self, document: Invoice, *, like: str) -> Invoice:
        """Issue a document by the terms that another one was made by."""
        version = self._connection.execute(
            select(issued_invoices.c.terms_version).where(issued_invoices.c.number == like)
        ).scalar_one()
        (issued,) = issue_all(
            self._connection, [document], terms_version=version, now_ms=self._doing.now_ms
        )
        return issued

    def add_credit(self, credit: GivenCredit) -> None:
        """Keep what a credit note was given for."""
        self._connection.execute(
            insert(invoice_credits).values(
                credit_id=credit.credit_id,
                credit_note=credit.credit_note,
                number=credit.number,
                line=credit.line,
                token_count=credit.wanted.token_count,
                amount=credit.wanted.amount,
                reason=credit.reason,
            )
        )

    def add_payment(self, payment: Payment) -> None:
        """Keep a payment."""
        self._connection.execute(
            insert(payments).values(
                payment_id=payment.payment_id,
                number=payment.number,
                amount=payment.amount,
                receive_date=payment.receive_date,
                note=payment.note,
                key_id=self._doing.key_id,
                record_time=to_time(self._doing.now_ms),
            )
        )

    def add_void(self, invoice: Invoice, *, credit_note: str, reason: str) -> None:
        """Keep that an invoice is void.

        Its period is open again, and those whose adjustments it bore have to be looked at.
        """
        assert invoice.issue is not None, "only what was issued is void"
        self._connection.execute(
            insert(invoice_voids).values(
                number=invoice.issue.number,
                credit_note=credit_note,
                reason=reason,
                key_id=self._doing.key_id,
                void_time=to_time(self._doing.now_ms),
            )
        )
        origins = [it.origin for it in invoice.lines] + [it.origin for it in invoice.charges]
        starts = {it.start_ms for it in origins if it is not None}
        of_contract = update(billing_periods).where(
            billing_periods.c.contract == invoice.version.contract
        )
        unsettled = {"settled_cut_id": None, "settled_terms": None}
        if starts:
            self._connection.execute(
                of_contract.where(
                    billing_periods.c.period_start.in_([to_time(it) for it in starts])
                ).values(unsettled)
            )
        self._connection.execute(
            of_contract.where(
                billing_periods.c.period_start == to_time(invoice.span.start_ms)
            ).values(
                state="open",
                outcome="",
                exception="",
                close_time=None,
                cut_id=None,
                **unsettled,
            )
        )

    def log(self, action: BillingAction, subject: str, detail: Mapping[str, object]) -> None:
        """Write into the audit log."""
        self._change_log.write(
            self._connection,
            Change(
                at_ms=self._doing.now_ms,
                key_id=self._doing.key_id,
                action=action,
                subject=subject,
                detail=detail,
            ),
        )

    def log_correction(self, issued: Invoice) -> None:
        """Write what corrects a period into the audit log: its subject is the new document."""
        assert issued.issue is not None
        is_written_off = issued.kind is DocumentKind.WRITE_OFF
        given_up = [it.amount for it in issued.credits]
        detail = {
            "contract": issued.version.contract,
            "month": str(issued.month),
            "kind": issued.kind.value,
            "total": write_money(issued.total, issued.currency),
            "currency": issued.currency.code,
            "refers_to": issued.refers_to,
            "reason": issued.reason,
        }
        if is_written_off:
            detail["written_off"] = write_money(subtract(ZERO, add_up(given_up)), issued.currency)
        action = (
            BillingAction.INVOICE_WRITE_OFF if is_written_off else BillingAction.INVOICE_CORRECT
        )
        self.log(action, issued.issue.number, detail)

    def _hold_name(self, kind: str, name: str) -> None:
        key = func.hashtextextended(f"{kind}:{name}", 1)
        self._connection.execute(select(func.pg_advisory_xact_lock(key)))
