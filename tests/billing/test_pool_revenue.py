"""What a tier's tokens come to is shared out to the pools that served them, and nothing is lost."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.books import PriceBooks
from billing.contracts import Contracts
from billing.periods import Span
from billing.pool_revenue import revenue_by_pool
from billing.ports import Terms
from billing.revenue import Pricing, revenue_by_tier
from meter.consumption import EnergyFact, PoolTokens, SitePue
from meter.domain.account import Account, AccountTree, ParentEdge
from meter.domain.boundary import Boundary
from meter.domain.tokens import CACHED_CLASSES, OUTPUT_CLASSES, FinishClass, Mode, TokenClass
from meter.usage import UsageFact
from tests.billing.terms import a_book, a_contract
from tests.billing.town import TownEvent, book_toml, contract_toml, town_on

START_MS: Final = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp() * 1000)
INTERVAL_MS: Final = 900_000
# A day and a half: more than is looked at in one go.
SPAN: Final = Span(start_ms=START_MS, end_ms=START_MS + 144 * INTERVAL_MS)
PRICES: Final = {
    TokenClass.INPUT: Decimal("0.1234567"),
    TokenClass.CACHE_READ: Decimal("0.01"),
    TokenClass.CACHE_WRITE_1H: Decimal("0.3"),
    TokenClass.OUTPUT: Decimal(7),
    TokenClass.REASONING: Decimal("9.00000001"),
}
BOOK: Final = "[models.m]\n" + "".join(
    f'{it.name.lower()} = "{price}"\n' for it, price in PRICES.items()
)


class Served(NamedTuple):
    """Tokens of a class that a pool served for acme; a pool of "" is one that nobody named."""

    pool: str
    interval: int
    tier: str
    band: int
    token_class: TokenClass
    token_count: int

    @property
    def at_ms(self) -> int:
        """Begin of its interval."""
        return START_MS + self.interval * INTERVAL_MS


@dataclass(frozen=True, slots=True)
class Reading:
    """Both sides of what was served, as the store tells them."""

    served: Sequence[Served]
    looks: list[tuple[int, int]] = field(default_factory=list)

    def facts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield usage by interval, tier and band."""
        assert cut_id is None
        assert account_ids == self.accounts_with_usage(start_ms=start_ms, end_ms=end_ms)

        def key(it: Served) -> tuple[int, str, int]:
            return it.at_ms, it.tier, it.band

        for (at_ms, tier, band), group in groupby(sorted(self.served, key=key), key):
            tokens: dict[TokenClass, int] = defaultdict(int)
            for each in group:
                tokens[each.token_class] += each.token_count
            if start_ms <= at_ms < end_ms:
                yield UsageFact(
                    account_id="acme",
                    interval_start_ms=at_ms,
                    model="m",
                    served_model="m",
                    tier=tier,
                    mode=Mode.ONLINE,
                    region="",
                    band=band,
                    finish_class=FinishClass.DELIVERED,
                    tokens=tokens,
                    request_count=1,
                )

    def pool_tokens(self, *, start_ms: int, end_ms: int) -> Sequence[PoolTokens]:
        """Return the tokens of named pools."""
        key = attrgetter("pool", "at_ms", "tier")
        return [
            PoolTokens(
                account_id="acme",
                interval_start_ms=at_ms,
                pool=pool,
                model="m",
                served_model="m",
                tier=tier,
                mode=Mode.ONLINE,
                region="",
                **_by_kind(list(group)),
            )
            for (pool, at_ms, tier), group in groupby(sorted(self.served, key=key), key)
            if pool and start_ms <= at_ms < end_ms
        ]

    def accounts_with_usage(self, *, start_ms: int, end_ms: int) -> frozenset[str]:
        """Return acme, where it has any."""
        assert start_ms < end_ms
        self.looks.append((start_ms, end_ms))
        has_any = any(start_ms <= it.at_ms < end_ms for it in self.served)
        return frozenset({"acme"} if has_any else ())

    def counted_until_ms(self) -> int:
        """Nobody asks."""
        raise NotImplementedError

    def recorded_up_to(self) -> Mapping[int, int]:
        """Nobody asks."""
        raise NotImplementedError

    def is_counted(self, positions: Mapping[int, int]) -> bool:
        """Nobody asks."""
        raise NotImplementedError

    def energy(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, boundary: Boundary
    ) -> Iterator[EnergyFact]:
        """Nobody asks."""
        raise NotImplementedError

    def pues(self, *, start_ms: int, end_ms: int) -> dict[str, SitePue]:
        """Nobody asks."""
        raise NotImplementedError


def _by_kind(served: Sequence[Served]) -> dict[str, int]:
    counts = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0}
    for each in served:
        kind = "input"
        if each.token_class in OUTPUT_CLASSES:
            kind = "output"
        elif each.token_class in CACHED_CLASSES:
            kind = "cached"
        counts[f"{kind}_tokens"] += each.token_count
    return counts


@cache
def pricing() -> Pricing:
    """Return what prices acme's tokens of m, and none of another model."""
    terms = Terms(version=1, books=PriceBooks([a_book(BOOK)]), contracts=Contracts([a_contract()]))
    acme = Account(
        account_id="acme",
        handle="acme",
        create_ms=0,
        close_ms=None,
        parents=(ParentEdge(start_ms=0, parent_id=None),),
    )
    return Pricing(terms, AccountTree([acme]))


def by_pool(*served: Served) -> dict[tuple[str, str], Decimal]:
    """Return amounts by tier and pool."""
    reading = Reading(served)
    rows = revenue_by_pool(pricing(), reading, reading, span=SPAN)
    assert all(row.currency == "USD" for row in rows)
    return {(row.tier, row.pool): row.amount for row in rows}


_SERVED = st.builds(
    Served,
    pool=st.sampled_from(["", "a", "b", "c"]),
    interval=st.integers(0, 143),
    tier=st.sampled_from(["high", "medium"]),
    band=st.sampled_from([0, 4]),
    token_class=st.sampled_from(list(PRICES)),
    token_count=st.integers(1, 10**9),
)


@settings(max_examples=1_000)
@given(st.lists(_SERVED, max_size=12))
def test_revenue_by_pool__adds_up_to_the_tier(served: list[Served]) -> None:
    """The pools of a tier come to what the tier comes to, to the last digit."""
    reading = Reading(served)
    sums: dict[str, Fraction] = defaultdict(Fraction)
    for (tier, _), amount in by_pool(*served).items():
        sums[tier] += Fraction(amount)
    tiers = revenue_by_tier(pricing(), reading, SPAN)
    assert sums == {row.tier: Fraction(row.amount) for row in tiers}


@settings(max_examples=1_000)
@given(st.lists(_SERVED, max_size=12))
def test_revenue_by_pool__by_tokens_of_each_kind(served: list[Served]) -> None:
    """A pool earns its part of each kind's tokens in each interval, to a trillionth of a dollar."""
    expected: dict[tuple[str, str], Fraction] = defaultdict(Fraction)

    def key(it: Served) -> tuple[int, str, str]:
        (kind,) = (name for name, count in _by_kind([it]).items() if count)
        return it.at_ms, it.tier, kind

    for (_, tier, _), together in groupby(sorted(served, key=key), key):
        group = list(together)
        parts = (it.token_count * Fraction(PRICES[it.token_class]) / 10**6 for it in group)
        amount = sum(parts, Fraction())
        for each in group:
            whole = sum(it.token_count for it in group)
            expected[tier, each.pool] += amount * each.token_count / whole
    found = by_pool(*served)
    assert found.keys() == expected.keys()
    for place, earned in found.items():
        assert abs(Fraction(earned) - expected[place]) <= Fraction(len(served), 10**12)


def test_revenue_by_pool__cached_prompts_are_told_apart() -> None:
    """A pool that served the cached half of a prompt earns what that half costs."""
    assert by_pool(
        Served("a", 0, "high", 0, TokenClass.CACHE_READ, 1_000_000),
        Served("b", 0, "high", 0, TokenClass.INPUT, 1_000_000),
    ) == {("high", "a"): Decimal("0.01"), ("high", "b"): Decimal("0.1234567")}


def test_revenue_by_pool__each_interval_on_its_own() -> None:
    """What one pool served before another one came is the first one's alone."""
    assert by_pool(
        Served("a", 0, "high", 0, TokenClass.OUTPUT, 1_000_000),
        Served("a", 1, "high", 0, TokenClass.OUTPUT, 1_000_000),
        Served("b", 1, "high", 0, TokenClass.OUTPUT, 1_000_000),
        Served("", 1, "high", 0, TokenClass.OUTPUT, 1_000_000),
    ) == {("high", "a"): Decimal(14), ("high", "b"): Decimal(7), ("high", ""): Decimal(7)}


def test_revenue_by_pool__taken_back_where_it_never_was() -> None:
    """A correction that takes tokens from a pool that has none leaves the others their money."""
    assert by_pool(
        Served("a", 0, "high", 0, TokenClass.OUTPUT, 3_000_000),
        Served("b", 0, "high", 0, TokenClass.OUTPUT, -1_000_000),
    ) == {("high", "a"): Decimal(14)}


def test_revenue_by_pool__taken_back_altogether() -> None:
    """What was taken back altogether is nobody's revenue."""
    assert not by_pool(
        Served("a", 0, "high", 0, TokenClass.OUTPUT, 5),
        Served("a", 0, "high", 0, TokenClass.OUTPUT, -5),
    )


def test_revenue_by_pool__of_all_times() -> None:
    """Time without usage is left out in leaps: who asks for all years is answered at once."""
    served = [Served("a", place, "high", 0, TokenClass.OUTPUT, 10**6) for place in (0, 99)]
    reading = Reading(served)
    far_ms = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000)
    span = Span(start_ms=0, end_ms=far_ms)
    (row,) = revenue_by_pool(pricing(), reading, reading, span=span)
    assert (row.pool, row.amount) == ("a", Decimal(14))
    assert len(reading.looks) < 300


def test_revenue_by_pool__in_postgres(database_url: str) -> None:
    """Usage and pools meet in the database: other accounts, models and modes stand apart."""
    with town_on(database_url, now_ms=START_MS + 20 * INTERVAL_MS) as town:
        town.add_account("acme")
        town.add_account("free")
        town.import_book(book_toml())
        town.set_contract(contract_toml(zone="UTC"))
        event = partial(TownEvent, account="acme", end_ms=START_MS + 1)
        town.record(
            event(pool="a", classes={"output": 1_000_000, "input": 2_000_000}),
            event(pool="b", classes={"output": 3_000_000}),
            event(classes={"output": 1_000_000}),
            event(pool="b", mode="batch", classes={"output": 1_000_000}),
            event(pool="a", served_model="llama-4-fp8", classes={"cache_read": 1_000_000}),
            event(pool="a", account="free", classes={"output": 9_000_000}),
        )
        pricing = Pricing(town.billing.terms.load(), town.host.tree())
        rows = revenue_by_pool(pricing, town.host.facts, town.host.consumption, span=SPAN)
        assert [(row.tier, row.currency, row.pool, row.amount) for row in rows] == [
            ("high", "USD", "", Decimal(3)),
            ("high", "USD", "a", Decimal(12)),
            ("high", "USD", "b", Decimal(12)),
        ]
