"""Correcting a closed period: what it comes to by now, less what was billed, as a document."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from billing.calendar import as_billed
from billing.drafting import Draft, Drafting
from billing.errors import BillingReason
from billing.invoicing import CreditLine, DocumentKind, Invoice
from billing.issued import Doing, IssuedDocuments, Settling
from billing.ledger import Ledger, PeriodKey
from billing.money import ZERO, add_up, round_half_up, subtract
from billing.period_book import PeriodQuery, PeriodStore
from billing.periods import Month
from billing.ports import NotIssued, PeriodState, StoredPeriod
from billing.tax import tax_totals
from meter.domain.clock import Clock
from meter.domain.errors import NotFound, Reason, Refused, Unavailable

# Terms that change all the time: somebody else is at work, and it can be asked for again.
_DRAFTS_MAX: Final = 10
# As many periods as a month has quarters of an hour.
_PERIODS_MAX: Final = 3_000


class TakeCut(Protocol):
    """Takes a cut of all that was recorded before this moment."""

    def __call__(self, *, now_ms: int) -> int:
        """Return its id; raises Unavailable when usage is not counted in time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Correcting:
    """The use case, over what it needs.

    `look` returns what drafts by the terms and the accounts of this moment; `take_cut` takes a cut
    of all that was recorded before, and returns its id.
    """

    documents: IssuedDocuments
    periods: PeriodStore
    ledger: Ledger
    clock: Clock
    look: Callable[[], Drafting]
    take_cut: TakeCut

    def correct(
        self,
        contract: str,
        month: Month,
        *,
        reason: str,
        key_id: str,
        write_off: bool = False,
        dry_run: bool = False,
    ) -> tuple[Invoice, ...]:
        """Issue what the closed periods of a month come to beyond what was billed for them.

        One document for each: a supplementary invoice, a credit note below 0, or where it is to be
        written off a document whose total is 0. None for a period that has nothing left; a dry run
        returns drafts. Raises NotFound (PERIOD_NOT_FOUND), Refused (PERIOD_OPEN,
        USAGE_UNPRICED), Unavailable when usage is not counted in time.
        """
        doing = Doing(key_id=key_id, now_ms=self.clock.now_ms())
        closed = self._closed(contract, month)
        cut_id = None if dry_run else self.take_cut(now_ms=doing.now_ms)
        found = []
        for period in closed:
            made = self._correct(
                period, cut_id=cut_id, reason=reason, write_off=write_off, doing=doing
            )
            if made is not None:
                found.append(made)
        return tuple(found)

    def _closed(self, contract: str, month: Month) -> list[StoredPeriod]:
        """Return the closed periods of a month, at least one."""
        query = PeriodQuery(month=month, contracts=[contract])
        stored = self.periods.find(query, after=None, limit=_PERIODS_MAX)
        if not stored:
            raise NotFound(
                BillingReason.PERIOD_NOT_FOUND,
                f"{contract} has no period of {month} that has begun.",
            )
        closed = [it for it in stored if it.state is PeriodState.CLOSED]
        if not closed:
            raise Refused(
                BillingReason.PERIOD_OPEN,
                f"{month} of {contract} is not closed: its close bills all that there is.",
            )
        return closed

    def _correct(
        self,
        period: StoredPeriod,
        *,
        cut_id: int | None,
        reason: str,
        write_off: bool,
        doing: Doing,
    ) -> Invoice | None:
        for _ in range(_DRAFTS_MAX):
            # Before anything is read: whatever is issued from here on makes the draft an old one.
            mark = self.documents.mark(period.contract)
            drafting = self.look()
            billed = as_billed(period, drafting.terms.contracts)
            draft = drafting.difference(billed, cut_id=cut_id)
            document = self._document(draft, reason=reason, write_off=write_off)
            if document is None or cut_id is None:
                return document
            issued = self.documents.issue_correction(
                document,
                settles=[
                    Settling(contract=it.contract, start_ms=it.start_ms, terms=it.terms)
                    for it in draft.settled
                ],
                terms_version=drafting.terms.version,
                mark=mark,
                doing=doing,
            )
            if not isinstance(issued, NotIssued):
                return issued
        raise Unavailable(
            Reason.STORE_UNAVAILABLE, "The contract changes all the time; correct it again."
        )

    def _document(self, draft: Draft, *, reason: str, write_off: bool) -> Invoice | None:
        """Return a difference as the document that it becomes; None where it is nothing."""
        invoice = draft.invoice
        if invoice.unpriced:
            raise Refused(
                BillingReason.USAGE_UNPRICED,
                f"Usage of {invoice.month} has no price: `invoices preview` names it.",
            )
        amounts = [*(it.billed for it in invoice.lines), *(it.billed for it in invoice.charges)]
        # What rounds to nothing is no document, but it can be given up.
        if not amounts or not (write_off or any(amounts)):
            return None
        key = PeriodKey(invoice.version.contract, invoice.span.start_ms)
        invoice = replace(
            invoice,
            refers_to=self.ledger.numbers([key]).get(key, ""),
            reason=reason,
        )
        return written_off(invoice) if write_off else invoice


def written_off(invoice: Invoice) -> Invoice:
    """Return the document that gives a difference up: its lines, and one that takes all back."""
    taxed = [
        *((invoice.version.tax, it.billed) for it in invoice.lines),
        *((it.tax, it.billed) for it in invoice.charges),
    ]
    given_up = []
    place = len(taxed)
    for tax in dict.fromkeys(tax for tax, _ in taxed):
        amount = add_up(amount for own, amount in taxed if own == tax)
        place += 1
        given_up.append(
            CreditLine(
                line=place,
                number="",
                number_line=0,
                text=invoice.reason,
                token_count=None,
                amount=subtract(ZERO, amount),
                tax=tax,
            )
        )
    return replace(
        invoice,
        kind=DocumentKind.WRITE_OFF,
        credits=tuple(given_up),
        taxes=tax_totals([*taxed, *((it.tax, it.amount) for it in given_up)], invoice.currency),
        total=round_half_up(ZERO, invoice.currency),
    )
