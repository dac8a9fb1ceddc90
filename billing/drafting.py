"""Drafts of invoices, from one look at the terms, the accounts and the usage.

A period's draft is what it comes to less what was billed for it, which is all of it the first time;
and it bears what earlier, closed periods of its contract have left over.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import chain
from typing import Final
from zoneinfo import ZoneInfo

from billing.calendar import as_billed
from billing.charges import Charge
from billing.charging import BilledCharge
from billing.contracts import BillingPeriod, billing_periods
from billing.coverage import Coverage, Placed, is_same
from billing.difference import LeftLine, find_left
from billing.energy import InvoiceEnergy, find_energy
from billing.errors import BillingReason
from billing.gathering import Gathered, Gathering
from billing.invoicing import Arrears, DocumentKind, Group, Invoice, Made, draft
from billing.ledger import Ledger, PeriodKey
from billing.outstanding import Outstanding, bear, key_of
from billing.periods import Month, Span, month_span
from billing.ports import StoredPeriod, Terms
from billing.rating import RatedLine, Rating, Unpriced
from meter.consumption import Consumption, EnergyFact, SitePue
from meter.domain.account import AccountTree
from meter.domain.boundary import Boundary
from meter.domain.errors import NotFound
from meter.domain.tokens import OUTPUT_CLASSES
from meter.usage import UsageFact, UsageFacts, UsageSums

UTC_ZONE: Final = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A period that nothing is left of once a draft is issued, and the digest of its terms."""

    contract: str
    start_ms: int
    terms: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft, and the periods that it settles: its own and closed ones, changed or not."""

    period: BillingPeriod
    invoice: Invoice
    settled: tuple[Settled, ...]


class Drafting:
    """What is billed to whom, by the terms and the tree of one moment."""

    def __init__(
        self,
        terms: Terms,
        tree: AccountTree,
        *,
        facts: UsageFacts,
        sums: UsageSums,
        ledger: Ledger,
        is_sandbox: bool,
    ) -> None:
        """Take all that an invoice depends on; `is_sandbox` marks what is drafted."""
        self.terms = terms
        self.tree = tree
        self.coverage = Coverage(terms.contracts, tree)
        self._gathering = Gathering(terms, tree, self.coverage, facts=facts, sums=sums)
        self._outstanding = Outstanding(terms, self._gathering, ledger=ledger, sums=sums)
        self._facts = facts
        self.ledger = ledger
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
        return self._gathering.facts(period, cut_id=cut_id)

    def draft(
        self, period: BillingPeriod, *, cut_id: int | None, consumption: Consumption
    ) -> Invoice:
        """Return the draft of one period's invoice; see `draft_many`."""
        (made,) = self.draft_many([period], cut_id=cut_id, consumption=consumption)
        return made.invoice

    def draft_many(
        self, periods: Sequence[BillingPeriod], *, cut_id: int | None, consumption: Consumption
    ) -> list[Draft]:
        """Return the drafts of periods' invoices, of what lies at or below a cut (None: of all).

        Each is what the period comes to less what was billed for it. Of several periods of one
        contract, the first bears what closed ones before it have left over, and the charges of
        the month: issue them in order of time, and draft the later ones again if it is not.
        Where its contract asks for it, a draft tells of the energy that is known when it is made.
        """
        if not periods:
            return []
        late = self._outstanding.late(periods)
        closed = [it for each in late.values() for it in each]
        every = [*periods, *(it.period for it in closed)]
        made = self._make(cut_id=cut_id)
        gathered = self._gathering.gather(every, cut_id=cut_id)
        by_key = {key_of(it): each for it, each in zip(every, gathered, strict=True)}
        lines = self._outstanding.lines(every, gathered)
        charges = self._outstanding.charges(periods, closed)
        replaced = self.ledger.replaceable([key_of(it) for it in periods])
        drafts = []
        for period in periods:
            key = key_of(period)
            energy = self._find_energy(period, by_key[key].rating, consumption=consumption)
            own = made
            if energy is not None or key in replaced:
                own = replace(made, energy=energy, replaces=replaced.get(key, ""))
            arrears = [
                Arrears(
                    period=it.period,
                    lines=_without_free(lines[key_of(it.period)]),
                    charges=tuple(charges.get(key_of(it.period), ())),
                )
                for it in late.get(key, ())
            ]
            unpriced = [by_key[key_of(it.period)].rating.unpriced for it in arrears]
            invoice = self._draft(
                period,
                lines[key],
                made=own,
                gathered=by_key[key],
                arrears=arrears,
                charges=charges.get(key, ()),
            )
            drafts.append(
                Draft(
                    period=period,
                    invoice=_with_unpriced(invoice, unpriced),
                    settled=tuple(map(self._settled, (period, *(it.period for it in arrears)))),
                )
            )
        return drafts

    def draft_whole(
        self, periods: Sequence[BillingPeriod], *, cut_id: int | None, consumption: Consumption
    ) -> list[Invoice]:
        """Return what periods come to, whatever was billed for them and before them."""
        made = self._make(cut_id=cut_id)
        gathered = self._gathering.gather(periods, cut_id=cut_id)
        borne: dict[str, list[BilledCharge]] = defaultdict(list)
        by_time = sorted(periods, key=lambda it: it.span.start_ms)
        charges = {key_of(it): bear(it, borne[it.version.contract]) for it in by_time}
        return [
            self._draft(
                period,
                find_left(each.rating.lines, (), currency=period.version.currency),
                made=replace(
                    made, energy=self._find_energy(period, each.rating, consumption=consumption)
                ),
                gathered=each,
                charges=charges[key_of(period)],
            )
            for period, each in zip(periods, gathered, strict=True)
        ]

    def difference(self, period: BillingPeriod, *, cut_id: int | None) -> Draft:
        """Return what a closed period has left over; see `differences`."""
        return self.differences([period], cut_id=cut_id)[0]

    def differences(self, periods: Sequence[BillingPeriod], *, cut_id: int | None) -> list[Draft]:
        """Return what closed periods come to less what was billed for them, as documents.

        They are supplementary invoices, or credit notes where they come to less than nothing;
        all lines are adjustments. One without lines and charges has nothing left over.
        """
        made = self._make(cut_id=cut_id)
        gathered = self._gathering.gather(periods, cut_id=cut_id)
        lines = self._outstanding.lines(periods, gathered)
        charges = self._outstanding.charges((), self._outstanding.stored(periods))
        drafts = []
        for period, each in zip(periods, gathered, strict=True):
            arrears = Arrears(
                period=period,
                lines=_without_free(lines[key_of(period)]),
                charges=tuple(charges.get(key_of(period), ())),
            )
            invoice = self._draft(period, (), made=made, gathered=each, arrears=[arrears])
            if invoice.kind is DocumentKind.INVOICE:
                invoice = replace(invoice, kind=DocumentKind.SUPPLEMENTARY_INVOICE)
            drafts.append(Draft(period=period, invoice=invoice, settled=(self._settled(period),)))
        return drafts

    def accounts(self, period: BillingPeriod) -> frozenset[str]:
        """Return all accounts that may have usage that a period bills, and maybe some more."""
        return self._gathering.accounts(period)

    def left_over(self, closed: Sequence[StoredPeriod]) -> list[Draft]:
        """Return what closed periods come to beyond what was billed, of those with any of it."""
        moved = self._outstanding.moved(closed)
        periods = [
            as_billed(it, self.terms.contracts)
            for it in closed
            if PeriodKey(it.contract, it.span.start_ms) in moved
        ]
        if not periods:
            return []
        drafts = self.differences(periods, cut_id=None)
        return [it for it in drafts if it.invoice.lines or it.invoice.charges]

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

    def _make(self, *, cut_id: int | None) -> Made:
        return Made(
            cut_id=cut_id,
            # Read before the usage is: what is counted meanwhile makes drafts newer than they say.
            counted_until_ms=self._facts.counted_until_ms(),
            is_sandbox=self._is_sandbox,
        )

    def _draft(
        self,
        period: BillingPeriod,
        lines: Sequence[LeftLine],
        *,
        made: Made,
        gathered: Gathered,
        arrears: Sequence[Arrears] = (),
        charges: Sequence[Charge] = (),
    ) -> Invoice:
        """Return a draft with groups in the order of their paths, and all that it was made by."""
        # Of what nothing is borne, no file is named either: whoever makes it again sees the same.
        arrears = [it for it in arrears if it.lines or it.charges]
        groups = self._groups(period, [*lines, *chain(*(it.lines for it in arrears))])
        places = {it.account_id: place for place, it in enumerate(groups)}
        files = chain(*(self._outstanding.files(it.period) for it in arrears))
        return draft(
            period,
            _sorted(lines, places),
            made=replace(
                made,
                groups=groups,
                usage_sha256=gathered.usage_sha256,
                terms=tuple(dict.fromkeys((*self._outstanding.files(period), *files))),
            ),
            unpriced=gathered.rating.unpriced,
            arrears=[replace(it, lines=tuple(_sorted(it.lines, places))) for it in arrears],
            charges=charges,
        )

    def _groups(self, period: BillingPeriod, lines: Sequence[LeftLine]) -> tuple[Group, ...]:
        """Return the groups of lines by the path that each had at the period's end."""
        # The end is the next period's: who moves then has moved.
        last_ms = period.span.end_ms - 1
        found = {it.key.group for it in lines if it.key.group}
        groups = (Group(account_id=it, path=self.tree.path(it, at_ms=last_ms)) for it in found)
        return tuple(sorted(groups, key=lambda it: (it.path, it.account_id)))

    def _settled(self, period: BillingPeriod) -> Settled:
        return Settled(
            contract=period.version.contract,
            start_ms=period.span.start_ms,
            terms=self._outstanding.digest(period),
        )

    def _find_energy(
        self, period: BillingPeriod, rating: Rating, *, consumption: Consumption
    ) -> InvoiceEnergy | None:
        boundary = period.version.energy
        if boundary is None:
            return None
        tokens: Sequence[RatedLine | Unpriced] = (*rating.lines, *rating.unpriced)
        return find_energy(
            _Consumed(
                consumption,
                span=period.span,
                accounts=self._gathering.accounts(period),
                is_billed=self.coverage.is_billed_under(period.version.contract),
            ),
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


@dataclass(frozen=True, slots=True)
class _Consumed:
    """The energy of what a period bills."""

    consumption: Consumption
    _: KW_ONLY
    span: Span
    accounts: frozenset[str]
    is_billed: Callable[[Placed], bool]

    def facts(self, boundary: Boundary) -> Iterator[EnergyFact]:
        """Yield what is billed of boards or hosts."""
        found = self.consumption.energy(
            account_ids=self.accounts,
            start_ms=self.span.start_ms,
            end_ms=self.span.end_ms,
            boundary=boundary,
        )
        return filter(self.is_billed, found)

    def pues(self) -> Mapping[str, SitePue]:
        """Return the PUE by pool over the period, of the sites whose PUE is known."""
        return self.consumption.pues(start_ms=self.span.start_ms, end_ms=self.span.end_ms)


def _with_unpriced(invoice: Invoice, others: Sequence[tuple[Unpriced, ...]]) -> Invoice:
    """Return a draft that also tells what has no price of the periods whose arrears it bears."""
    if not any(others):
        return invoice
    return replace(invoice, unpriced=tuple(chain(invoice.unpriced, *others)))


def _without_free(lines: Sequence[LeftLine]) -> tuple[LeftLine, ...]:
    """Return adjustments without those that move no money: of what is free."""
    return tuple(it for it in lines if it.exact or it.billed)


def _sorted(lines: Sequence[LeftLine], places: Mapping[str, int]) -> list[LeftLine]:
    return sorted(lines, key=lambda it: (places.get(it.key.group, 0), it.key))
