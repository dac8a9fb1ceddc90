"""What came of issued documents: credits, payments, voids; and the port that adds to them."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Final, Protocol

from billing.actions import BillingAction
from billing.crediting import TakenOff, Wanted
from billing.errors import BillingReason
from billing.invoicing import DocumentKind, Invoice
from billing.money import ZERO, subtract
from billing.periods import Month
from billing.ports import NotIssued
from meter.domain.errors import NotFound, Refused

# What somebody has to pay; the others take something off one of these.
PAYABLE_KINDS: Final = frozenset({DocumentKind.INVOICE, DocumentKind.SUPPLEMENTARY_INVOICE})


class DocumentState(StrEnum):
    """Where an issued document stands."""

    ISSUED = "issued"
    PAID = "paid"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What came of a document: `credited` by credit notes and `paid`, both with tax, ≥ 0.

    `voided_by` is the credit note that took all of it back; empty for none. Paid is a document
    above 0 whose credits and payments come to all of it.
    """

    state: DocumentState
    credited: Decimal
    paid: Decimal
    voided_by: str

    def left_to_pay(self, invoice: Invoice) -> Decimal:
        """Return how much of a document nobody has paid or credited."""
        return subtract(subtract(invoice.total, self.credited), self.paid)


JUST_ISSUED: Final = Standing(state=DocumentState.ISSUED, credited=ZERO, paid=ZERO, voided_by="")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedDocument:
    """A document as it was issued, and what came of it since."""

    invoice: Invoice
    standing: Standing

    @property
    def number(self) -> str:
        """Its number."""
        assert self.invoice.issue is not None
        return self.invoice.issue.number


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenCredit:
    """A credit that was given: what was asked for, and the credit note that came of it."""

    credit_id: str
    credit_note: str
    number: str
    line: int
    wanted: Wanted
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Money that came in for a document, > 0 and in its currency, on a date."""

    payment_id: str
    number: str
    amount: Decimal
    receive_date: date
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """Who does something now, and when: the id of an API key or a word for none, and ms."""

    key_id: str
    now_ms: int


class DocumentChange(Protocol):
    """One transaction in which nobody else issues for a contract, or changes what came of it."""

    def find(self, number: str) -> IssuedDocument | None:
        """Return a document of the contract as it stands."""
        ...

    def taken_off(self, number: str) -> Sequence[TakenOff]:
        """Return what credit notes took off its lines, in order."""
        ...

    def find_credit(self, credit_id: str) -> GivenCredit | None:
        """Return a credit that was given, of whichever document."""
        ...

    def find_payment(self, payment_id: str) -> Payment | None:
        """Return a payment that was recorded, of whichever document."""
        ...

    def issue(self, document: Invoice, *, like: str) -> Invoice:
        """Issue a document by the terms that another one was made by."""
        ...

    def add_credit(self, credit: GivenCredit) -> None:
        """Keep what a credit note was given for."""
        ...

    def add_payment(self, payment: Payment) -> None:
        """Keep a payment."""
        ...

    def add_void(self, invoice: Invoice, *, credit_note: str, reason: str) -> None:
        """Keep that an invoice is void.

        Its period is open again, and those whose adjustments it bore have to be looked at.
        """
        ...

    def log(self, action: BillingAction, subject: str, detail: Mapping[str, object]) -> None:
        """Write into the audit log."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """A closed period that a document settles: up to its cut, by terms with this digest."""

    contract: str
    start_ms: int
    terms: bytes


class IssuedDocuments(Protocol):
    """Keeps issued documents, and what came of them."""

    def find(self, number: str) -> IssuedDocument | None:
        """Return a document as it stands."""
        ...

    def standings(self, numbers: Collection[str]) -> Mapping[str, Standing]:
        """Return how documents stand, by number."""
        ...

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
        ...

    def changing(self, contract: str, *, doing: Doing) -> AbstractContextManager[DocumentChange]:
        """Hold a contract for a transaction, which is committed at the block's end."""
        ...

    def mark(self, contract: str) -> int:
        """Return a number that moves with each document and void of a contract."""
        ...

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
        ...


def get_document(documents: IssuedDocuments, number: str) -> IssuedDocument:
    """Return a document as it stands; raises NotFound (INVOICE_NOT_FOUND)."""
    found = documents.find(number)
    if found is None:
        raise NotFound(
            BillingReason.INVOICE_NOT_FOUND,
            f"There is no invoice {number}: `invoices list` names them.",
        )
    return found


def check_payable(document: IssuedDocument) -> None:
    """Refuse what nobody has to pay; raises Refused (KIND_REFUSED, INVOICE_VOID)."""
    kind = document.invoice.kind
    if kind not in PAYABLE_KINDS:
        raise Refused(
            BillingReason.KIND_REFUSED,
            f"{document.number} is a {kind.value.replace('_', ' ')}: only invoices and"
            " supplementary invoices are paid, credited or taken back.",
        )
    if document.standing.state is DocumentState.VOID:
        raise Refused(
            BillingReason.INVOICE_VOID,
            f"{document.number} is void: {document.standing.voided_by} took it back.",
        )
