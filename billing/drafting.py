"""Drafts of invoices, from one look at the terms, the accounts and the usage."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from zoneinfo import ZoneInfo

from billing.contracts import BillingPeriod, accounts_below, billing_periods
from billing.coverage import Coverage, is_same
from billing.energy import InvoiceEnergy, find_energy
from billing.errors import BillingReason
from billing.invoicing import Invoice, draft
from billing.periods import Month, Span, month_span
from billing.ports import Terms
from billing.rating import RatedLine, Rating, Unpriced, rate
from meter.consumption import Consumption, EnergyFact, SitePue
from meter.domain.account import AccountTree
from meter.domain.boundary import Boundary
from meter.domain.errors import NotFound
from meter.domain.tokens import OUTPUT_CLASSES
from meter.usage import UsageFact, UsageFacts

UTC_ZONE: Final = ZoneInfo("UTC")


class Drafting:
    """What is billed to whom, by the terms and the tree of one moment."""

    def __init__(
        self, terms: Terms, tree: AccountTree, facts: UsageFacts, *, is_sandbox: bool
    ) -> None:
        """Take all that an invoice depends on; `is_sandbox` marks what is drafted."""
        self.terms = terms
        self.tree = tree
        self.coverage = Coverage(terms.contracts, tree)
        self._facts = facts
        self._is_sandbox = is_sandbox

    def periods(self, month: Month, *, account_id: str | None) -> list[BillingPeriod]:
        """Return what a month is billed as, by contract and time; for None under all contracts.

        For an account: the periods that bill its usage at any time. Raises NotFound
        (ACCOUNT_NOT_COVERED) when there is none.
        """
        every = [
            period for version in self.terms.contracts for period in billing_periods(version, month)
        ]
        if account_id is None:
            return every
        found = [period for period in every if self._bills(period, account_id)]
        if not found:
            raise NotFound(
                BillingReason.ACCOUNT_NOT_COVERED,
                f"No contract bills account {account_id} in {month}.",
                account=account_id,
            )
        return found

    def facts(self, period: BillingPeriod, *, cut_id: int | None) -> Iterator[UsageFact]:
        """Yield the usage that a period bills, at or below a cut (None: all that is counted)."""
        span = period.span
        found = self._facts.facts(
            account_ids=accounts_below(self.tree, period.version.covers, span),
            start_ms=span.start_ms,
            end_ms=span.end_ms,
            cut_id=cut_id,
        )
        return filter(self.coverage.is_billed_by(period.version), found)

    def draft(
        self, period: BillingPeriod, *, cut_id: int | None, consumption: Consumption
    ) -> Invoice:
        """Return the draft of a period's invoice, of what lies at or below a cut (None: of all).

        Where its contract asks for it, it tells of the energy that is known when it is drafted.
        """
        # Read before the usage is: what is counted meanwhile makes the draft newer than it says.
        counted_until_ms = self._facts.counted_until_ms()
        rating = rate(
            self.facts(period, cut_id=cut_id),
            version=period.version,
            books=self.terms.books,
        )
        return draft(
            period,
            rating,
            cut_id=cut_id,
            counted_until_ms=counted_until_ms,
            is_sandbox=self._is_sandbox,
            energy=self._find_energy(period, rating, consumption=consumption),
        )

    def has_usage(self, period: BillingPeriod) -> bool:
        """Tell whether there is anything that a period bills."""
        return any(any(fact.tokens.values()) for fact in self.facts(period, cut_id=None))

    def uncovered(self, month: Month) -> tuple[str, ...]:
        """Return the accounts with usage in a month, in UTC, that no contract bills."""
        span = month_span(month, UTC_ZONE)
        with_usage = self._facts.accounts_with_usage(start_ms=span.start_ms, end_ms=span.end_ms)
        doubtful = {it for it in with_usage if not self._is_covered(it, span)}
        facts = self._facts.facts(
            account_ids=doubtful, start_ms=span.start_ms, end_ms=span.end_ms, cut_id=None
        )
        found = {
            fact.account_id
            for fact in facts
            # What was voided later needs no contract.
            if fact.request_count
            and self.coverage.find(fact.account_id, fact.interval_start_ms) is None
        }
        return tuple(sorted(found))

    def _find_energy(
        self, period: BillingPeriod, rating: Rating, *, consumption: Consumption
    ) -> InvoiceEnergy | None:
        boundary = period.version.energy
        if boundary is None:
            return None
        tokens: Sequence[RatedLine | Unpriced] = (*rating.lines, *rating.unpriced)
        return find_energy(
            _Consumed(self, period=period, consumption=consumption),
            boundary=boundary,
            output_tokens=sum(it.token_count for it in tokens if it.token_class in OUTPUT_CLASSES),
        )

    def _bills(self, period: BillingPeriod, account_id: str) -> bool:
        return any(
            is_same(period.version, self.coverage.find(account_id, at_ms))
            for at_ms in self.coverage.instants(period.span)
        )

    def _is_covered(self, account_id: str, span: Span) -> bool:
        return all(
            self.coverage.find(account_id, at_ms) is not None
            for at_ms in self.coverage.instants(span)
        )


class _Consumed:
    """The energy of what a period bills."""

    def __init__(
        self, drafting: Drafting, *, period: BillingPeriod, consumption: Consumption
    ) -> None:
        version, self._span = period.version, period.span
        self._accounts = accounts_below(drafting.tree, version.covers, period.span)
        self._is_billed = drafting.coverage.is_billed_by(version)
        self._consumption = consumption

    def facts(self, boundary: Boundary) -> Iterator[EnergyFact]:
        """Yield what is billed of boards or hosts."""
        found = self._consumption.energy(
            account_ids=self._accounts,
            start_ms=self._span.start_ms,
            end_ms=self._span.end_ms,
            boundary=boundary,
        )
        return filter(self._is_billed, found)

    def pues(self) -> Mapping[str, SitePue]:
        """Return the PUE by pool over the period, of the sites whose PUE is known."""
        return self._consumption.pues(start_ms=self._span.start_ms, end_ms=self._span.end_ms)
