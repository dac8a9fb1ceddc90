"""Price books and contracts as the oracle reads them: from their TOML alone, in exact fractions.

Prices are in currency per 1,000,000 tokens, instants in ms since 1970, UTC. Whether a file is a
good one is the product's to check; what could be read in two ways raises ValueError here.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

ALL: Final = "all"
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# What stands in a price table beside its classes.
_NO_CLASSES: Final = {"names", "tier", "above", "prompt"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_END: Final = datetime.fromisoformat("9999-01-01")

# The text of a file, a file, or a folder of `*.toml`.
Source = str | Path
Numbers = Mapping[str, Fraction]
# Which keys a window or an override is for, by the lists that were written; others leave it open.
Lists = Mapping[str, tuple[str, ...]]


class Part(NamedTuple):
    """Prices by class, or for `all`, of a table; in force from a prompt of `above` tokens on."""

    above: int
    prices: Numbers


# The parts of a price table, the highest `above` first; the last one is the table itself, at 0.
Table = tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model's price tables: its own, and those written for a tier."""

    key: str
    table: Table
    tiers: Mapping[str, Table]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A factor for some hours, in minutes from midnight, of the days (0 is Monday) they begin on.

    Hours whose end is not after their begin run past midnight.
    """

    name: str
    days: frozenset[int]
    hours: tuple[tuple[int, int], ...]
    lists: Lists
    factor: Fraction

    def holds(self, wall: datetime) -> bool:
        """Tell whether a local time is in its hours."""
        minute = wall.hour * 60 + wall.minute
        return any(
            (begin <= minute and (minute < end or end <= begin) and wall.weekday() in self.days)
            or (minute < end <= begin and (wall.weekday() - 1) % 7 in self.days)
            for begin, end in self.hours
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BookVersion:
    """A price book from an instant on. `tiers` is None when the book has no table of them."""

    name: str
    start_ms: int
    zone: ZoneInfo
    currency: str
    same: Mapping[str, str]
    tiers: Numbers | None
    modes: Numbers
    windows: tuple[Window, ...]
    named: Mapping[str, Model]

    def find_model(self, sold: str) -> tuple[Model | None, str]:
        """Return the model that prices what was sold, or None, and how it was found."""
        if sold in self.named:
            model = self.named[sold]
            return model, "key" if model.key == sold else "alias"
        patterns = [text for text in self.named if "*" in text and fits(text, sold)]
        length = max(map(len, patterns), default=0)
        longest = [text for text in patterns if len(text) == length]
        if len(longest) > 1:
            raise ValueError(f"{longest} all fit {sold}")
        return (self.named[longest[0]] if longest else None), "pattern"

    def windows_at(self, at_ms: int) -> tuple[Window, ...]:
        """Return the windows whose hours hold at that instant, for whatever keys."""
        wall = wall_time(at_ms, zone=self.zone)
        return tuple(window for window in self.windows if window.holds(wall))


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What a contract changes for some keys: either a factor, or prices by class or for `all`."""

    lists: Lists
    factor: Fraction | None
    prices: Numbers | None

    def is_for(self, key: "Key", *, names: set[str]) -> bool:
        """Tell whether it changes this key's price; prices that lack the class do not."""
        has_price = self.prices is None or _first(self.prices, key.token_class, ALL) is not None
        return has_price and _is_listed(self.lists, key, names=names)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ContractVersion:
    """A contract from `start_ms` until before `end_ms`; `covers` as written."""

    name: str
    start_ms: int
    end_ms: int
    zone: ZoneInfo
    currency: str
    book: str
    is_by_served: bool
    covers: tuple[str, ...]
    overrides: tuple[Override, ...]


_Version = TypeVar("_Version", BookVersion, ContractVersion)


class Setting(NamedTuple):
    """All that a price depends on beside its key: the terms of a place in an interval."""

    contract: ContractVersion
    book: BookVersion | None
    windows: tuple[Window, ...]


class Key(NamedTuple):
    """What a price is looked up for; `prompt` is the whole prompt, or the edge of its band."""

    model: str
    tier: str
    mode: str
    token_class: str
    prompt: int


class Price(NamedTuple):
    """A unit price, and where it is from: steps in the order in which they were taken."""

    unit: Fraction
    above: int
    window: str
    steps: tuple[str, ...]

    def times(self, factor: Fraction, *, step: str) -> "Price":
        """Return the price after a factor that applies, even if that is 1."""
        return self._replace(unit=self.unit * factor, steps=(*self.steps, step))


def price_of(key: Key, *, setting: Setting) -> Price | None:
    """Return the price of a key in its setting, or None."""
    contract, book, windows = setting
    if book is None:
        return None
    model, found_by = book.find_model(key.model)
    # A list means a model by the name it is sold under, and by the one its prices stand under.
    names = {key.model, model.key} if model else {key.model}
    override = next((it for it in contract.overrides if it.is_for(key, names=names)), None)
    if override and override.prices is not None:
        unit = override.prices[key.token_class if key.token_class in override.prices else ALL]
        return Price(unit, 0, "", ("override price",))
    price = _base_price(key, model=model, book=book) if model else None
    if price is None:
        return None
    price = price._replace(steps=(found_by, *price.steps))
    if key.mode in book.modes:
        price = price.times(book.modes[key.mode], step="mode factor")
    for window in windows:
        if _is_listed(window.lists, key, names=names):
            if price.window:
                raise ValueError(f"{price.window} and {window.name} hold at once for {key}")
            price = price.times(window.factor, step="window factor")._replace(window=window.name)
    if override and override.factor is not None:
        price = price.times(override.factor, step="override factor")
    return price


def read_books(sources: Iterable[Source]) -> dict[str, tuple[BookVersion, ...]]:
    """Return each book's versions, oldest first."""
    versions = _oldest_first(map(_book_version, _read(sources)))
    return {name: tuple(of_it) for name, of_it in groupby(versions, key=lambda it: it.name)}


def read_contracts(sources: Iterable[Source]) -> tuple[ContractVersion, ...]:
    """Return all versions of all contracts, by name and age; one ends where the next begins."""
    versions = _oldest_first(map(_contract_version, _read(sources)))
    next_ms = {it: after.start_ms for it, after in pairwise(versions) if it.name == after.name}
    return tuple(replace(it, end_ms=min(it.end_ms, next_ms.get(it, it.end_ms))) for it in versions)


@lru_cache(maxsize=10_000)
def fits(pattern: str, name: str) -> bool:
    """Tell whether the name is the pattern's, in which `*` stands for any characters, or none."""
    parts = map(re.escape, pattern.split("*"))
    return re.fullmatch(".*".join(parts), name, re.DOTALL) is not None


def to_ms(time: datetime) -> int:
    """Return an aware time in ms since 1970, UTC."""
    return (time.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)


def wall_time(at_ms: int, *, zone: ZoneInfo) -> datetime:
    """Return what a clock in the zone shows at that instant, naive."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone).replace(tzinfo=None)


def first_instant_ms(wall: datetime, *, zone: ZoneInfo) -> int:
    """Return when a clock in the zone first shows that time; the gap's end if it never does."""
    at_ms = min(to_ms(wall.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    while wall_time(at_ms, zone=zone) < wall:
        at_ms += 60_000
    return at_ms


def month_span_ms(month: str, *, zone: ZoneInfo) -> tuple[int, int]:
    """Return the begin and end of a local month, written 2026-10."""
    begin = datetime.fromisoformat(f"{month}-01")
    end = (begin + timedelta(days=31)).replace(day=1)
    return first_instant_ms(begin, zone=zone), first_instant_ms(end, zone=zone)


def _base_price(key: Key, *, model: Model, book: BookVersion) -> Price | None:
    """Return the price before all factors but the tier's, which a price for the tier goes without.

    Where a book lists tiers, one that is not listed has no price.
    """
    for_tier = _look_up(key, table=model.tiers.get(key.tier, ()), same=book.same)
    if for_tier:
        return for_tier._replace(steps=("tier price", *for_tier.steps))
    price = _look_up(key, table=model.table, same=book.same)
    if price is None or book.tiers is None:
        return price
    if key.tier not in book.tiers:
        return None
    return price.times(book.tiers[key.tier], step="tier factor")


def _look_up(key: Key, *, table: Table, same: Mapping[str, str]) -> Price | None:
    """Return the first hit, from the highest part that the prompt reaches downward."""
    wanted = {key.token_class: "class", same.get(key.token_class, ALL): "same", ALL: "all"}
    for part in table:
        if part.above <= key.prompt:
            name = _first(part.prices, *wanted)
            if name is not None:
                return Price(part.prices[name], part.above, "", (wanted[name],))
    return None


def _first(prices: Numbers, *names: str) -> str | None:
    """Return the first of the names that has a price, were it 0."""
    return next((name for name in names if name in prices), None)


def _is_listed(lists: Lists, key: Key, *, names: set[str]) -> bool:
    """Tell whether each list that was written has the key; models are names or patterns."""
    own = {"tiers": key.tier, "modes": key.mode, "classes": key.token_class}
    return all(
        any(fits(model, name) for model in wanted for name in names)
        if field == "models"
        else own[field] in wanted
        for field, wanted in lists.items()
    )


def _read(sources: Iterable[Source]) -> Iterator[dict[str, Any]]:
    for source in sources:
        if isinstance(source, str):
            yield tomllib.loads(source)
            continue
        for file in sorted(source.glob("*.toml")) if source.is_dir() else [source]:
            yield tomllib.loads(file.read_text("utf-8"))


def _oldest_first(versions: Iterable[_Version]) -> list[_Version]:
    ordered = sorted(versions, key=lambda it: (it.name, it.start_ms))
    for it, after in pairwise(ordered):
        if (it.name, it.start_ms) == (after.name, after.start_ms):
            raise ValueError(f"two versions of {it.name} begin at once")
    return ordered


def _book_version(written: dict[str, Any]) -> BookVersion:
    zone = ZoneInfo(written["zone"])
    named: dict[str, Model] = {}
    for key, tables in written["models"].items():
        model = Model(
            key=key,
            table=_table(tables),
            tiers={tier: _table(it) for tier, it in tables.get("tier", {}).items()},
        )
        for name in (key, *tables.get("names", ())):
            if name in named:
                raise ValueError(f"{name!r} names two models")
            named[name] = model
    return BookVersion(
        name=written["book"],
        start_ms=_written_instant_ms(written["from"], zone=zone),
        zone=zone,
        currency=written["currency"],
        same=written.get("same", {}),
        tiers=_numbers(written["tiers"]) if "tiers" in written else None,
        modes=_numbers(written.get("modes", {})),
        windows=tuple(_window(name, it) for name, it in written.get("windows", {}).items()),
        named=named,
    )


def _window(name: str, written: dict[str, Any]) -> Window:
    return Window(
        name=name,
        days=frozenset(map(_DAYS.index, written["days"])),
        hours=tuple(_hours(text) for text in written["hours"]),
        lists=_lists(written),
        factor=_decimal(written["factor"]),
    )


def _contract_version(written: dict[str, Any]) -> ContractVersion:
    zone = ZoneInfo(written["zone"])
    return ContractVersion(
        name=written["contract"],
        start_ms=_written_instant_ms(written["from"], zone=zone),
        end_ms=_written_instant_ms(written.get("until", _NO_END), zone=zone),
        zone=zone,
        currency=written["currency"],
        book=written["book"],
        is_by_served={"requested": False, "served": True}[written.get("price_by", "requested")],
        covers=tuple(written["covers"]),
        overrides=tuple(map(_override, written.get("overrides", ()))),
    )


def _override(written: dict[str, Any]) -> Override:
    if ("factor" in written) == ("prices" in written):
        raise ValueError("an override has either a factor or prices")
    return Override(
        lists=_lists(written),
        factor=_decimal(written["factor"]) if "factor" in written else None,
        prices=_numbers(written["prices"]) if "prices" in written else None,
    )


def _table(written: dict[str, Any]) -> Table:
    bands = sorted(written.get("above", ()), key=lambda it: it["prompt"], reverse=True)
    return (*(Part(band["prompt"], _prices(band)) for band in bands), Part(0, _prices(written)))


def _prices(written: dict[str, Any]) -> Numbers:
    return _numbers({name: text for name, text in written.items() if name not in _NO_CLASSES})


def _numbers(written: dict[str, Any]) -> Numbers:
    return {name: _decimal(text) for name, text in written.items()}


def _decimal(text: object) -> Fraction:
    if not isinstance(text, str) or re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is None:
        raise ValueError(f"{text!r} is no decimal in a string")
    return Fraction(text)


def _lists(written: dict[str, Any]) -> Lists:
    names = ("models", "tiers", "modes", "classes")
    return {name: tuple(written[name]) for name in names if name in written}


def _hours(text: str) -> tuple[int, int]:
    begin, end = (60 * int(time[:2]) + int(time[3:]) for time in text.split("-"))
    if begin == end:
        raise ValueError(f"{text!r} is a whole day or none")
    return begin, end


def _written_instant_ms(wall: datetime, *, zone: ZoneInfo) -> int:
    at_ms = first_instant_ms(wall, zone=zone)
    if wall_time(at_ms, zone=zone) != wall:
        raise ValueError(f"{wall} is no time in {zone}")
    return at_ms
