"""What all desks of the billing service share: the use cases, and the door."""

import asyncio
from dataclasses import dataclass

from billing.closing import Closing
from billing.correcting import Correcting
from billing.credit_notes import CreditNotes
from billing.explaining import Explaining
from billing.invoicing import Invoice
from billing.issued import Doing, IssuedDocuments
from billing.months import Months
from billing.papers import PaperPress
from billing.payments import Payments
from billing.ports import InvoiceStore, Terms, TermsStore
from billing.setting_terms import SettingTerms
from billing.wire.messages import from_name
from meter.domain.errors import NotFound
from meter.hosting import Door, Host


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingParts:
    """The use cases and stores that the service stands on."""

    terms: TermsStore
    setting: SettingTerms
    invoices: InvoiceStore
    closing: Closing
    months: Months
    explaining: Explaining
    papers: PaperPress
    documents: IssuedDocuments
    credit_notes: CreditNotes
    payments: Payments
    correcting: Correcting


class Desk:
    """A part of the service; whatever touches the database or prices runs on a thread."""

    def __init__(self, parts: BillingParts, *, host: Host, door: Door) -> None:
        """Take the use cases, and what the meter lends."""
        self._parts = parts
        self._host = host
        self._door = door

    async def _terms(self) -> Terms:
        return await asyncio.to_thread(self._parts.terms.load)

    async def _readable_invoice(self, number: str) -> Invoice:
        number = from_name(number, "number")
        try:
            invoice = await asyncio.to_thread(self._parts.explaining.get_invoice, number)
        except NotFound:
            # Which numbers there are is nobody's business who may not read them all.
            self._door.admit(None)
            raise
        self._door.admit_to_all(invoice.version.covers)
        return invoice

    def _may_read(self, invoice: Invoice) -> bool:
        return all(map(self._door.covers, invoice.version.covers))

    def _doing(self) -> Doing:
        return Doing(key_id=self._door.caller().key_id, now_ms=self._host.clock.now_ms())
