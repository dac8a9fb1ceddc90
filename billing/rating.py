"""From usage to rated lines: the one path that prices, for previews, invoices and gauges. Pure.

Books are linear in counts: rating a quarter of an hour's sum is rating its events.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from operator import itemgetter
from typing import NamedTuple

from billing.books import PriceBooks
from billing.contracts import ContractVersion
from billing.price_book import Price, PriceKey
from meter.domain.tokens import Mode, TokenClass
from meter.usage import UsageFact


class LineKey(NamedTuple):
    """What tells lines of a period apart: whose tokens, of what, and at which price."""

    group: str
    model: str
    tier: str
    mode: Mode
    token_class: TokenClass
    above: int
    window: str
    book: str
    version_start_ms: int
    unit_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """Tokens (signed) of one class that were sold at one price; `model` is the sold name.

    `group` is the account right below what is covered, where the contract splits by it.
    """

    model: str
    tier: str
    mode: Mode
    token_class: TokenClass
    price: Price
    token_count: int
    group: str = ""

    @property
    def key(self) -> LineKey:
        """What tells it from other lines; how its price was made up does not."""
        price = self.price
        # By place, which is half as long as by name; it is asked for each line of each draft.
        return LineKey(
            *(self.group, self.model, self.tier, self.mode, self.token_class),
            *(price.above, price.window, price.book, price.version_start_ms, price.unit_price),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpriced:
    """Tokens that nobody has given a price; `first_ms` is the first interval with any."""

    model: str
    tier: str
    mode: Mode
    token_class: TokenClass
    band: int
    token_count: int
    first_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What usage comes to: lines in the order of an invoice, and what has no price."""

    lines: tuple[RatedLine, ...]
    unpriced: tuple[Unpriced, ...]


class Rater:
    """Prices keys under one version of a contract, and remembers what it found."""

    def __init__(self, version: ContractVersion, books: PriceBooks) -> None:
        self._version = version
        self._books = books
        # A price depends on an instant by nothing but the book's version and its open windows.
        self._phases: dict[int, tuple[int, frozenset[str]] | None] = {}
        self._prices: dict[object, Price | None] = {}

    def find_price(self, key: PriceKey) -> Price | None:
        """Return the price of a key under the contract, or None."""
        if key.at_ms not in self._phases:
            self._phases[key.at_ms] = self._phase(key.at_ms)
        phase = self._phases[key.at_ms]
        if phase is None:
            return None
        known = (key.model, key.tier, key.mode, key.token_class, key.band, phase)
        if known not in self._prices:
            book = self._books.find_at(self._version.book, key.at_ms)
            assert book is not None
            self._prices[known] = book.find_price(key, self._version.overrides)
        return self._prices[known]

    def _phase(self, at_ms: int) -> tuple[int, frozenset[str]] | None:
        book = self._books.find_at(self._version.book, at_ms)
        if book is None:
            return None
        windows = (it.name for it in book.windows if it.holds_at(at_ms, book.zone))
        return book.start_ms, frozenset(windows)


class Tally:
    """Adds up what usage comes to: priced, by line, and what has no price, by key."""

    def __init__(self) -> None:
        # By the price itself, as the rater remembers it, which is cheaper than by its value.
        self._sums: dict[tuple[str, str, str, Mode, TokenClass, int], int] = {}
        self._prices: dict[int, Price] = {}
        self._missing: Counter[tuple[str, str, Mode, TokenClass, int]] = Counter()
        self._first_ms: dict[object, int] = {}

    def add(
        self, fact: UsageFact, *, version: ContractVersion, rater: Rater, group: str = ""
    ) -> None:
        """Price a fact that a version of a contract bills; tokens of 0 need no price."""
        model = version.sold_model(fact.model, fact.served_model)
        for token_class, count in fact.tokens.items():
            if not count:
                continue
            price = rater.find_price(key_of(fact, model=model, token_class=token_class))
            if price is None:
                missing = (model, fact.tier, fact.mode, token_class, fact.band)
                self._missing[missing] += count
                start_ms = fact.interval_start_ms
                self._first_ms[missing] = min(self._first_ms.get(missing, start_ms), start_ms)
            else:
                self._prices[id(price)] = price
                key = (group, model, fact.tier, fact.mode, token_class, id(price))
                self._sums[key] = self._sums.get(key, 0) + count

    def rating(self) -> Rating:
        """Return what all of it comes to; what comes to no tokens at all is not there."""
        lines: dict[LineKey, RatedLine] = {}
        for (group, model, tier, mode, token_class, price_id), count in self._sums.items():
            line = RatedLine(
                model=model,
                tier=tier,
                mode=mode,
                token_class=token_class,
                price=self._prices[price_id],
                token_count=count,
                group=group,
            )
            key = line.key
            known = lines.get(key)
            lines[key] = line if known is None else _join(known, line)
        unpriced = tuple(
            Unpriced(
                model=key[0],
                tier=key[1],
                mode=key[2],
                token_class=key[3],
                band=key[4],
                token_count=count,
                first_ms=self._first_ms[key],
            )
            for key, count in sorted(self._missing.items())
            if count
        )
        in_order = sorted(lines.items(), key=itemgetter(0))
        found = tuple(line for _, line in in_order if line.token_count)
        return Rating(lines=found, unpriced=unpriced)


def rate(facts: Iterable[UsageFact], *, version: ContractVersion, books: PriceBooks) -> Rating:
    """Price the usage that a version of a contract bills; tokens of 0 need no price."""
    tally, rater = Tally(), Rater(version, books)
    for fact in facts:
        tally.add(fact, version=version, rater=rater)
    return tally.rating()


def key_of(fact: UsageFact, *, model: str, token_class: TokenClass) -> PriceKey:
    """Return what a class of a fact is priced by, under the name that is sold."""
    return PriceKey(
        model=model,
        tier=fact.tier,
        mode=fact.mode,
        token_class=token_class,
        band=fact.band,
        at_ms=fact.interval_start_ms,
    )


def _join(first: RatedLine, second: RatedLine) -> RatedLine:
    """Return lines of one key as one, whichever came first."""
    price = min(first.price, second.price, key=lambda it: it.source)
    return replace(first, price=price, token_count=first.token_count + second.token_count)
