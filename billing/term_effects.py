"""What other terms would change: the same usage, priced by both, period by period.

Only periods that have begun are looked at, and only those of contracts that a change can touch.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from billing.calendar import lay_out
from billing.charging import BilledCharge, due_charges
from billing.contracts import BillingPeriod, ContractVersion
from billing.coverage import Coverage
from billing.gathering import Gathering
from billing.ledger import Ledger, PeriodKey
from billing.money import Currency, add_up, amount_of, multiply, round_half_up, subtract
from billing.periods import Month, Span
from billing.ports import PeriodState, StoredPeriod, Terms
from billing.price_book import PriceBook
from meter.domain.account import AccountTree
from meter.domain.clock import Clock
from meter.domain.interval import INTERVAL_MS
from meter.usage import UsageFacts, UsageSums

# Periods that are asked for at once.
_BATCH: Final = 500
# Charges of a month are looked for from before its begin.
_MONTH_MS: Final = 32 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsEffect:
    """What terms change in a month of a contract: sums of rounded lines, without taxes.

    `before` is by the terms as they are, or where `is_closed` what was billed. `numbers` are the
    newest documents of closed periods that come to another amount by these terms. So many tokens
    would have no price.
    """

    contract: str
    account_id: str
    month: Month
    currency: Currency
    before: Decimal
    after: Decimal
    is_closed: bool
    unpriced_tokens: int
    numbers: tuple[str, ...] = ()

    @property
    def difference(self) -> Decimal:
        """What would be billed beyond what it is now."""
        return subtract(self.after, self.before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """Which contracts a change of terms may touch, and in which time, all of it begun."""

    contracts: frozenset[str]
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What a period comes to: lines and charges, rounded, and the tokens without a price."""

    period: BillingPeriod
    net: Decimal
    unpriced_tokens: int
    has_usage: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TermEffects:
    """The question, over what it needs."""

    tree: Callable[[], AccountTree]
    facts: UsageFacts
    sums: UsageSums
    ledger: Ledger
    clock: Clock

    def of_book(self, after: Terms, book: PriceBook) -> Touched | None:
        """Return what a version of a book may touch; None: it has not begun, or nobody has it."""
        later = [it.start_ms for it in after.books.versions(book.book)]
        span = self._begun(book.start_ms, [it for it in later if it > book.start_ms])
        if span is None:
            return None
        meant = {
            it.contract
            for it in after.contracts
            if it.book == book.book and span.meet(it.start_ms, it.end_ms) is not None
        }
        return Touched(contracts=frozenset(meant), span=span) if meant else None

    def of_contract(self, before: Terms, after: Terms, version: ContractVersion) -> Touched | None:
        """Return what a version of a contract may touch; None: it has not begun.

        That is its own contract, and those further up, one of which bills what it does not.
        """
        later = [it.start_ms for it in after.contracts.versions(version.contract)]
        span = self._begun(version.start_ms, [it for it in later if it > version.start_ms])
        if span is None:
            return None
        was = [it for it in before.contracts.versions(version.contract) if _meets(it, span)]
        above = _ever_above(self.tree(), {it for each in (version, *was) for it in each.covers})
        others = (
            it.contract
            for terms in (before, after)
            for it in terms.contracts.among(above)
            if _meets(it, span)
        )
        return Touched(contracts=frozenset({version.contract, *others}), span=span)

    def find(self, before: Terms, after: Terms, touched: Touched | None) -> tuple[TermsEffect, ...]:
        """Return what changes, by contract and month; only where another amount comes of it."""
        if touched is None:
            return ()
        closed = self.ledger.closed_periods(touched.contracts)
        old, new = (self._amounts(it, touched, closed) for it in (before, after))
        closed_keys = {
            PeriodKey(it.contract, it.span.start_ms) for each in closed.values() for it in each
        }
        # Of a closed period nothing but the terms is told: what came late is the next invoice's.
        moved = [
            key for key in sorted({*old, *new}) if _worth(old.get(key)) != _worth(new.get(key))
        ]
        billed = self.ledger.billed([it for it in moved if it in closed_keys])
        numbers = self.ledger.numbers([it for it in moved if it in closed_keys])
        found = join(
            _effect(
                new.get(key) or old[key],
                before=add_up(it.billed for it in billed.get(key, ()))
                if key in closed_keys
                else _worth(old.get(key))[0],
                worth=_worth(new.get(key)),
                is_closed=key in closed_keys,
                number=numbers.get(key, ""),
            )
            for key in moved
        )
        # In another zone a month has other periods, which may come to the same all the same.
        return tuple(it for it in found if it.difference or it.numbers or it.unpriced_tokens)

    def closed_periods(self, touched: Touched | None) -> Mapping[str, Sequence[StoredPeriod]]:
        """Return the closed periods of all contracts that are touched: what a look depends on."""
        return {} if touched is None else self.ledger.closed_periods(touched.contracts)

    def amounts(self, terms: Terms, periods: Sequence[BillingPeriod]) -> list[Amount]:
        """Return what the usage of periods comes to, whatever was billed for them."""
        gathering = self._gathering(terms, {it.version.contract for it in periods})
        found = []
        for first in range(0, len(periods), _BATCH):
            batch = periods[first : first + _BATCH]
            for period, gathered in zip(batch, gathering.gather(batch, cut_id=None), strict=True):
                currency = period.version.currency
                amounts = (
                    amount_of(it.token_count, unit_price=it.price.unit_price)
                    for it in gathered.rating.lines
                )
                found.append(
                    Amount(
                        period=period,
                        net=add_up(round_half_up(it, currency) for it in amounts),
                        unpriced_tokens=sum(it.token_count for it in gathered.rating.unpriced),
                        has_usage=bool(gathered.rating.lines or gathered.rating.unpriced),
                    )
                )
        return found

    def _amounts(
        self, terms: Terms, touched: Touched, closed: Mapping[str, Sequence[StoredPeriod]]
    ) -> Mapping[PeriodKey, Amount]:
        """Return what the periods come to that have begun and that a change may touch."""
        charges = self.ledger.billed_charges(
            touched.contracts, since_ms=touched.span.start_ms - _MONTH_MS
        )
        periods: list[BillingPeriod] = []
        extra: dict[PeriodKey, Decimal] = {}
        for contract in sorted(touched.contracts):
            versions = terms.contracts.versions(contract)
            if not versions:
                continue
            stored = closed.get(contract, ())
            now_ms = self.clock.now_ms()
            layout = lay_out(versions, stored, now_ms=now_ms, tzdata="")
            every = sorted((*stored, *layout.opened), key=lambda it: it.span.start_ms)
            borne = list(charges.get(contract, ()))
            for it in every:
                period = BillingPeriod(
                    version=_version_of(it, versions), month=it.month, span=it.span
                )
                if it.state is PeriodState.OPEN:
                    extra[_key(period)] = _bear(period, borne)
                if it.span.meet(touched.span.start_ms, touched.span.end_ms) is not None:
                    periods.append(period)
        return {
            _key(it.period): replace(it, net=add_up((it.net, extra.get(_key(it.period), _ZERO))))
            for it in self.amounts(terms, periods)
        }

    def _gathering(self, terms: Terms, contracts: Collection[str]) -> Gathering:
        """Return what reads usage, by no more contracts than can bill any of it."""
        tree = self.tree()
        roots = {
            account_id
            for contract in contracts
            for version in terms.contracts.versions(contract)
            for account_id in version.covers
        }
        below = frozenset[str]().union(*(tree.ever_below(it) for it in roots))
        near = replace(terms, contracts=terms.contracts.among(below))
        coverage = Coverage(near.contracts, tree)
        return Gathering(near, tree, coverage, facts=self.facts, sums=self.sums)

    def _begun(self, start_ms: int, later: Iterable[int]) -> Span | None:
        """Return the time from an instant to the next of some later ones, as far as it is past."""
        now_ms = self.clock.now_ms()
        # The end of the interval that is now: usage of it is counted already.
        end_ms = min([*later, now_ms - now_ms % INTERVAL_MS + INTERVAL_MS])
        return Span(start_ms=start_ms, end_ms=end_ms) if start_ms < min(end_ms, now_ms) else None


_ZERO: Final = Decimal(0)


def join(effects: Iterable[TermsEffect]) -> tuple[TermsEffect, ...]:
    """Return effects added up by contract, month and whether it is closed, in this order."""
    sums: dict[tuple[str, Month, bool], TermsEffect] = {}
    for it in effects:
        key = (it.contract, it.month, it.is_closed)
        known = sums.get(key)
        if known is not None:
            it = replace(  # noqa: PLW2901
                known,
                before=add_up((known.before, it.before)),
                after=add_up((known.after, it.after)),
                unpriced_tokens=known.unpriced_tokens + it.unpriced_tokens,
                numbers=(*known.numbers, *it.numbers),
            )
        sums[key] = it
    return tuple(sums[key] for key in sorted(sums))


def _worth(amount: Amount | None) -> tuple[Decimal, int]:
    """Return what a period comes to, and how many tokens have no price; nothing where it is not."""
    return (_ZERO, 0) if amount is None else (amount.net, amount.unpriced_tokens)


def _effect(
    amount: Amount, *, before: Decimal, worth: tuple[Decimal, int], is_closed: bool, number: str
) -> TermsEffect:
    version = amount.period.version
    after, unpriced_tokens = worth
    return TermsEffect(
        contract=version.contract,
        account_id=version.covers[0],
        month=amount.period.month,
        currency=version.currency,
        before=before,
        after=after,
        is_closed=is_closed,
        unpriced_tokens=unpriced_tokens,
        numbers=(number,) if number else (),
    )


def _ever_above(tree: AccountTree, account_ids: Iterable[str]) -> frozenset[str]:
    """Return accounts, and all that they were ever below."""
    found: set[str] = set()
    open_ids = list(account_ids)
    while open_ids:
        each = open_ids.pop()
        if each not in found:
            found.add(each)
            parents = (edge.parent_id for edge in tree.get(each).parents)
            open_ids += [it for it in parents if it is not None]
    return frozenset(found)


def _key(period: BillingPeriod) -> PeriodKey:
    return PeriodKey(period.version.contract, period.span.start_ms)


def _meets(version: ContractVersion, span: Span) -> bool:
    return span.meet(version.start_ms, version.end_ms) is not None


def _version_of(period: StoredPeriod, versions: Sequence[ContractVersion]) -> ContractVersion:
    """Return the version that a period is of, whose time may be another by now."""
    own = (it for it in versions if it.start_ms == period.version_start_ms)
    then = (it for it in versions if it.holds_at(period.span.start_ms))
    return next(own, None) or next(then, None) or versions[-1]


def _bear(period: BillingPeriod, borne: list[BilledCharge]) -> Decimal:
    """Return what the charges of an open period come to, and note that it bears them."""
    due = due_charges(period, borne)
    borne += [BilledCharge(it.charge_id, period.span.start_ms) for it in due]
    currency = period.version.currency
    return add_up(round_half_up(multiply(it.quantity, it.unit_price), currency) for it in due)
