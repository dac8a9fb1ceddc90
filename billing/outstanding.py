"""What is left to bill of periods: which closed ones have to be looked at, lines, and charges."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from billing.calendar import as_billed
from billing.charges import Charge
from billing.charging import BilledCharge, due_charges
from billing.contracts import BillingPeriod
from billing.difference import LeftLine, find_left
from billing.gathering import Gathered, Gathering
from billing.invoicing import TermsFile, digest_of
from billing.ledger import Ledger, PeriodKey
from billing.periods import Span, month_start_ms
from billing.ports import StoredPeriod, Terms
from meter.usage import UsageSums

# What became of a closed period whose charges may not be billed yet.
_CARRIED: Final = "carried"
# Periods whose files are known at a time: those of a batch, which are asked for more than once.
_FILES_MAX: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """A closed period that is looked at again, and what became of it when it was closed."""

    period: BillingPeriod
    outcome: str


class Outstanding:
    """Finds what is left to bill, by the terms and the documents of one moment."""

    def __init__(
        self, terms: Terms, gathering: Gathering, *, ledger: Ledger, sums: UsageSums
    ) -> None:
        """Take what prices and reads usage, and what knows documents."""
        self._terms = terms
        self._gathering = gathering
        self._ledger = ledger
        self._sums = sums
        self._digests: dict[PeriodKey, bytes] = {}
        self._files: dict[PeriodKey, tuple[TermsFile, ...]] = {}

    def late(self, periods: Sequence[BillingPeriod]) -> Mapping[PeriodKey, Sequence[Late]]:
        """Return the closed periods before each that have to be looked at, if any, by time.

        They are those with usage behind the cut up to which they are settled, or priced by other
        files than then. Of several periods of one contract, only the first has any, and only in
        its own currency; one in which its contract is not in force has none.
        """
        firsts: dict[str, BillingPeriod] = {}
        in_force = (it for it in periods if it.is_in_force)
        for period in sorted(in_force, key=lambda it: it.span.start_ms):
            firsts.setdefault(period.version.contract, period)
        stored = self._ledger.closed_periods(firsts)
        earlier = {
            key_of(first): [
                it for it in stored.get(contract, ()) if it.span.start_ms < first.span.start_ms
            ]
            for contract, first in firsts.items()
        }
        moved = self.moved([it for each in earlier.values() for it in each])
        found: dict[PeriodKey, list[Late]] = {}
        for key, each in earlier.items():
            late = [
                Late(period=as_billed(it, self._terms.contracts), outcome=it.outcome)
                for it in each
                if _stored_key(it) in moved
            ]
            currency = firsts[key.contract].version.currency
            found[key] = [it for it in late if it.period.version.currency == currency]
        return found

    def stored(self, periods: Sequence[BillingPeriod]) -> Sequence[Late]:
        """Return those of these periods that are closed, as such."""
        wanted = {key_of(it) for it in periods}
        closed = self._ledger.closed_periods({it.contract for it in wanted})
        return [
            Late(period=as_billed(it, self._terms.contracts), outcome=it.outcome)
            for each in closed.values()
            for it in each
            if _stored_key(it) in wanted
        ]

    def lines(
        self, periods: Sequence[BillingPeriod], gathered: Sequence[Gathered]
    ) -> Mapping[PeriodKey, tuple[LeftLine, ...]]:
        """Return what is left of each period of all its usage, with prices."""
        billed = self._ledger.billed([key_of(it) for it in periods])
        left = {
            key_of(period): find_left(
                each.rating.lines,
                billed.get(key_of(period), ()),
                currency=period.version.currency,
            )
            for period, each in zip(periods, gathered, strict=True)
        }
        # What was billed at a price that nothing has any more is taken back at that very price.
        gone = {
            (it.first.number, it.first.line)
            for each in left.values()
            for it in each
            if it.price is None and it.first is not None
        }
        prices = self._ledger.prices(gone) if gone else {}
        return {
            key: tuple(
                replace(it, price=prices[it.first.number, it.first.line])
                if it.price is None and it.first is not None
                else it
                for it in each
            )
            for key, each in left.items()
        }

    def charges(
        self, periods: Sequence[BillingPeriod], late: Collection[Late] = ()
    ) -> Mapping[PeriodKey, Sequence[Charge]]:
        """Return the charges that periods bear: their own, and those that were carried forward."""
        carried = [it.period for it in late if it.outcome == _CARRIED]
        every = [it for it in (*carried, *periods) if it.version.charges]
        if not every:
            return {}
        starts = (month_start_ms(it.month, it.version.zone) for it in every)
        billed = self._ledger.billed_charges(
            {it.version.contract for it in every}, since_ms=min(starts)
        )
        borne = defaultdict(list, {contract: list(each) for contract, each in billed.items()})
        return {
            key_of(it): bear(it, borne[it.version.contract])
            for it in sorted(every, key=lambda it: it.span.start_ms)
        }

    def files(self, period: BillingPeriod) -> tuple[TermsFile, ...]:
        """Return the files that a period is priced by, each once."""
        key = key_of(period)
        if key in self._files:
            return self._files[key]
        found: dict[TermsFile, None] = {}
        for version in self._gathering.versions(period):
            span = period.span.meet(version.start_ms, version.end_ms)
            assert span is not None, "a version is in force in its period"
            found.update(dict.fromkeys(self._terms.files(version, span)))
        if len(self._files) >= _FILES_MAX:
            self._files.clear()
        self._files[key] = tuple(found)
        return self._files[key]

    def digest(self, period: BillingPeriod) -> bytes:
        """Return what moves with any of a period's files."""
        key = key_of(period)
        if key not in self._digests:
            self._digests[key] = digest_of(self.files(period))
        return self._digests[key]

    def moved(self, periods: Sequence[StoredPeriod]) -> frozenset[PeriodKey]:
        """Return those of closed periods that may come to something else than what was billed."""
        moved: set[PeriodKey] = set()
        # By span: most contracts of an installation have their months together.
        settled: dict[Span, list[StoredPeriod]] = defaultdict(list)
        for it in periods:
            if it.settled_cut_id is None or it.settled_terms != self.digest(
                as_billed(it, self._terms.contracts)
            ):
                moved.add(_stored_key(it))
            else:
                settled[it.span].append(it)
        for span, each in settled.items():
            accounts = {
                _stored_key(it): self._gathering.accounts(as_billed(it, self._terms.contracts))
                for it in each
            }
            latest = self._sums.latest_cuts(
                account_ids=sorted(frozenset[str]().union(*accounts.values())),
                start_ms=span.start_ms,
                end_ms=span.end_ms,
            )
            for it in each:
                assert it.settled_cut_id is not None, "those without were found before"
                newest = max((latest.get(a, 0) for a in accounts[_stored_key(it)]), default=0)
                if newest > it.settled_cut_id:
                    moved.add(_stored_key(it))
        return frozenset(moved)


def key_of(period: BillingPeriod) -> PeriodKey:
    """Return a period's key."""
    return PeriodKey(period.version.contract, period.span.start_ms)


def bear(period: BillingPeriod, borne: list[BilledCharge]) -> list[Charge]:
    """Return the charges that a period bears, and note that it does."""
    due = due_charges(period, borne)
    borne += [BilledCharge(it.charge_id, period.span.start_ms) for it in due]
    return due


def _stored_key(stored: StoredPeriod) -> PeriodKey:
    return PeriodKey(stored.contract, stored.span.start_ms)
