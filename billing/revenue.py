"""What usage comes to, by tier: for ratios of money and power, and as it is counted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from billing.contracts import ContractVersion
from billing.coverage import Coverage
from billing.metrics import BillingMetrics
from billing.money import add_up, amount_of
from billing.periods import Span
from billing.ports import Terms, TermsStore
from billing.price_book import PriceKey
from billing.rating import Rater, key_of
from meter.domain.account import AccountTree
from meter.domain.tokens import Mode, TokenClass
from meter.usage import CountedRow, UsageFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Revenue:
    """What a tier's tokens come to in one currency: exact, by contract prices, not rounded."""

    tier: str
    currency: str
    amount: Decimal


class Pricing:
    """Prices tokens under whatever contract bills them, by the terms and the tree of one moment."""

    def __init__(self, terms: Terms, tree: AccountTree) -> None:
        """Take the terms and the accounts."""
        self._terms = terms
        self._coverage = Coverage(terms.contracts, tree)
        self._raters: dict[object, Rater] = {}

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
    """What tokens are added up by before they are priced; a tuple, for there are many a second."""

    rater: Rater
    currency: str
    pool: str
    model: str
    tier: str
    mode: int
    token_class: TokenClass
    band: int
    at_ms: int


class RevenueMeter:
    """Hears what was counted, and notes what it comes to."""

    def __init__(
        self, terms: TermsStore, *, tree: Callable[[], AccountTree], metrics: BillingMetrics
    ) -> None:
        """Take the terms, the accounts as last known, and where amounts are noted."""
        self._terms = terms
        self._tree = tree
        self._metrics = metrics
        self._known: tuple[Terms, AccountTree, Pricing] | None = None

    def counted(self, rows: Sequence[CountedRow]) -> None:
        """Note the amounts of a round of counting; raises Unavailable."""
        sums, unpriced = self._add_up(rows)
        earned: dict[tuple[str, str, str], list[Decimal]] = defaultdict(list)
        for sold, count in sums.items():
            key = PriceKey(
                model=sold.model,
                tier=sold.tier,
                mode=Mode(sold.mode),
                token_class=sold.token_class,
                band=sold.band,
                at_ms=sold.at_ms,
            )
            price = sold.rater.find_price(key)
            if price is None:
                unpriced[sold.tier, sold.model] += count
            else:
                amount = amount_of(count, unit_price=price.unit_price)
                earned[sold.currency, sold.tier, sold.pool].append(amount)
        for (currency, tier, pool), amounts in earned.items():
            self._metrics.earned(add_up(amounts), currency=currency, tier=tier, pool=pool)
        for (tier, model), count in unpriced.items():
            self._metrics.unpriced(count, tier=tier, model=model)

    def _add_up(
        self, rows: Sequence[CountedRow]
    ) -> tuple[Counter[_Sold], Counter[tuple[str, str]]]:
        """Return the tokens that contracts bill, by what a price depends on, and the others."""
        pricing = self._pricing()
        sums: Counter[_Sold] = Counter()
        unpriced: Counter[tuple[str, str]] = Counter()
        for of, at_ms, band, tokens in rows:
            found = pricing.find_rater(of.account, at_ms)
            if found is None:
                unpriced[of.tier, of.model] += sum(tokens.values())
                continue
            version, rater = found
            model = version.sold_model(of.model, of.served_model or of.model)
            code, pool, tier, mode = version.currency.code, of.pool, of.tier, of.mode
            for token_class, count in tokens.items():
                sums[_Sold(rater, code, pool, model, tier, mode, token_class, band, at_ms)] += count
        return sums, unpriced

    def _pricing(self) -> Pricing:
        terms, tree = self._terms.load(), self._tree()
        if self._known is None or self._known[0] is not terms or self._known[1] is not tree:
            self._known = (terms, tree, Pricing(terms, tree))
        return self._known[2]
