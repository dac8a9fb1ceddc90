"""Payments: what came in for an invoice, told by whoever sees the bank, and kept once."""

from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from billing.actions import BillingAction
from billing.errors import BillingReason
from billing.invoicing import Invoice
from billing.issued import (
    DocumentChange,
    Doing,
    IssuedDocument,
    IssuedDocuments,
    Payment,
    check_payable,
    get_document,
)
from billing.money import round_half_up, write_money
from meter.domain.account import invalid_argument
from meter.domain.errors import Refused
from meter.domain.times import to_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Payments:
    """The use case, over what it needs."""

    documents: IssuedDocuments

    def record(
        self,
        number: str,
        *,
        payment_id: str,
        amount: Decimal,
        currency: str,
        receive_date: date | None,
        note: str,
        doing: Doing,
    ) -> tuple[IssuedDocument, bool]:
        """Keep that money came in; False when this payment was there already.

        Without a date it came in today, where the contract is. Raises NotFound
        (INVOICE_NOT_FOUND), InvalidArgument for another currency or an amount that nobody can pay,
        Refused (PAYMENT_CONFLICT, PAYMENT_TOO_HIGH, INVOICE_VOID, KIND_REFUSED).
        """
        invoice = get_document(self.documents, number).invoice
        _check_amount(invoice, amount=amount, currency=currency)
        local = to_time(doing.now_ms).astimezone(invoice.version.zone)
        payment = Payment(
            payment_id=payment_id,
            number=number,
            amount=amount,
            receive_date=receive_date or local.date(),
            note=note,
        )
        with self.documents.changing(invoice.version.contract, doing=doing) as change:
            before = change.find_payment(payment_id)
            if before is None:
                _keep(change, payment)
        if before is not None:
            # Who names no date says nothing against the one that is kept.
            named = payment if receive_date else replace(payment, receive_date=before.receive_date)
            _check_same(before, named)
        return get_document(self.documents, number), before is None


def _keep(change: DocumentChange, payment: Payment) -> None:
    document = change.find(payment.number)
    assert document is not None, "what was issued stays"
    check_payable(document)
    invoice = document.invoice
    left = document.standing.left_to_pay(invoice)
    if payment.amount > left:
        raise Refused(
            BillingReason.PAYMENT_TOO_HIGH,
            f"Of {payment.number} {write_money(left, invoice.currency)} {invoice.currency.code}"
            f" are left to pay, and not {write_money(payment.amount, invoice.currency)}.",
            left=write_money(left, invoice.currency),
        )
    change.add_payment(payment)
    change.log(
        BillingAction.PAYMENT_RECORD,
        payment.number,
        {
            "payment_id": payment.payment_id,
            "amount": write_money(payment.amount, invoice.currency),
            "currency": invoice.currency.code,
            "receive_date": payment.receive_date.isoformat(),
            "note": payment.note,
        },
    )


def _check_amount(invoice: Invoice, *, amount: Decimal, currency: str) -> None:
    own = invoice.currency
    if currency != own.code:
        raise invalid_argument("currency", f"that of the invoice, {own.code}")
    if amount <= 0 or round_half_up(amount, own) != amount:
        raise invalid_argument(
            "amount", f"above 0, with at most {own.exponent} decimals for {own.code}"
        )


def _check_same(before: Payment, payment: Payment) -> None:
    if before != payment:
        raise Refused(
            BillingReason.PAYMENT_CONFLICT,
            f"{before.payment_id} is a payment for {before.number} of {before.receive_date}, and"
            " not this one: a payment has the name that the bank gives it.",
        )
