"""Sums between the right instants come to what their facts come to; and hashes of usage."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.books import PriceBooks
from billing.contracts import BillingPeriod, Contracts, billing_periods
from billing.coverage import Coverage
from billing.gathering import Gathering
from billing.periods import Span
from billing.ports import Terms
from billing.price_book import ModelPrices, Window
from billing.price_edges import price_edges
from billing.rating import Rater, Tally
from billing.usage_hash import usage_sha256
from meter.domain.account import Account, AccountTree, ParentEdge
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import FinishClass, Mode, TokenClass
from meter.usage import UsageFact, UsageFacts, UsageSums
from tests.billing.invoices import DAY_MS, OCTOBER, START_MS, VERSION, book, prices

NIGHT = Window(
    name="night",
    days=frozenset({0, 3, 6}),
    hours=((22 * 60, 30 * 60), (12 * 60, 12 * 60 + 15)),
    models=(),
    tiers=(),
    modes=(),
    factor=Decimal("0.5"),
)
MODELS = {"m": ModelPrices(table=prices(input="0.35", output="7"), tiers={})}
BOOKS = PriceBooks(
    [
        book(MODELS, start_ms=START_MS - 90 * DAY_MS),
        book(MODELS, start_ms=START_MS + 9 * DAY_MS, windows=(NIGHT,)),
        replace(book(MODELS, start_ms=START_MS + 24 * DAY_MS), book="retail"),
    ]
)
MIDDLE_MS = START_MS + 14 * DAY_MS
CONTRACTS = Contracts(
    [
        replace(VERSION, start_ms=START_MS - 40 * DAY_MS, by_account=True),
        replace(VERSION, start_ms=MIDDLE_MS, covers=("acme", "other")),
        replace(VERSION, contract="blue", covers=("blue",), start_ms=START_MS + 20 * DAY_MS),
    ]
)
MOVES: Mapping[str, Sequence[tuple[int, str | None]]] = {
    "acme": [(0, None)],
    "other": [(0, None)],
    "red": [(0, "acme"), (START_MS + 3 * DAY_MS, "other")],
    "blue": [(0, "red"), (START_MS + 17 * DAY_MS, "acme")],
}
TREE = AccountTree(
    Account(
        account_id=it,
        handle=it,
        create_ms=0,
        close_ms=None,
        parents=tuple(ParentEdge(start_ms=at, parent_id=parent) for at, parent in moves),
    )
    for it, moves in MOVES.items()
)


@dataclass(frozen=True, slots=True)
class Usage:
    """Facts in memory, and sums that are made of them."""

    known: Sequence[UsageFact]

    def facts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield the facts of a span."""
        assert cut_id is None
        for it in self.known:
            if it.account_id in account_ids and start_ms <= it.interval_start_ms < end_ms:
                yield it

    def sums(
        self, *, account_ids: Collection[str], edges_ms: Sequence[int], cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield facts added up between edges."""
        sums: dict[tuple[str, int, str, int], tuple[UsageFact, Counter[TokenClass]]] = {}
        for it in self.facts(
            account_ids=account_ids, start_ms=edges_ms[0], end_ms=edges_ms[-1], cut_id=cut_id
        ):
            edge = max(edge for edge in edges_ms if edge <= it.interval_start_ms)
            first = replace(it, interval_start_ms=edge)
            key = (it.account_id, edge, it.tier, it.band)
            sums.setdefault(key, (first, Counter()))[1].update(it.tokens)
        for first, tokens in sums.values():
            yield replace(first, tokens={name: it for name, it in tokens.items() if it})


def fact(
    account_id: str = "acme",
    *,
    quarter: int = 0,
    count: int = 1,
    token_class: TokenClass = TokenClass.INPUT,
    tier: str = "high",
    model: str = "m",
) -> UsageFact:
    """Usage in a quarter of an hour, counted from the begin of Berlin's October."""
    return UsageFact(
        account_id=account_id,
        interval_start_ms=START_MS + quarter * INTERVAL_MS,
        model=model,
        served_model=model,
        tier=tier,
        mode=Mode.ONLINE,
        region="",
        band=0,
        finish_class=FinishClass.DELIVERED,
        tokens={token_class: count},
        request_count=1,
    )


def gathering(usage: Sequence[UsageFact]) -> Gathering:
    """What gathers from memory."""
    store = Usage(usage)
    return Gathering(
        TERMS,
        TREE,
        COVERAGE,
        facts=cast("UsageFacts", store),
        sums=cast("UsageSums", store),
    )


def periods() -> list[BillingPeriod]:
    """What October is billed as, under all contracts."""
    return [period for version in CONTRACTS for period in billing_periods(version, OCTOBER)]


TERMS = Terms(version=1, books=BOOKS, contracts=CONTRACTS)
COVERAGE = Coverage(CONTRACTS, TREE)
# A week more than October on both sides.
QUARTERS = st.integers(-7 * 96, 38 * 96)
FACTS = st.builds(
    fact,
    st.sampled_from(sorted(MOVES)),
    quarter=QUARTERS,
    count=st.integers(-1_000, 100_000),
    token_class=st.sampled_from([TokenClass.INPUT, TokenClass.OUTPUT, TokenClass.REASONING]),
    tier=st.sampled_from(["high", "ultra"]),
)


@given(st.lists(FACTS, max_size=60))
@settings(max_examples=150, deadline=None)
def test_gather__sums_are_facts(usage: list[UsageFact]) -> None:
    """Whoever moves, whatever begins, opens or closes in the month: sums come to what facts do."""
    wanted = periods()
    found = gathering(usage).gather(wanted, cut_id=None)
    for period, each in zip(wanted, found, strict=True):
        tally, own = Tally(), []
        for it in usage:
            version = COVERAGE.find(it.account_id, it.interval_start_ms)
            is_own = version is not None and version.contract == period.version.contract
            if version is not None and is_own and period.span.holds(it.interval_start_ms):
                group = "" if not version.by_account else _group(it)
                tally.add(it, version=version, rater=Rater(version, BOOKS), group=group)
                own.append(it)
        assert each.rating == tally.rating()
        assert each.usage_sha256 == usage_sha256(own)


def test_gather__one_question_for_all_that_are_alike() -> None:
    """Periods of one span whose prices and accounts stay are read by one question."""
    asked = []

    class Counting(Usage):
        def sums(
            self, *, account_ids: Collection[str], edges_ms: Sequence[int], cut_id: int | None
        ) -> Iterator[UsageFact]:
            asked.append(sorted(account_ids))
            # Nothing was used.
            return super().sums(account_ids=(), edges_ms=edges_ms, cut_id=cut_id)

    contracts = [replace(VERSION, contract=it, covers=(it,)) for it in "abc"]
    tree = AccountTree(
        Account(
            account_id=it,
            handle=it,
            create_ms=0,
            close_ms=None,
            parents=(ParentEdge(start_ms=0, parent_id=None),),
        )
        for it in "abc"
    )
    terms = Terms(version=1, books=PriceBooks([book()]), contracts=Contracts(contracts))
    store = Counting(())
    found = Gathering(
        terms,
        tree,
        Coverage(terms.contracts, tree),
        facts=cast("UsageFacts", store),
        sums=cast("UsageSums", store),
    )
    wanted = [it for each in contracts for it in billing_periods(each, OCTOBER)]
    assert len(found.gather(wanted, cut_id=None)) == 3
    assert asked == [["a", "b", "c"]]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Los_Angeles", "Australia/Lord_Howe"])
def test_edges__between_them_a_price_stays(zone: str) -> None:
    """From edge to edge the same version is in force, and the same windows are open."""
    versions = [replace(it, zone=ZoneInfo(zone)) for it in BOOKS]
    books = PriceBooks(versions)
    span = Span(start_ms=START_MS, end_ms=START_MS + 31 * DAY_MS)
    edges = price_edges(books, "retail", span)
    assert edges == tuple(sorted(edges))
    assert all(span.start_ms < it < span.end_ms for it in edges)
    before = None
    for at_ms in range(span.start_ms, span.end_ms, INTERVAL_MS):
        version = books.find_at("retail", at_ms)
        assert version is not None
        phase = (version.start_ms, [it.holds_at(at_ms, version.zone) for it in version.windows])
        assert (before is not None and phase != before) == (at_ms in edges)
        before = phase


def test_hash__is_as_documented() -> None:
    """Lines as the page has them, sorted by bytes, without sums of 0; in any parts the same."""
    usage = [
        fact("b", count=7),
        fact("a", count=5, model="x|y\\z"),
        fact("a", count=2, token_class=TokenClass.OUTPUT),
        fact("a", count=-2, quarter=9, token_class=TokenClass.OUTPUT),
        fact("b", count=1, quarter=3, tier="free"),
        fact("b", count=-3, quarter=4),
    ]
    lines = (
        "a|x\\|y\\\\z|x\\|y\\\\z|high|online|0|input|5\n"
        "b|m|m|free|online|0|input|1\n"
        "b|m|m|high|online|0|input|4\n"
    )
    assert usage_sha256(usage) == hashlib.sha256(lines.encode()).hexdigest()
    assert usage_sha256(reversed(usage)) == usage_sha256(usage)
    assert usage_sha256([]) == hashlib.sha256(b"").hexdigest()


def _group(it: UsageFact) -> str:
    """The account below acme, or acme itself, by hand."""
    above = TREE.parent_at(it.account_id, it.interval_start_ms)
    if it.account_id == "acme" or above == "acme":
        return it.account_id
    assert above is not None
    return above
