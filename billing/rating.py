"""From usage to rated lines: the one path that prices, for previews, invoices and gauges. Pure.

Books are linear in counts: rating a quarter of an hour's sum is rating its events.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from billing.books import PriceBooks
from billing.contracts import ContractVersion
from billing.price_book import Price, PriceKey
from meter.domain.tokens import Mode, TokenClass
from meter.usage import UsageFact


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """Tokens (signed) of one class that were sold at one price; `model` is the sold name."""

    model: str
    tier: str
    mode: Mode
    token_class: TokenClass
    price: Price
    token_count: int


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


def rate(facts: Iterable[UsageFact], *, version: ContractVersion, books: PriceBooks) -> Rating:
    """Price the usage that a version of a contract bills; tokens of 0 need no price."""
    rater = Rater(version, books)
    sums: Counter[tuple[str, str, Mode, TokenClass, Price]] = Counter()
    missing: Counter[tuple[str, str, Mode, TokenClass, int]] = Counter()
    first_ms: dict[object, int] = {}
    for fact in facts:
        model = version.sold_model(fact.model, fact.served_model)
        for token_class, count in fact.tokens.items():
            if not count:
                continue
            price = rater.find_price(key_of(fact, model=model, token_class=token_class))
            if price is None:
                key = (model, fact.tier, fact.mode, token_class, fact.band)
                missing[key] += count
                start_ms = fact.interval_start_ms
                first_ms[key] = min(first_ms.get(key, start_ms), start_ms)
            else:
                sums[model, fact.tier, fact.mode, token_class, price] += count
    lines = [
        RatedLine(
            model=model,
            tier=tier,
            mode=mode,
            token_class=token_class,
            price=price,
            token_count=count,
        )
        for (model, tier, mode, token_class, price), count in sums.items()
    ]
    unpriced = [
        Unpriced(
            model=key[0],
            tier=key[1],
            mode=key[2],
            token_class=key[3],
            band=key[4],
            token_count=count,
            first_ms=first_ms[key],
        )
        for key, count in sorted(missing.items())
    ]
    return Rating(lines=tuple(sorted(lines, key=_place)), unpriced=tuple(unpriced))


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


def _place(line: RatedLine) -> tuple[object, ...]:
    price = line.price
    return (
        *(line.model, line.tier, line.mode, line.token_class),
        *(price.above, price.window, price.version_start_ms, price.unit_price),
    )
