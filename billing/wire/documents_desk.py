"""Issued documents: the part of the billing service that lists, corrects and settles them."""

import asyncio
import re
from datetime import date
from decimal import Decimal
from typing import Any, Final, TypeAlias

import grpc

from billing.crediting import Wanted
from billing.issued import DocumentState, IssuedDocument
from billing.limits import AMOUNT_CHARS_MAX, NAME_CHARS_MAX, REASON_CHARS_MAX
from billing.wire.desk import Desk
from billing.wire.messages import from_filter, from_month, from_name, from_text, to_summary
from meter.domain.account import invalid_argument
from tokenworks.billing.v1 import billing_service_pb2 as pb

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_PAGE: Final = 100
_PAGE_MAX: Final = 1000
_PLAIN: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LINE_MAX: Final = 2**31 - 1
_STATES: Final = {
    pb.DOCUMENT_STATE_UNSPECIFIED: None,
    pb.DOCUMENT_STATE_ISSUED: DocumentState.ISSUED,
    pb.DOCUMENT_STATE_PAID: DocumentState.PAID,
    pb.DOCUMENT_STATE_VOID: DocumentState.VOID,
}


class DocumentsDesk(Desk):
    """Answers the calls about documents that were issued."""

    async def ListInvoices(
        self, request: pb.ListInvoicesRequest, _context: _Context
    ) -> pb.ListInvoicesResponse:
        """List documents."""
        account_id = request.account or None
        self._door.admit(account_id)
        if not 0 <= request.page_size <= _PAGE_MAX:
            raise invalid_argument("page_size", f"0 to {_PAGE_MAX}")
        if request.state not in _STATES:
            raise invalid_argument("state", "issued, paid or void")
        contracts = None
        if account_id is not None:
            self._host.tree().get(account_id)
            terms = await self._terms()
            contracts = sorted({it.contract for it in terms.contracts if account_id in it.covers})
        size = request.page_size or _PAGE
        found = await asyncio.to_thread(
            self._parts.documents.list_documents,
            contracts=contracts,
            month=from_month(request.month) if request.month else None,
            state=_STATES[request.state],
            after=from_filter(request.page_token, "page_token") or "",
            limit=size + 1,
        )
        page = found[:size]
        return pb.ListInvoicesResponse(
            # Who reads one account of a contract may not see what it bills to others.
            invoices=[_to_summary(it) for it in page if self._may_read(it.invoice)],
            next_page_token=page[-1].number if len(found) > size else "",
        )

    async def CreditInvoice(
        self, request: pb.CreditInvoiceRequest, _context: _Context
    ) -> pb.CreditInvoiceResponse:
        """Give part of a line back."""
        if not 1 <= request.line <= _LINE_MAX:
            raise invalid_argument("line", "1 or more")
        note, is_new = await asyncio.to_thread(
            self._parts.credit_notes.credit,
            from_name(request.number, "number"),
            line=request.line,
            wanted=_wanted(request),
            reason=from_text(request.reason, "reason", chars_max=REASON_CHARS_MAX),
            credit_id=from_text(request.credit_id, "credit_id", chars_max=NAME_CHARS_MAX),
            doing=self._doing(),
        )
        return pb.CreditInvoiceResponse(credit_note=_to_summary(note), issued=is_new)

    async def VoidInvoice(
        self, request: pb.VoidInvoiceRequest, _context: _Context
    ) -> pb.VoidInvoiceResponse:
        """Take an invoice back."""
        document, note = await asyncio.to_thread(
            self._parts.credit_notes.void,
            from_name(request.number, "number"),
            reason=from_text(request.reason, "reason", chars_max=REASON_CHARS_MAX),
            doing=self._doing(),
        )
        return pb.VoidInvoiceResponse(invoice=_to_summary(document), credit_note=_to_summary(note))

    async def RecordPayment(
        self, request: pb.RecordPaymentRequest, _context: _Context
    ) -> pb.RecordPaymentResponse:
        """Keep that money came in."""
        document, is_new = await asyncio.to_thread(
            self._parts.payments.record,
            from_name(request.number, "number"),
            payment_id=from_text(request.payment_id, "payment_id", chars_max=NAME_CHARS_MAX),
            amount=_amount(request.amount),
            currency=request.currency,
            receive_date=_date(request.receive_date),
            note=from_text(request.note, "note", chars_max=REASON_CHARS_MAX, may_be_empty=True),
            doing=self._doing(),
        )
        return pb.RecordPaymentResponse(invoice=_to_summary(document), recorded=is_new)

    async def CorrectPeriod(
        self, request: pb.CorrectPeriodRequest, _context: _Context
    ) -> pb.CorrectPeriodResponse:
        """Issue what a closed period comes to beyond what was billed."""
        found = await asyncio.to_thread(
            self._parts.correcting.correct,
            from_name(request.contract, "contract"),
            from_month(request.month),
            reason=from_text(request.reason, "reason", chars_max=REASON_CHARS_MAX),
            write_off=request.write_off,
            dry_run=request.dry_run,
            key_id=self._door.caller().key_id,
        )
        return pb.CorrectPeriodResponse(documents=[to_summary(it) for it in found])


def _wanted(request: pb.CreditInvoiceRequest) -> Wanted:
    part = request.WhichOneof("part")
    if part == "token_count":
        if request.token_count <= 0:
            raise invalid_argument("token_count", "above 0")
        return Wanted(token_count=request.token_count)
    return Wanted(amount=_amount(request.amount)) if part == "amount" else Wanted()


def _amount(text: str) -> Decimal:
    if len(text) > AMOUNT_CHARS_MAX or _PLAIN.fullmatch(text) is None:
        raise invalid_argument("amount", "above 0, in plain digits, such as 12.50")
    return Decimal(text)


def _date(text: str) -> date | None:
    try:
        if _DATE.fullmatch(text) or not text:
            return date.fromisoformat(text) if text else None
    except ValueError:
        pass
    raise invalid_argument("receive_date", "a date such as 2026-11-20")


def _to_summary(document: IssuedDocument) -> pb.InvoiceSummary:
    return to_summary(document.invoice, standing=document.standing)
