"""A price book: one version of it, and the price of a key at an instant, factor by factor.

The rules stand in `docs/reference/price-book.md`. Prices are per 1,000,000 tokens, factors stay
factors, and a unit price is their exact product.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from billing.money import Currency, multiply, write
from meter.domain.times import to_time
from meter.domain.tokens import BAND_EDGES, Mode, TokenClass

ONE: Final = Decimal(1)
MODE_NAMES: Final = {Mode.ONLINE: "online", Mode.BATCH: "batch"}
DAY_NAMES: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def class_name(token_class: TokenClass) -> str:
    """Return a token class as files and documents write it."""
    return token_class.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceKey:
    """What a price is asked for; `band` is a place on the ladder, `at_ms` an interval's start."""

    model: str
    tier: str
    mode: Mode
    token_class: TokenClass
    band: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A factor of a unit price: where the book or contract has it, and how large it is."""

    source: str
    value: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of a key: `unit_price` is `base` times all factors, exactly.

    `source` is where `base` stands, `above` the prompt from which it holds (0: any), `window` the
    name of the window that holds ("": none). The version is (`book`, `version_start_ms`).
    """

    base: Decimal
    source: str
    factors: tuple[Factor, ...]
    unit_price: Decimal
    above: int
    window: str
    book: str
    version_start_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Prices of requests whose whole prompt has at least `prompt` tokens, an edge of the ladder."""

    prompt: int
    prices: Mapping[TokenClass, Decimal]
    all: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A price that a table has: itself, where in the table, and from which prompt on."""

    price: Decimal
    source: str
    above: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """Prices by class; `bands` from the highest prompt down."""

    prices: Mapping[TokenClass, Decimal]
    all: Decimal | None
    bands: tuple[Band, ...] = ()

    def find(
        self, token_class: TokenClass, *, band: int, same: Mapping[TokenClass, TokenClass]
    ) -> Hit | None:
        """Return the price of a class at a band, or None.

        The bands that the prompt reaches come first, the highest of them before the others; in
        each the class, then the class that it is priced as, then `all`.
        """
        reached = BAND_EDGES[band - 1] if band else 0
        for entry in self.bands:
            if entry.prompt <= reached:
                hit = _find(entry.prices, entry.all, token_class, same=same)
                if hit is not None:
                    price, name = hit
                    source = f"above[{entry.prompt}].{name}"
                    return Hit(price=price, source=source, above=entry.prompt)
        hit = _find(self.prices, self.all, token_class, same=same)
        return None if hit is None else Hit(price=hit[0], source=hit[1], above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrices:
    """A model's own table, and by tier the tables that are written for a tier."""

    table: PriceTable
    tiers: Mapping[str, PriceTable]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Hours of days at another price. `hours` are minutes of the day, the second up to a day later.

    An empty tuple of models (names or patterns), tiers or modes stands for all of them. A model is
    meant by the name that it is sold under, and by the key that its prices stand under.
    """

    name: str
    days: frozenset[int]
    hours: tuple[tuple[int, int], ...]
    models: tuple[str, ...]
    tiers: tuple[str, ...]
    modes: tuple[Mode, ...]
    factor: Decimal

    def holds_at(self, at_ms: int, zone: ZoneInfo) -> bool:
        """Tell whether an instant lies in it, by the local time of the zone.

        What runs past midnight belongs to the day on which it began.
        """
        local = to_time(at_ms).astimezone(zone)
        minute = local.hour * 60 + local.minute
        yesterday = (local - timedelta(days=1)).weekday()
        return any(
            (local.weekday() in self.days and begin <= minute < end)
            or (yesterday in self.days and minute + _DAY_MINUTES < end)
            for begin, end in self.hours
        )

    def is_for(self, key: PriceKey, *, model_key: str | None) -> bool:
        """Tell whether it is for the key's model, which the book has at `model_key`, and so on."""
        return (
            is_meant(key.model, by=self.models, model_key=model_key)
            and (not self.tiers or key.tier in self.tiers)
            and (not self.modes or key.mode in self.modes)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A contract's own terms for some keys: a factor, or prices by class (or all of them).

    An empty tuple of models (names or patterns), tiers, modes or classes stands for all. A model is
    meant by the name that it is sold under, and by the key that its prices stand under.
    """

    index: int
    models: tuple[str, ...]
    tiers: tuple[str, ...]
    modes: tuple[Mode, ...]
    classes: tuple[TokenClass, ...]
    factor: Decimal | None
    prices: Mapping[TokenClass, Decimal]
    all: Decimal | None

    def is_for(self, key: PriceKey, *, model_key: str | None) -> bool:
        """Tell whether it has terms for the key, whose model the book has at `model_key`."""
        return (
            is_meant(key.model, by=self.models, model_key=model_key)
            and (not self.tiers or key.tier in self.tiers)
            and (not self.modes or key.mode in self.modes)
            and (not self.classes or key.token_class in self.classes)
            and (self.factor is not None or key.token_class in self.prices or self.all is not None)
        )


class ModelKeys:
    """Finds a book's key for a model: its own name, an alias, else the longest pattern.

    `exact` maps each name to its key, and so does `patterns`, the longest first.
    """

    __slots__ = ("exact", "patterns")

    def __init__(self, keys: Iterable[str], *, names: Mapping[str, str]) -> None:
        """Take the keys of the models, and the key that each further name stands for."""
        by_name = {**names, **{key: key for key in keys}}
        self.exact = {it: key for it, key in by_name.items() if not is_pattern(it)}
        patterns = [(it, key) for it, key in by_name.items() if is_pattern(it)]
        self.patterns = tuple(sorted(patterns, key=lambda pair: (-len(pair[0]), pair[0])))

    def find(self, model: str) -> str | None:
        """Return the key, or None."""
        key = self.exact.get(model)
        if key is not None:
            return key
        return next((key for it, key in self.patterns if matches(it, model)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """One version of a book, in force from `start_ms` until its next version begins.

    `models` maps each key of the book, a name or a pattern, to its prices; `names` each further
    name or pattern to the key that it stands for. `tiers` is None where the book has no factors of
    tiers.
    """

    book: str
    start_ms: int
    zone: ZoneInfo
    currency: Currency
    same: Mapping[TokenClass, TokenClass]
    tiers: Mapping[str, Decimal] | None
    modes: Mapping[Mode, Decimal]
    windows: tuple[Window, ...]
    models: Mapping[str, ModelPrices]
    names: Mapping[str, str]
    _keys: ModelKeys = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keys", ModelKeys(self.models, names=self.names))

    def find_model(self, sold_model: str) -> str | None:
        """Return the book's key for a model, or None."""
        return self._keys.find(sold_model)

    def find_price(self, key: PriceKey, overrides: Sequence[Override] = ()) -> Price | None:
        """Return the price of a key with the first override that is for it; None without one."""
        model_key = self.find_model(key.model)
        override = next((it for it in overrides if it.is_for(key, model_key=model_key)), None)
        if override is not None and override.factor is None:
            return self._replaced(key, override)
        found = self._find_base(key, model_key=model_key)
        if found is None:
            return None
        source, hit, factors = found
        mode = self.modes.get(key.mode)
        if mode is not None:
            factors.append(Factor(source=f"modes.{MODE_NAMES[key.mode]}", value=mode))
        window = self._find_window(key, model_key=model_key)
        if window is not None:
            factors.append(Factor(source=f"windows.{window.name}", value=window.factor))
        if override is not None and override.factor is not None:
            source_of_override = f"contract overrides[{override.index}]"
            factors.append(Factor(source=source_of_override, value=override.factor))
        return Price(
            base=hit.price,
            source=source,
            factors=tuple(factors),
            unit_price=multiply(hit.price, *(factor.value for factor in factors)),
            above=hit.above,
            window="" if window is None else window.name,
            book=self.book,
            version_start_ms=self.start_ms,
        )

    def _replaced(self, key: PriceKey, override: Override) -> Price:
        price = override.prices.get(key.token_class, override.all)
        assert price is not None
        name = class_name(key.token_class) if key.token_class in override.prices else "all"
        return Price(
            base=price,
            source=f"contract overrides[{override.index}].prices.{name}",
            factors=(),
            unit_price=price,
            above=0,
            window="",
            book=self.book,
            version_start_ms=self.start_ms,
        )

    def _find_base(
        self, key: PriceKey, *, model_key: str | None
    ) -> tuple[str, Hit, list[Factor]] | None:
        if model_key is None:
            return None
        prices = self.models[model_key]
        place = f'models."{model_key}"'
        written = prices.tiers.get(key.tier)
        if written is not None:
            hit = written.find(key.token_class, band=key.band, same=self.same)
            if hit is not None:
                return f"{place}.tier.{key.tier}.{hit.source}", hit, []
        hit = prices.table.find(key.token_class, band=key.band, same=self.same)
        if hit is None or (self.tiers is not None and key.tier not in self.tiers):
            return None
        source = f"{place}.{hit.source}"
        if self.tiers is None:
            return source, hit, []
        return source, hit, [Factor(source=f"tiers.{key.tier}", value=self.tiers[key.tier])]

    def _find_window(self, key: PriceKey, *, model_key: str | None) -> Window | None:
        for window in self.windows:
            is_for = window.is_for(key, model_key=model_key)
            if is_for and window.holds_at(key.at_ms, self.zone):
                return window
        return None


def is_pattern(name: str) -> bool:
    """Tell whether a name of a model stands for many."""
    return "*" in name


def matches(name_or_pattern: str, model: str) -> bool:
    """Tell whether a model is meant by a name or a pattern, whose `*` stands for any characters.

    Takes no longer than both are: each part between two `*` is looked for once, as far left as it
    can be.
    """
    head, *parts = name_or_pattern.split("*")
    if not parts:
        return model == head
    *parts, tail = parts
    place, end = len(head), len(model) - len(tail)
    if end < place or not (model.startswith(head) and model.endswith(tail)):
        return False
    for part in parts:
        found = model.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def can_meet(first: str, second: str) -> bool:
    """Tell whether some name is meant by both of two names or patterns, at whatever length.

    Of two patterns, nothing but what is before the first and behind the last `*` can be at odds:
    between, the parts of one may follow those of the other.
    """
    if not is_pattern(first) or not is_pattern(second):
        return matches(first, second) or matches(second, first)
    heads = (first.partition("*")[0], second.partition("*")[0])
    tails = (first.rpartition("*")[2], second.rpartition("*")[2])
    return (heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])) and (
        tails[0].endswith(tails[1]) or tails[1].endswith(tails[0])
    )


def is_meant(model: str, *, by: Sequence[str], model_key: str | None) -> bool:
    """Tell whether names and patterns mean a model, which the book has at `model_key`.

    No names at all mean every model.
    """
    names = (model,) if model_key is None else (model, model_key)
    return not by or any(matches(it, name) for it in by for name in names)


def explain(price: Price) -> str:
    """Return the arithmetic of a unit price, on one line: `0.52 × 1 × 0.5 = 0.26`."""
    product = " × ".join(write(it) for it in (price.base, *(f.value for f in price.factors)))
    return product if not price.factors else f"{product} = {write(price.unit_price)}"


_DAY_MINUTES: Final = 24 * 60


def _find(
    prices: Mapping[TokenClass, Decimal],
    every: Decimal | None,
    token_class: TokenClass,
    *,
    same: Mapping[TokenClass, TokenClass],
) -> tuple[Decimal, str] | None:
    if token_class in prices:
        return prices[token_class], class_name(token_class)
    substitute = same.get(token_class)
    if substitute is not None and substitute in prices:
        return prices[substitute], class_name(substitute)
    return None if every is None else (every, "all")
