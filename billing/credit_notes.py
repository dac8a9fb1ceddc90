"""Crediting a line, and taking a whole invoice back: each in one transaction, each once."""

from dataclasses import dataclass, replace

from billing.actions import BillingAction
from billing.crediting import Wanted, credit_line, credit_lines, credit_note
from billing.errors import BillingReason
from billing.invoicing import Invoice
from billing.issued import (
    DocumentChange,
    DocumentState,
    Doing,
    GivenCredit,
    IssuedDocument,
    IssuedDocuments,
    check_payable,
    get_document,
)
from billing.money import write_money
from meter.domain.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditNotes:
    """The use cases, over what they need."""

    documents: IssuedDocuments

    def credit(
        self,
        number: str,
        *,
        line: int,
        wanted: Wanted,
        reason: str,
        credit_id: str,
        doing: Doing,
    ) -> tuple[IssuedDocument, bool]:
        """Issue a credit note for a line, or part of it; False when this credit was there already.

        Raises NotFound (INVOICE_NOT_FOUND, LINE_NOT_FOUND), Refused (CREDIT_TOO_HIGH,
        CREDIT_CONFLICT, INVOICE_VOID, KIND_REFUSED), InvalidArgument for an amount that nobody can
        pay.
        """
        contract = get_document(self.documents, number).invoice.version.contract
        given = GivenCredit(
            credit_id=credit_id,
            credit_note="",
            number=number,
            line=line,
            wanted=wanted,
            reason=reason,
        )
        with self.documents.changing(contract, doing=doing) as change:
            before = change.find_credit(credit_id)
            if before is None:
                note = _give(change, given)
        if before is None:
            return get_document(self.documents, note), True
        if replace(before, credit_note="") != given:
            raise Refused(
                BillingReason.CREDIT_CONFLICT,
                f"{credit_id} is the credit of line {before.line} of {before.number}, given by"
                f" {before.credit_note}, and not this one: name this one otherwise.",
            )
        return get_document(self.documents, before.credit_note), False

    def void(
        self, number: str, *, reason: str, doing: Doing
    ) -> tuple[IssuedDocument, IssuedDocument]:
        """Take an invoice back by a credit note; return both. Doing it again changes nothing.

        What it billed is looked at anew by the next close. Raises NotFound (INVOICE_NOT_FOUND),
        Refused (INVOICE_PAID, KIND_REFUSED).
        """
        contract = get_document(self.documents, number).invoice.version.contract
        with self.documents.changing(contract, doing=doing) as change:
            document = change.find(number)
            assert document is not None, "what was issued stays"
            if document.standing.state is not DocumentState.VOID:
                _void(change, document, reason=reason)
        document = get_document(self.documents, number)
        return document, get_document(self.documents, document.standing.voided_by)


def _give(change: DocumentChange, given: GivenCredit) -> str:
    document = change.find(given.number)
    assert document is not None, "what was issued stays"
    check_payable(document)
    line = credit_line(
        document.invoice, given.line, wanted=given.wanted, taken=change.taken_off(given.number)
    )
    note = credit_note(document.invoice, [line], reason=given.reason)
    number = _number_of(change.issue(note, like=given.number))
    change.add_credit(replace(given, credit_note=number))
    change.log(
        BillingAction.INVOICE_CREDIT,
        given.number,
        {
            "credit_id": given.credit_id,
            "credit_note": number,
            "line": given.line,
            "tokens": line.token_count,
            "amount": write_money(line.amount, note.currency),
            "currency": note.currency.code,
            "reason": given.reason,
        },
    )
    return number


def _void(change: DocumentChange, document: IssuedDocument, *, reason: str) -> None:
    check_payable(document)
    if document.standing.paid:
        raise Refused(
            BillingReason.INVOICE_PAID,
            f"A payment for {document.number} is recorded: credit its lines instead.",
        )
    lines = credit_lines(document.invoice, taken=change.taken_off(document.number))
    note = credit_note(document.invoice, lines, reason=reason)
    number = _number_of(change.issue(note, like=document.number))
    change.add_void(document.invoice, credit_note=number, reason=reason)
    change.log(
        BillingAction.INVOICE_VOID,
        document.number,
        {
            "credit_note": number,
            "total": write_money(note.total, note.currency),
            "currency": note.currency.code,
            "reason": reason,
        },
    )


def _number_of(issued: Invoice) -> str:
    assert issued.issue is not None
    return issued.issue.number
