"""What usage comes to, by tier: for ratios of money and power, and as it is counted."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

import numpy as np

from billing.contracts import ContractVersion
from billing.coverage import Coverage
from billing.customers import TopCustomers
from billing.metrics import BillingMetrics
from billing.money import add_up, amount_of
from billing.periods import Span
from billing.ports import Terms, TermsStore
from billing.price_book import PriceKey
from billing.rating import Rater, key_of
from meter.counted import Counted, Grouping
from meter.domain.account import AccountTree
from meter.domain.event import Dimensions
from meter.domain.tokens import BAND_EDGES, Mode
from meter.usage import UsageFacts

_BANDS: Final = len(BAND_EDGES) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Revenue:
    """What a tier's tokens come to in one currency: exact, by contract prices, not rounded.

    `pool` is empty unless they are told apart by it, and of tokens that no named pool served.
    """

    tier: str
    currency: str
    amount: Decimal
    pool: str = ""


class Pricing:
    """Prices tokens under whatever contract bills them, by the terms and the tree of one moment."""

    def __init__(self, terms: Terms, tree: AccountTree) -> None:
        """Take the terms and the accounts."""
        self._terms = terms
        self._coverage = Coverage(terms.contracts, tree)
        self._raters: dict[object, Rater] = {}

    def phase(self, at_ms: int) -> int:
        """Return in which span of time an instant lies; within one, contracts bill alike."""
        return self._coverage.phase(at_ms)

    def find_rater(self, account_id: str, at_ms: int) -> tuple[ContractVersion, Rater] | None:
        """Return the contract that bills an account at an instant, and what prices under it.

        Contracts without terms of their own share what their book's prices were found to be.
        """
        version = self._coverage.find(account_id, at_ms)
        if version is None:
            return None
        key: object = version.book
        if version.overrides:
            key = (version.contract, version.start_ms)
        if key not in self._raters:
            self._raters[key] = Rater(version, self._terms.books)
        return version, self._raters[key]


def revenue_by_tier(pricing: Pricing, facts: UsageFacts, span: Span) -> Sequence[Revenue]:
    """Return what all usage of a span comes to, by tier and currency."""
    accounts = facts.accounts_with_usage(start_ms=span.start_ms, end_ms=span.end_ms)
    sums: dict[tuple[str, str], list[Decimal]] = defaultdict(list)
    for fact in facts.facts(
        account_ids=accounts, start_ms=span.start_ms, end_ms=span.end_ms, cut_id=None
    ):
        found = pricing.find_rater(fact.account_id, fact.interval_start_ms)
        if found is None:
            continue
        version, rater = found
        model = version.sold_model(fact.model, fact.served_model)
        for token_class, count in fact.tokens.items():
            price = rater.find_price(key_of(fact, model=model, token_class=token_class))
            if price is not None:
                amount = amount_of(count, unit_price=price.unit_price)
                sums[fact.tier, version.currency.code].append(amount)
    return [
        Revenue(tier=tier, currency=currency, amount=add_up(amounts))
        for (tier, currency), amounts in sorted(sums.items())
    ]


class _Sold(NamedTuple):
    """What tokens are added up by before they are priced; no rater: no contract bills them.

    `is_listed` says that the price is the book's own. The customer is the contract, or "" where
    nobody asks.
    """

    rater: Rater | None
    is_listed: bool
    customer: str
    currency: str
    pool: str
    model: str
    tier: str
    mode: int


class RevenueMeter:
    """Hears what was counted, and notes what it comes to."""

    def __init__(
        self,
        terms: TermsStore,
        *,
        tree: Callable[[], AccountTree],
        metrics: BillingMetrics,
        customers: TopCustomers | None = None,
    ) -> None:
        """Take the terms, the accounts as last known, and where amounts are noted.

        `customers` hears who took what; None: nobody does.
        """
        self._terms = terms
        self._tree = tree
        self._metrics = metrics
        self._customers = customers
        self._known: tuple[Terms, AccountTree, Pricing] | None = None
        # Who bills a dimension may change from one phase of the contracts to the next.
        self._groupings: dict[int, Grouping[_Sold]] = {}

    def counted(self, counted: Counted) -> None:
        """Note the amounts of a round of counting; raises Unavailable."""
        pricing = self._pricing()
        for start_ms in np.unique(counted.interval_start_ms).tolist():
            self._note(counted.of_interval(start_ms), pricing=pricing, start_ms=start_ms)

    def _note(self, counted: Counted, *, pricing: Pricing, start_ms: int) -> None:
        """Price the rows of one interval, added up by all that their price depends on."""
        grouping = self._grouping(pricing, start_ms)
        groups = grouping.numbers(counted) * _BANDS + counted.band
        for group, token_class, count in counted.totals_by(groups):
            number, band = divmod(group, _BANDS)
            sold = grouping.keys[number]
            if self._customers is not None:
                self._customers.add(count, customer=sold.customer, tier=sold.tier)
            price = None
            if sold.rater is not None:
                key = PriceKey(
                    model=sold.model,
                    tier=sold.tier,
                    mode=Mode(sold.mode),
                    token_class=token_class,
                    band=band,
                    at_ms=start_ms,
                )
                price = sold.rater.find_price(key)
            if price is None:
                self._metrics.unpriced(count, tier=sold.tier, model=sold.model)
                continue
            amount = amount_of(count, unit_price=price.unit_price)
            self._metrics.earned(amount, currency=sold.currency, tier=sold.tier, pool=sold.pool)
            if sold.is_listed and band == 0:
                self._metrics.priced(
                    price.unit_price,
                    currency=sold.currency,
                    tier=sold.tier,
                    model=sold.model,
                    token_class=token_class.name,
                )

    def _grouping(self, pricing: Pricing, start_ms: int) -> Grouping[_Sold]:
        phase = pricing.phase(start_ms)
        if phase not in self._groupings:

            def sold_of(of: Dimensions) -> _Sold:
                found = pricing.find_rater(of.account, start_ms)
                if found is None:
                    return _Sold(
                        rater=None,
                        is_listed=False,
                        customer="",
                        currency="",
                        pool=of.pool,
                        model=of.model,
                        tier=of.tier,
                        mode=of.mode,
                    )
                version, rater = found
                return _Sold(
                    rater=rater,
                    is_listed=not version.overrides and of.mode == Mode.ONLINE,
                    customer="" if self._customers is None else version.contract,
                    currency=version.currency.code,
                    pool=of.pool,
                    model=version.sold_model(of.model, of.served_model or of.model),
                    tier=of.tier,
                    mode=of.mode,
                )

            self._groupings[phase] = Grouping(sold_of)
        return self._groupings[phase]

    def _pricing(self) -> Pricing:
        terms, tree = self._terms.load(), self._tree()
        if self._known is None or self._known[0] is not terms or self._known[1] is not tree:
            self._known = (terms, tree, Pricing(terms, tree))
            self._groupings = {}
        return self._known[2]
