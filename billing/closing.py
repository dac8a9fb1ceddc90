"""Closing a month, and its preview: the same calculation, with and without a cut and an issue.

An invoice is a function of the usage at or below a cut and of the terms. Whatever stops a close,
the next one goes on where it stopped, and what was issued is never issued again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from billing.contracts import BillingPeriod, periods_until
from billing.drafting import UTC_ZONE, Drafting
from billing.errors import BillingReason
from billing.invoicing import Invoice
from billing.periods import Month, month_of, month_span
from billing.ports import InvoiceStore, NotIssued, TermsStore
from meter.consumption import Consumption
from meter.domain.account import AccountTree
from meter.domain.clock import Clock
from meter.domain.errors import Reason, Refused, Unavailable
from meter.domain.interval import interval_start_ms
from meter.usage import Cuts, UsageFacts

# Counting follows recording by seconds; after an outage it has more to do than a close waits for.
_COUNTED_SECONDS_MAX: Final = 30.0
_POLL_SECONDS: Final = 0.1
# Terms that change all the time: somebody else is at work, and a close can be run again.
_DRAFTS_MAX: Final = 10


class Outcome(StrEnum):
    """What a close did with a period."""

    ISSUED = "issued"
    DRAFTED = "drafted"
    ALREADY_ISSUED = "already issued"
    NO_USAGE = "no usage"
    HELD_UNPRICED = "held, usage without a price"
    HELD_EARLIER = "held, an earlier month is open"
    NOT_ENDED = "not ended"


# The period still waits for an invoice, and somebody has to know.
OPEN_OUTCOMES: Final = frozenset({Outcome.HELD_UNPRICED, Outcome.HELD_EARLIER, Outcome.NOT_ENDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What a close did with one period.

    `invoice` is what it issued or drafted, `number` that of an earlier close, and `earlier` the
    month that has to be closed first.
    """

    period: BillingPeriod
    outcome: Outcome
    invoice: Invoice | None = None
    number: str = ""
    earlier: Month | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseResult:
    """All that a close did; `uncovered` are accounts with usage that no contract bills."""

    month: Month
    cut_id: int | None
    closed: tuple[Closed, ...]
    uncovered: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The use cases, over what they need; `pause` waits for some seconds."""

    terms: TermsStore
    invoices: InvoiceStore
    facts: UsageFacts
    consumption: Consumption
    cuts: Cuts
    clock: Clock
    tree: Callable[[], AccountTree]
    pause: Callable[[float], object]
    is_sandbox: bool

    def previous_month(self) -> Month:
        """Return the last month that has ended in UTC."""
        return month_of(self.clock.now_ms(), UTC_ZONE).previous()

    def close_month(
        self,
        month: Month,
        *,
        account_id: str | None,
        dry_run: bool,
        on_progress: Callable[[Closed], None] = lambda _: None,
    ) -> CloseResult:
        """Issue a month's invoices, of all contracts or of those that bill an account.

        Doing it again issues nothing. Raises Refused (MONTH_NOT_ENDED) for a month that has not
        ended under any contract, NotFound (ACCOUNT_NOT_COVERED), Unavailable when usage is not
        counted in time.
        """
        now_ms = self.clock.now_ms()
        drafting = self._look()
        periods = drafting.periods(month, account_id=account_id)
        ends = [it.span.end_ms for it in periods] or [month_span(month, UTC_ZONE).end_ms]
        if min(ends) > now_ms:
            raise Refused(
                BillingReason.MONTH_NOT_ENDED,
                f"{month} has not ended under any contract: `invoices preview` shows how it"
                " stands.",
            )
        self._wait_until_counted()
        issued = self._issued_numbers()
        decided = [self._decide(drafting, it, issued=issued, now_ms=now_ms) for it in periods]
        cut_id = None
        if None in decided and not dry_run:
            # One cut for all, and none when there is nothing to do: a second close changes nothing.
            cut_id = self.cuts.take_cut(now_ms=now_ms).cut_id
        closed = []
        for period, found in zip(periods, decided, strict=True):
            closed.append(found or self._close(drafting, period, cut_id=cut_id))
            on_progress(closed[-1])
        return CloseResult(
            month=month,
            cut_id=cut_id,
            closed=tuple(closed),
            uncovered=drafting.uncovered(month) if account_id is None else (),
        )

    def preview(self, account_id: str, month: Month | None) -> Sequence[Invoice]:
        """Return what the invoices of a month, or of this one, would be by all that is counted.

        There is one for each version of a contract that bills the account in that month. Raises
        NotFound (ACCOUNT_NOT_COVERED).
        """
        drafting = self._look()
        if month is None:
            now_ms = self.clock.now_ms()
            billing = drafting.coverage.find(account_id, interval_start_ms(now_ms))
            month = month_of(now_ms, UTC_ZONE if billing is None else billing.zone)
        periods = drafting.periods(month, account_id=account_id)
        return [
            drafting.draft(period, cut_id=None, consumption=self.consumption) for period in periods
        ]

    def _look(self) -> Drafting:
        return Drafting(self.terms.load(), self.tree(), self.facts, is_sandbox=self.is_sandbox)

    def _issued_numbers(self) -> Mapping[tuple[str, int], str]:
        """Return the numbers of all invoices by contract and begin of their period."""
        return {(it.contract, it.span.start_ms): it.number for it in self.invoices.issued_periods()}

    def _decide(
        self,
        drafting: Drafting,
        period: BillingPeriod,
        *,
        issued: Mapping[tuple[str, int], str],
        now_ms: int,
    ) -> Closed | None:
        """Return what is decided before any usage is priced; None: the period is to be closed."""
        number = issued.get((period.version.contract, period.span.start_ms))
        if number is not None:
            return Closed(period=period, outcome=Outcome.ALREADY_ISSUED, number=number)
        if period.span.end_ms > now_ms:
            return Closed(period=period, outcome=Outcome.NOT_ENDED)
        for version in drafting.terms.contracts.versions(period.version.contract):
            for earlier in periods_until(version, period.span.start_ms):
                # Parts of one month, under two versions, are closed together and hold nobody up.
                is_before = earlier.month < period.month
                is_open = (version.contract, earlier.span.start_ms) not in issued
                if is_before and is_open and drafting.has_usage(earlier):
                    return Closed(
                        period=period, outcome=Outcome.HELD_EARLIER, earlier=earlier.month
                    )
        return (
            None if drafting.has_usage(period) else Closed(period=period, outcome=Outcome.NO_USAGE)
        )

    def _close(self, drafting: Drafting, period: BillingPeriod, *, cut_id: int | None) -> Closed:
        for _ in range(_DRAFTS_MAX):
            invoice = drafting.draft(period, cut_id=cut_id, consumption=self.consumption)
            if invoice.unpriced:
                return Closed(period=period, outcome=Outcome.HELD_UNPRICED, invoice=invoice)
            if cut_id is None:
                return Closed(period=period, outcome=Outcome.DRAFTED, invoice=invoice)
            version = drafting.terms.version
            issued = self.invoices.issue(invoice, terms_version=version, now_ms=self.clock.now_ms())
            if isinstance(issued, Invoice):
                return Closed(period=period, outcome=Outcome.ISSUED, invoice=issued)
            drafting = self._look()
            if issued is NotIssued.ALREADY_ISSUED:
                number = self._issued_numbers()[period.version.contract, period.span.start_ms]
                return Closed(period=period, outcome=Outcome.ALREADY_ISSUED, number=number)
        raise Unavailable(
            Reason.STORE_UNAVAILABLE, "The terms change all the time; close the month again."
        )

    def _wait_until_counted(self) -> None:
        """Wait until all that was recorded before this moment is in the sums."""
        positions = self.facts.recorded_up_to()
        end = self.clock.monotonic_seconds() + _COUNTED_SECONDS_MAX
        while not self.facts.is_counted(positions):
            if self.clock.monotonic_seconds() > end:
                raise Unavailable(
                    Reason.STORE_UNAVAILABLE,
                    "Usage that was recorded is not counted yet: let the meter run, and close"
                    " again.",
                )
            self.pause(_POLL_SECONDS)
