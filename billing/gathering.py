"""The usage of many periods, by few questions: added up between the instants that matter, priced.

Usage of a contract in a period is billed there, whichever version of the contract is in force.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from billing.contracts import BillingPeriod, ContractVersion
from billing.coverage import Coverage
from billing.ports import Terms
from billing.price_edges import price_edges
from billing.rating import Rater, Rating, Tally, Unpriced
from billing.usage_hash import usage_sha256
from meter.domain.account import AccountTree
from meter.usage import UsageFact, UsageFacts, UsageSums


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """All usage of a period: what it comes to, and its hash (see `billing.usage_hash`)."""

    rating: Rating
    usage_sha256: str


@dataclass(slots=True)
class _Pile:
    """What was read of a period."""

    tally: Tally = field(default_factory=Tally)
    facts: list[UsageFact] = field(default_factory=list)


class Gathering:
    """Reads and prices usage by the terms and the tree of one moment."""

    def __init__(
        self,
        terms: Terms,
        tree: AccountTree,
        coverage: Coverage,
        *,
        facts: UsageFacts,
        sums: UsageSums,
    ) -> None:
        """Take what prices depend on, and what reads usage."""
        self._terms = terms
        self._tree = tree
        self._coverage = coverage
        self._facts = facts
        self._sums = sums
        self._raters: dict[object, Rater] = {}
        self._below: dict[str, frozenset[str]] = {}

    def gather(self, periods: Sequence[BillingPeriod], *, cut_id: int | None) -> Sequence[Gathered]:
        """Return the usage of each period, at or below a cut (None: all that is counted)."""
        piles = [_Pile() for _ in periods]
        for edges_ms, places in self._alike(periods).items():
            accounts = {it for place in places for it in self.accounts(periods[place])}
            by_contract = {periods[it].version.contract: piles[it] for it in places}
            assert len(by_contract) == len(places), "periods of a contract do not meet"
            for fact in self._sums.sums(
                account_ids=sorted(accounts), edges_ms=edges_ms, cut_id=cut_id
            ):
                version = self._coverage.find(fact.account_id, fact.interval_start_ms)
                pile = None if version is None else by_contract.get(version.contract)
                if version is not None and pile is not None:
                    self._add(pile.tally, fact, version=version)
                    pile.facts.append(fact)
        return [
            Gathered(
                rating=self._with_first(period, pile.tally.rating(), cut_id=cut_id),
                usage_sha256=usage_sha256(pile.facts),
            )
            for period, pile in zip(periods, piles, strict=True)
        ]

    def facts(self, period: BillingPeriod, *, cut_id: int | None) -> Iterator[UsageFact]:
        """Yield the usage that a period bills, at or below a cut (None: all that is counted)."""
        span = period.span
        found = self._facts.facts(
            account_ids=self.accounts(period),
            start_ms=span.start_ms,
            end_ms=span.end_ms,
            cut_id=cut_id,
        )
        return filter(self._coverage.is_billed_under(period.version.contract), found)

    def accounts(self, period: BillingPeriod) -> frozenset[str]:
        """Return all accounts that may have usage that the period bills, and maybe some more."""
        covers = {it for version in self.versions(period) for it in version.covers}
        for it in covers:
            if it not in self._below:
                self._below[it] = self._tree.ever_below(it)
        if len(covers) == 1:
            return self._below[covers.pop()]
        return frozenset[str]().union(*(self._below[it] for it in covers))

    def versions(self, period: BillingPeriod) -> list[ContractVersion]:
        """Return the versions of a period's contract that are in force in it, by time."""
        known = self._terms.contracts.versions(period.version.contract)
        span = period.span
        return [it for it in known if span.meet(it.start_ms, it.end_ms) is not None]

    def rater(self, version: ContractVersion) -> Rater:
        """Return what prices under a version; contracts without own terms share their book's."""
        key: object = version.book
        if version.overrides:
            key = (version.contract, version.start_ms)
        if key not in self._raters:
            self._raters[key] = Rater(version, self._terms.books)
        return self._raters[key]

    def _add(self, tally: Tally, fact: UsageFact, *, version: ContractVersion) -> None:
        group = ""
        if version.by_account:
            group = group_of(
                self._tree, version, account_id=fact.account_id, at_ms=fact.interval_start_ms
            )
        tally.add(fact, version=version, rater=self.rater(version), group=group)

    def _alike(self, periods: Sequence[BillingPeriod]) -> Mapping[tuple[int, ...], list[int]]:
        """Return which periods, by place, can be read by one question: those of equal edges."""
        found: dict[tuple[int, ...], list[int]] = {}
        for place, period in enumerate(periods):
            found.setdefault(self._edges(period), []).append(place)
        return found

    def _edges(self, period: BillingPeriod) -> tuple[int, ...]:
        span = period.span
        edges = {span.start_ms, span.end_ms}
        for account_id in self.accounts(period):
            edges.update(it for it in self._coverage.changes(account_id) if span.holds(it))
        for version in self.versions(period):
            edges.update(price_edges(self._terms.books, version.book, span))
        return tuple(sorted(edges))

    def _with_first(self, period: BillingPeriod, rating: Rating, *, cut_id: int | None) -> Rating:
        """Return a rating whose unpriced keys name the very interval of their first use."""
        if not rating.unpriced:
            return rating
        tally = Tally()
        for fact in self.facts(period, cut_id=cut_id):
            version = self._coverage.find(fact.account_id, fact.interval_start_ms)
            assert version is not None, "it was found for this contract"
            self._add(tally, fact, version=version)
        first_ms = {_place(it): it.first_ms for it in tally.rating().unpriced}
        unpriced = (
            replace(it, first_ms=first_ms.get(_place(it), it.first_ms)) for it in rating.unpriced
        )
        return replace(rating, unpriced=tuple(unpriced))


def group_of(tree: AccountTree, version: ContractVersion, *, account_id: str, at_ms: int) -> str:
    """Return the account right below the covered one on an account's path, or that one itself."""
    below = account_id
    for account in tree.ancestry(account_id, at_ms=at_ms):
        if account.account_id in version.covers:
            return below
        below = account.account_id
    raise AssertionError("what a version bills is below what it covers")


def _place(it: Unpriced) -> tuple[object, ...]:
    return it.model, it.tier, it.mode, it.token_class, it.band
