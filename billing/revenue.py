"""What usage comes to, by tier: for ratios of money and power, and as it is counted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.contracts import ContractVersion
from billing.coverage import Coverage
from billing.metrics import BillingMetrics
from billing.money import ZERO, add_up, amount_of
from billing.periods import Span
from billing.ports import Terms, TermsStore
from billing.rating import Rater, key_of
from meter.domain.account import AccountTree
from meter.usage import CountedRow, UsageFact, UsageFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Revenue:
    """What a tier's tokens come to in one currency: exact, by contract prices, not rounded."""

    tier: str
    currency: str
    amount: Decimal


class Pricing:
    """Prices facts under whatever contract bills each, by the terms and the tree of one moment."""

    def __init__(self, terms: Terms, tree: AccountTree) -> None:
        """Take the terms and the accounts."""
        self._terms = terms
        self._coverage = Coverage(terms.contracts, tree)
        self._raters: dict[tuple[str, int], Rater] = {}

    def amount(self, fact: UsageFact) -> tuple[ContractVersion | None, Decimal, int]:
        """Return the contract that bills a fact, the exact amount, and its tokens without price."""
        version = self._coverage.find(fact.account_id, fact.interval_start_ms)
        if version is None:
            return None, ZERO, sum(fact.tokens.values())
        key = (version.contract, version.start_ms)
        if key not in self._raters:
            self._raters[key] = Rater(version, self._terms.books)
        rater, model = self._raters[key], version.sold_model(fact.model, fact.served_model)
        amounts, unpriced = [], 0
        for token_class, count in fact.tokens.items():
            price = rater.find_price(key_of(fact, model=model, token_class=token_class))
            if price is None:
                unpriced += count
            else:
                amounts.append(amount_of(count, unit_price=price.unit_price))
        return version, add_up(amounts), unpriced


def revenue_by_tier(pricing: Pricing, facts: UsageFacts, span: Span) -> Sequence[Revenue]:
    """Return what all usage of a span comes to, by tier and currency."""
    accounts = facts.accounts_with_usage(start_ms=span.start_ms, end_ms=span.end_ms)
    sums: dict[tuple[str, str], list[Decimal]] = defaultdict(list)
    for fact in facts.facts(
        account_ids=accounts, start_ms=span.start_ms, end_ms=span.end_ms, cut_id=None
    ):
        version, amount, _ = pricing.amount(fact)
        if version is not None:
            sums[fact.tier, version.currency.code].append(amount)
    return [
        Revenue(tier=tier, currency=currency, amount=add_up(amounts))
        for (tier, currency), amounts in sorted(sums.items())
    ]


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
        pricing = self._pricing()
        earned: dict[tuple[str, str, str], list[Decimal]] = defaultdict(list)
        unpriced: Counter[tuple[str, str]] = Counter()
        for row in rows:
            version, amount, missing = pricing.amount(row.fact)
            if version is not None:
                earned[version.currency.code, row.fact.tier, row.pool].append(amount)
            if missing:
                unpriced[row.fact.tier, row.fact.model] += missing
        for (currency, tier, pool), amounts in earned.items():
            self._metrics.earned(add_up(amounts), currency=currency, tier=tier, pool=pool)
        for (tier, model), count in unpriced.items():
            self._metrics.unpriced(count, tier=tier, model=model)

    def _pricing(self) -> Pricing:
        terms, tree = self._terms.load(), self._tree()
        if self._known is None or self._known[0] is not terms or self._known[1] is not tree:
            self._known = (terms, tree, Pricing(terms, tree))
        return self._known[2]
