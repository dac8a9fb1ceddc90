"""The difference rule: examples of what is used and billed, and parts that add up to the cent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.difference import BilledLine, LeftLine, find_left
from billing.money import Currency, add_up, amount_of, round_half_up
from billing.price_book import Price
from billing.rating import LineKey, RatedLine
from meter.domain.tokens import Mode, TokenClass
from tests.billing.invoices import BHD, JPY, START_MS, USD

CURRENCIES = (JPY, USD, BHD)


def price(unit_price: str = "3", *, window: str = "") -> Price:
    """A price of the one book."""
    return Price(
        base=Decimal(unit_price),
        source="models.m.input",
        factors=(),
        unit_price=Decimal(unit_price),
        above=0,
        window=window,
        book="list",
        version_start_ms=START_MS,
    )


def rated(tokens: int, at: Price, *, model: str = "m", group: str = "") -> RatedLine:
    """All usage of a key by now."""
    return RatedLine(
        model=model,
        tier="high",
        mode=Mode.ONLINE,
        token_class=TokenClass.INPUT,
        price=at,
        token_count=tokens,
        group=group,
    )


def billed(
    line: RatedLine, tokens: int, amount: str, *, number: str = "A", at: int = 1
) -> BilledLine:
    """A line that billed some of a key."""
    return BilledLine(
        key=line.key, number=number, line=at, token_count=tokens, billed=Decimal(amount)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Usage by now, lines that stand, and what is left: tokens, exact, billed, the first line."""

    now: Sequence[RatedLine] = ()
    before: Sequence[BilledLine] = ()
    left: Sequence[tuple[int, str, str, str]]
    currency: Currency = USD


M, DEAR, NIGHT = (rated(1, it) for it in (price(), price("4"), price("1.5", window="night")))


def of(line: RatedLine, tokens: int) -> RatedLine:
    """So many tokens of a line's key."""
    return replace(line, token_count=tokens)


EXAMPLES = {
    "nothing billed yet": Example(now=[of(M, 1_000_000)], left=[(1_000_000, "3", "3.00", "")]),
    "nothing left": Example(now=[of(M, 7)], before=[billed(M, 7, "0.00")], left=[]),
    "late tokens": Example(
        now=[of(M, 1_500_000)],
        before=[billed(M, 1_000_000, "3.00")],
        left=[(500_000, "1.5", "1.50", "A/1")],
    ),
    "voided tokens": Example(
        now=[of(M, 400_000)],
        before=[billed(M, 1_000_000, "3.00")],
        left=[(-600_000, "-1.8", "-1.80", "A/1")],
    ),
    "all of it voided": Example(
        before=[billed(M, 1_000_000, "3.00")], left=[(-1_000_000, "-3", "-3.00", "A/1")]
    ),
    "replaced by another class of price": Example(
        now=[of(NIGHT, 1_000_000)],
        before=[billed(M, 1_000_000, "3.00")],
        left=[(-1_000_000, "-3", "-3.00", "A/1"), (1_000_000, "1.5", "1.50", "")],
    ),
    # 1,000 tokens at 3 are 0.003: each alone would be nothing, the second crosses half a cent.
    "first late round of nothing": Example(now=[of(M, 1_000)], left=[(1_000, "0.003", "0.00", "")]),
    "second late round": Example(
        now=[of(M, 2_000)],
        before=[billed(M, 1_000, "0.00")],
        left=[(1_000, "0.003", "0.01", "A/1")],
    ),
    "third late round": Example(
        now=[of(M, 3_000)],
        before=[billed(M, 1_000, "0.00"), billed(M, 1_000, "0.01", number="B", at=4)],
        left=[(1_000, "0.003", "0.00", "A/1")],
    ),
    "price moved": Example(
        now=[of(DEAR, 1_000_000)],
        before=[billed(M, 1_000_000, "3.00")],
        left=[(-1_000_000, "-3", "-3.00", "A/1"), (1_000_000, "4", "4.00", "")],
    ),
    "new key": Example(
        now=[of(M, 5), rated(1_000_000, price(), model="n")],
        before=[billed(M, 5, "0.00")],
        left=[(1_000_000, "3", "3.00", "")],
    ),
    "group moved": Example(
        now=[rated(1_000_000, price(), group="b")],
        before=[billed(rated(1, price(), group="a"), 1_000_000, "3.00")],
        left=[(-1_000_000, "-3", "-3.00", "A/1"), (1_000_000, "3", "3.00", "")],
    ),
    "after an adjustment that took back": Example(
        now=[of(M, 1_000_000)],
        before=[billed(M, 1_000_000, "3.00"), billed(M, -1_000_000, "-3.00", number="B")],
        left=[(1_000_000, "3", "3.00", "A/1")],
    ),
    # No tokens are left, and what was billed is not what they come to: as when a factor of 10 in a
    # currency's decimals was mended.
    "no tokens, and a cent": Example(
        now=[of(M, 1_000)], before=[billed(M, 1_000, "0.01")], left=[(0, "0", "-0.01", "A/1")]
    ),
    "free": Example(now=[rated(9, price("0"))], left=[(9, "0", "0.00", "")]),
    "yen have no decimals": Example(
        now=[of(M, 500_000)],
        before=[billed(M, 166_666, "0")],
        left=[(333_334, "1.000002", "2", "A/1")],
        currency=JPY,
    ),
    "dinars have three": Example(
        now=[of(M, 500)],
        before=[billed(M, 166, "0.000")],
        left=[(334, "0.001002", "0.002", "A/1")],
        currency=BHD,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_left__example(name: str) -> None:
    """What is left of each key, to the token and the cent, and which line it changes."""
    example = EXAMPLES[name]
    found = find_left(example.now, example.before, currency=example.currency)
    expected = [
        (tokens, Decimal(exact), Decimal(amount), first)
        for tokens, exact, amount, first in example.left
    ]
    assert [(it.token_count, it.exact, it.billed, _first(it)) for it in found] == expected


def test_left__at_a_price_that_is_gone() -> None:
    """What was billed at a price that nothing has now is taken back at it; its line knows it."""
    (gone, new) = find_left([of(DEAR, 1)], [billed(M, 1, "0.00")], currency=USD)
    assert (gone.price, gone.key.unit_price) == (None, Decimal(3))
    assert new.price == price("4")


@st.composite
def histories(draw: st.DrawFn) -> tuple[Currency, list[list[RatedLine]]]:
    """Rounds of usage that came one after another, some of it taken back, at a few prices."""
    lines = [
        rated(1, price(unit), model=model, group=group)
        for unit in ("0.000001", "0.35", "3", "1234.5678")
        for model, group in (("m", ""), ("n", "a"))
    ]
    some = st.lists(
        st.tuples(st.sampled_from(lines), st.integers(-5_000_000, 5_000_000)), max_size=6
    )
    rounds = draw(st.lists(some, min_size=1, max_size=8))
    parts = [[of(line, tokens) for line, tokens in each] for each in rounds]
    return draw(st.sampled_from(CURRENCIES)), parts


@given(histories())
@settings(max_examples=300, deadline=None)
def test_left__parts_add_up(history: tuple[Currency, list[list[RatedLine]]]) -> None:
    """Billed in any number of rounds, a period comes to what it comes to at once, by key."""
    currency, rounds = history
    documents: list[BilledLine] = []
    for place in range(len(rounds)):
        now = [line for each in rounds[: place + 1] for line in each]
        documents += _issue(find_left(now, documents, currency=currency), number=f"D{place}")
    everything = [line for each in rounds for line in each]
    at_once = _issue(find_left(everything, (), currency=currency), number="W")
    assert _sums(documents) == _sums(at_once)
    assert find_left(everything, documents, currency=currency) == []


@given(histories(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_left__in_any_order(
    history: tuple[Currency, list[list[RatedLine]]], random: Random
) -> None:
    """The order in which usage came, or documents are read, changes nothing but the first line."""
    currency, rounds = history
    now = [line for each in rounds for line in each]
    documents = _issue(find_left(rounds[0], (), currency=currency), number="A")
    found = find_left(now, documents, currency=currency)
    random.shuffle(now)
    random.shuffle(documents)
    assert find_left(now, documents, currency=currency) == found


@given(histories())
@settings(max_examples=150, deadline=None)
def test_left__is_rounded_once(history: tuple[Currency, list[list[RatedLine]]]) -> None:
    """However many rounds, a key is within half a smallest unit of its exact amount."""
    currency, rounds = history
    documents: list[BilledLine] = []
    for place in range(len(rounds)):
        now = [line for each in rounds[: place + 1] for line in each]
        documents += _issue(find_left(now, documents, currency=currency), number=f"D{place}")
    half = Decimal(1).scaleb(-currency.exponent) / 2
    for key, (tokens, amount) in _sums(documents).items():
        exact = amount_of(tokens, unit_price=key.unit_price)
        assert abs(exact - amount) <= half
        assert round_half_up(exact, currency) == amount


def _issue(left: Sequence[LeftLine], *, number: str) -> list[BilledLine]:
    return [
        BilledLine(
            key=it.key,
            number=number,
            line=place,
            token_count=it.token_count,
            billed=it.billed,
        )
        for place, it in enumerate(left, 1)
    ]


def _sums(documents: Sequence[BilledLine]) -> dict[LineKey, tuple[int, Decimal]]:
    found = {}
    for key in {it.key for it in documents}:
        own = [it for it in documents if it.key == key]
        sums = (sum(it.token_count for it in own), add_up(it.billed for it in own))
        if any(sums):
            found[key] = sums
    return found


def _first(left: LeftLine) -> str:
    return "" if left.first is None else f"{left.first.number}/{left.first.line}"
