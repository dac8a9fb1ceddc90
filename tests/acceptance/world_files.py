"""Random price books and contracts, as TOML, but for the times at which they begin and end.

Whatever is drawn is valid; so that random worlds meet each other's terms, names are few.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, product
from random import Random
from typing import Any, Final, TypeVar

from tests.acceptance.oracle_bills import BAND_EDGES, CLASSES
from tests.acceptance.oracle_terms import fits

TIERS: Final = ("free", "medium", "high", "premium", "ultra")
# What is sold: keys of books, aliases, what patterns match, and what no book but one with `*` has.
MODELS: Final = (
    *("glm-5.1", "glm-5.1-fp8", "lora/glm-5.1/acme", "lora/other", "kimi-k2.6", "kimi-latest"),
    *("kimi", "qwen/3", "qwen-max", "qwen-max-turbo", "tiny", "mystery"),
)
# Tables of a book with their other names. No two patterns of one length have a name in common.
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "glm-5.1": ("glm-5.1-fp8", "lora/glm-5.1/*"),
    "kimi-k2.6": ("kimi-latest", "kimi*"),
    "qwen/3": ("qwen-*",),
    "tiny": (),
    "lora/*": (),
    "*-turbo": (),
    "*": (),
}
_WANTED: Final = (*MODELS, *_NAMES, "glm*", "kimi-*", "*a*")
_SAME: Final = {"reasoning": "output", "image_input": "input", "video_output": "output"}
_MODES: Final = ("online", "batch")
_DAY_MARKS: Final = 96
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PRICES: Final = ("0", "0.5", "5", "0.05", "1.40", "1.1875", "150", "0.000003", "3.333333333333")
_FACTORS: Final = ("0", "0.5", "0.75", "0.85", "1", "1.5", "0.3333333")

_Item = TypeVar("_Item")


def book_tables(random: Random, *, is_whole: bool) -> str:
    """Draw what a book says: tiers, modes, windows, models and prices; if whole, for every key."""
    return "\n".join(_Draw(random, is_whole=is_whole).book())


def contract_tables(random: Random) -> str:
    """Draw what a contract says behind its `covers`: how it prices, its parties, its overrides."""
    return "\n".join(_Draw(random, is_whole=False).contract())


class _Draw:
    """Draws parts of files, as lines."""

    def __init__(self, random: Random, *, is_whole: bool) -> None:
        self._random = random
        self._is_whole = is_whole

    def book(self) -> Iterable[str]:
        """Draw a book's own tables, its windows and its models."""
        if self._maybe(0.6):
            same = self._sample(list(_SAME), low=1, high=3)
            yield f"same = {_value({name: _SAME[name] for name in same})}"
        for name, keys in (("tiers", TIERS), ("modes", _MODES)):
            if self._maybe(0.6):
                written = self._sample(keys, low=len(keys) if self._is_whole else 1, high=len(keys))
                factors = {key: self._factor() for key in written}
                yield f"{name} = {_value(factors)}"
        models = self._sample(list(_NAMES), low=2, high=5) + (["*"] if self._is_whole else [])
        names = {key: [it for it in _NAMES[key] if self._maybe(0.8)] for key in models}
        yield from self._windows([*names, *chain(*names.values())])
        for key, of_it in names.items():
            yield from self._model(key, names=of_it)

    def contract(self) -> Iterable[str]:
        """Draw what stands behind a contract's `covers`."""
        if self._maybe(0.6):
            yield f'price_by = "{self._random.choice(("served", "requested"))}"'
        yield from ('seller = "nimbus-gmbh"', 'buyer = "acme-sa"')
        yield from ("[parties.nimbus-gmbh]", 'name = "Nimbus GmbH"', 'address = ["Torstr. 1"]')
        yield from ("[parties.acme-sa]", 'name = "ACME SA"', 'address = ["1 rue X", "Paris"]')
        yield from ("[document]", 'kind = "invoice"')
        drawn = [self._override() for _ in range(self._random.choice((0, 1, 2, 3)))]
        for index, override in enumerate(drawn):
            if not any(_takes_all(override, before=it) for it in drawn[:index]):
                yield "[[overrides]]"
                yield from (f"{name} = {_value(it)}" for name, it in override.items())

    def _model(self, key: str, *, names: Sequence[str]) -> Iterable[str]:
        yield f"[models.{json.dumps(key)}]"
        if names:
            yield f"names = {json.dumps(names)}"
        prices = self._prices() | ({"all": self._price()} if self._is_whole else {})
        yield from (f"{name} = {json.dumps(price)}" for name, price in prices.items())
        for tier in self._sample(TIERS, low=0, high=1):
            table = {**self._prices(), "above": self._above()}
            yield f"tier.{tier} = {_value({name: it for name, it in table.items() if it})}"
        for part in self._above():
            yield f"[[models.{json.dumps(key)}.above]]"
            yield from (f"{name} = {json.dumps(it)}" for name, it in part.items())

    def _above(self) -> list[dict[str, str | int]]:
        edges = self._sample(BAND_EDGES[1:], low=0, high=self._random.choice((0, 1, 2)))
        return [{"prompt": edge, **self._prices()} for edge in edges]

    def _prices(self) -> dict[str, str]:
        """Draw the prices of a table: for all classes, for some, or for both."""
        names = ["all"]
        if self._maybe(0.6):
            names = self._sample(("input", "output", "cache_read", *CLASSES), low=1, high=5)
            names += ["all"] if self._maybe(0.4) else []
        return {name: self._price() for name in names}

    def _price(self) -> str:
        if self._maybe(0.7):
            return self._random.choice(_PRICES)
        return f"{self._random.randrange(100)}.{self._random.randrange(10**9):09}"

    def _factor(self) -> str:
        return self._random.choice(_FACTORS)

    def _override(self) -> dict[str, Any]:
        override: dict[str, Any] = {"models": self._sample(_WANTED, low=1, high=4)}
        of_all = {"tiers": TIERS, "modes": _MODES, "classes": ("input", "output", *CLASSES)}
        override |= self._lists(of_all)
        if self._maybe(0.5):
            return {**override, "factor": self._factor()}
        classes = override.get("classes", ("input", "output", *CLASSES))
        names = self._sample(("all", *classes), low=1, high=min(3, len(classes)))
        return {**override, "prices": {name: self._price() for name in names}}

    def _windows(self, names: Sequence[str]) -> Iterable[str]:
        """Draw windows that never hold at once: for other hours, other days or other tiers.

        `names` are the book's for models; a window is for some of those.
        """
        marks = sorted(self._random.sample(range(97), k=self._random.choice((2, 4, 6))))
        hours = [*zip(marks[::2], marks[1::2], strict=True)]
        # From the second mark on, the last hours run past midnight.
        by_night = [*zip(marks[1::2], [*marks[2::2], marks[0]], strict=True)]
        models = [it for it in _WANTED if any(fits(name, it) or fits(it, name) for name in names)]
        window = partial(self._window, models=models)
        kind = self._random.choice(("none", "day", "night", "night", "weekend", "tiers"))
        if kind == "day":
            yield from window("day", hours)
        elif kind == "night" and marks[-1] < _DAY_MARKS:
            yield from window("night", by_night[-1:])
            if by_night[:-1]:
                yield from window("day", by_night[:-1])
        elif kind == "weekend":
            yield from window("week", hours, days=_DAYS[:5])
            yield from window("weekend", [(0, _DAY_MARKS)], days=_DAYS[5:])
        elif kind == "tiers" and marks[-1] < _DAY_MARKS:
            yield from window("low", by_night, tiers=("free", "medium"))
            yield from window("high", by_night, tiers=("high", "ultra"))

    def _window(
        self,
        name: str,
        hours: Sequence[tuple[int, int]],
        *,
        models: Sequence[str],
        days: Sequence[str] = _DAYS,
        tiers: Sequence[str] = (),
    ) -> Iterable[str]:
        texts = [f"{_clock(begin)}-{_clock(end)}" for begin, end in hours]
        yield f"[windows.{name}]"
        yield f"days = {json.dumps(self._sample(days, low=len(days) // 2, high=len(days)))}"
        yield f"hours = {json.dumps(texts)}"
        yield f'factor = "{self._factor()}"'
        if tiers:
            yield f"tiers = {json.dumps(tiers)}"
        lists = self._lists({"models": models, "modes": _MODES, "tiers": () if tiers else TIERS})
        yield from (f"{name} = {_value(it)}" for name, it in lists.items())

    def _lists(self, of_all: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        return {
            name: self._sample(it, low=1, high=min(6, len(it)))
            for name, it in of_all.items()
            if it and self._maybe(0.3)
        }

    def _maybe(self, share: float) -> bool:
        return self._random.random() < share

    def _sample(self, of_all: Sequence[_Item], *, low: int, high: int) -> list[_Item]:
        """Draw some, each once, in any order; what stands there twice comes up more often."""
        return list(dict.fromkeys(self._random.sample(of_all, k=self._random.randint(low, high))))


def _takes_all(override: Mapping[str, Any], *, before: Mapping[str, Any]) -> bool:
    """Tell whether an override never comes up, for one before it is for all of its keys."""
    models = [any(fits(it, name) for it in before["models"]) for name in override["models"]]
    return all(models) and _keys_of(override) <= _keys_of(before)


def _keys_of(override: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    of_all = {"tiers": TIERS, "modes": _MODES, "classes": CLASSES}
    keys = product(*(override.get(name, it) for name, it in of_all.items()))
    prices = override.get("prices", {"all": ""})
    return {key for key in keys if "all" in prices or key[-1] in prices}


def _value(value: object) -> str:
    """Write a value as TOML; a dictionary is an inline table."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_value(it)}' for name, it in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)


def _clock(mark: int) -> str:
    """Write a quarter of an hour of the day as a time, the last one as 24:00."""
    return f"{mark // 4:02}:{mark % 4 * 15:02}"
