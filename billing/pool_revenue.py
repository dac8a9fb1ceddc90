"""What usage comes to by the pool that served it: prices know no pools, so amounts are shared out.

Within an interval, an account's tokens of a sku are of three kinds: prompt, cached prompt and
output. What those of a kind come to is shared out by how many of them each pool served.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import IntEnum
from itertools import groupby
from typing import Final, NamedTuple

from billing.money import ZERO, add_up, amount_of, share_out
from billing.periods import Span
from billing.rating import key_of
from billing.revenue import Pricing, Revenue
from meter.consumption import Consumption, PoolTokens
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import CACHED_CLASSES, OUTPUT_CLASSES, Mode, TokenClass
from meter.usage import UsageFact, UsageFacts

UNNAMED: Final = ""
# What is looked at in one go, so that its rows fit into memory.
_STEP_MS: Final = 24 * INTERVAL_MS


class _Kind(IntEnum):
    INPUT = 0
    CACHED = 1
    OUTPUT = 2


class _Key(NamedTuple):
    """What both usage and pools count by."""

    account_id: str
    interval_start_ms: int
    model: str
    served_model: str
    tier: str
    mode: Mode
    region: str


class _Sold(NamedTuple):
    """Tokens of a kind under a key, and what those of them that have a price come to."""

    key: _Key
    kind: _Kind
    currency: str
    amount: Decimal
    token_count: int


# The tokens of each pool by key and kind.
_Served = Mapping[tuple[_Key, _Kind], Mapping[str, int]]


def revenue_by_pool(
    pricing: Pricing, facts: UsageFacts, consumption: Consumption, *, span: Span
) -> Sequence[Revenue]:
    """Return what all usage of a span comes to, by tier, currency and pool.

    The pools of a tier add up to it, exactly. Tokens that no named pool served belong to the pool
    of "": those whose events name none, and those that were counted before pools knew accounts.
    """
    sums: dict[tuple[str, str, str], Decimal] = defaultdict(lambda: ZERO)
    for start_ms, end_ms, accounts in _steps(facts, span):
        found = facts.facts(account_ids=accounts, start_ms=start_ms, end_ms=end_ms, cut_id=None)
        sold = list(_price(pricing, found))
        # Read after usage: what is counted meanwhile is then a pool's, and not nobody's.
        served = _by_key(consumption.pool_tokens(start_ms=start_ms, end_ms=end_ms))
        for each in sold:
            for pool, amount in _share(each, served.get((each.key, each.kind), {})):
                place = (each.key.tier, each.currency, pool)
                sums[place] = add_up((sums[place], amount))
    return [
        Revenue(tier=tier, currency=currency, pool=pool, amount=amount)
        for (tier, currency, pool), amount in sorted(sums.items())
    ]


def _steps(facts: UsageFacts, span: Span) -> Iterator[tuple[int, int, Collection[str]]]:
    """Yield the parts of a span that have usage, with whose it is.

    Behind a part without any, the next look is twice as far: a span may be of thousands of years.
    """
    start_ms, step_ms = span.start_ms, _STEP_MS
    while start_ms < span.end_ms:
        end_ms = min(start_ms + step_ms, span.end_ms)
        accounts = facts.accounts_with_usage(start_ms=start_ms, end_ms=end_ms)
        if accounts and step_ms > _STEP_MS:
            step_ms //= 2
            continue
        if accounts:
            yield start_ms, end_ms, accounts
        else:
            step_ms *= 2
        start_ms = end_ms


def _price(pricing: Pricing, facts: Iterable[UsageFact]) -> Iterator[_Sold]:
    """Yield what was sold; the facts come by key, one behind the other."""
    for key, group in groupby(facts, _key_of):
        found = pricing.find_rater(key.account_id, key.interval_start_ms)
        if found is None:
            continue
        version, rater = found
        model = version.sold_model(key.model, key.served_model)
        amounts: dict[_Kind, list[Decimal]] = defaultdict(list)
        counts: dict[_Kind, int] = defaultdict(int)
        for fact in group:
            for token_class, count in fact.tokens.items():
                kind = _kind_of(token_class)
                counts[kind] += count
                price = rater.find_price(key_of(fact, model=model, token_class=token_class))
                if price is not None:
                    amounts[kind].append(amount_of(count, unit_price=price.unit_price))
        for kind, parts in amounts.items():
            amount = add_up(parts)
            # What was voided is neither here nor there.
            if amount or counts[kind]:
                yield _Sold(key, kind, version.currency.code, amount, counts[kind])


def _share(sold: _Sold, served: Mapping[str, int]) -> Iterator[tuple[str, Decimal]]:
    """Yield each pool's part of what was sold; what no pool has served is nobody's."""
    # Corrections are signed: a pool that took back more than it has served gets nothing.
    weights = {pool: count for pool, count in sorted(served.items()) if count > 0}
    rest = sold.token_count - sum(weights.values())
    if rest > 0 or not weights:
        weights[UNNAMED] = max(rest, 1)
    # One pool serves most of what is sold.
    parts = (
        [sold.amount] if len(weights) == 1 else share_out(sold.amount, weights=[*weights.values()])
    )
    return zip(weights, parts, strict=True)


def _by_key(tokens: Iterable[PoolTokens]) -> _Served:
    served: dict[tuple[_Key, _Kind], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for each in tokens:
        key = _Key(
            each.account_id,
            each.interval_start_ms,
            each.model,
            each.served_model,
            each.tier,
            each.mode,
            each.region,
        )
        counts = (each.input_tokens, each.cached_tokens, each.output_tokens)
        for kind, count in zip(_Kind, counts, strict=True):
            served[key, kind][each.pool] += count
    return served


def _key_of(fact: UsageFact) -> _Key:
    return _Key(
        fact.account_id,
        fact.interval_start_ms,
        fact.model,
        fact.served_model,
        fact.tier,
        fact.mode,
        fact.region,
    )


def _kind_of(token_class: TokenClass) -> _Kind:
    if token_class in OUTPUT_CLASSES:
        return _Kind.OUTPUT
    return _Kind.CACHED if token_class in CACHED_CLASSES else _Kind.INPUT
