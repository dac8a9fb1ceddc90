"""Random books as parsed TOML, and the writing of parsed TOML as text, in whatever style."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from hypothesis import strategies as st

from meter.domain.tokens import BAND_EDGES, TokenClass
from tests.billing.terms import TIERS

# No two patterns of one length can mean one name.
KEYS: Final = ("a", "ab", "lora/a/*", "a*", "b*c", "*", 'odd "name"', "ünï.code")
ALIASES: Final = ("alias", "another", "lora/*", "ab*d/e", "x.y")
CLASSES: Final = (
    "input",
    "cache_read",
    "output",
    "reasoning",
    "image_input",
    "video_output",
    "all",
)
# Nights of two of them have a day between.
DAYS: Final = ("mon", "wed", "fri")
HOURS: Final = ("20:00-06:00", "06:00-12:15", "12:15-20:00", "23:45-24:00", "00:00-24:00")
Style = Callable[[int], str]
Document = dict[str, Any]


DECIMALS: Final = st.builds(
    lambda whole, part: f"{whole}{part}",
    st.integers(0, 100_000),
    st.sampled_from(["", ".0", ".5", ".125", ".000001", ".333333"]),
)
PRICES: Final = st.dictionaries(st.sampled_from(CLASSES), DECIMALS, min_size=1, max_size=4)
BANDS: Final = st.dictionaries(st.sampled_from(BAND_EDGES), PRICES, max_size=3)
MODES: Final = ("online", "batch")
# Most of them are such as have prices.
TOKEN_CLASSES: Final = st.sampled_from([TokenClass[it.upper()] for it in CLASSES if it != "all"])


@st.composite
def price_tables(draw: st.DrawFn) -> Document:
    """Prices by class, some of them for long prompts."""
    bands = draw(BANDS)
    above = [{"prompt": edge, **prices} for edge, prices in bands.items()]
    return draw(PRICES) | ({"above": above} if above else {})


PRICE_TABLES: Final = price_tables()
TIER_TABLES: Final = st.dictionaries(st.sampled_from(TIERS), PRICE_TABLES, max_size=2)
TIER_FACTORS: Final = st.dictionaries(st.sampled_from(TIERS), DECIMALS)
MODE_FACTORS: Final = st.dictionaries(st.sampled_from(MODES), DECIMALS)


@st.composite
def models(draw: st.DrawFn) -> Document:
    """Models, whose names do not meet."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True, min_size=1, max_size=4))
    aliases = draw(st.permutations(ALIASES))
    found: Document = {}
    for place, key in enumerate(keys):
        tiers = draw(TIER_TABLES)
        names = aliases[: place % 2]
        aliases = aliases[place % 2 :]
        found[key] = draw(PRICE_TABLES) | _filled(tier=tiers, names=names)
    return found


@st.composite
def windows(draw: st.DrawFn) -> Document:
    """Windows on days of their own."""
    days = draw(st.lists(st.sampled_from(DAYS), unique=True, max_size=3))
    return {
        f"w_{day}": {
            "days": [day],
            "hours": [draw(st.sampled_from(HOURS))],
            "factor": draw(DECIMALS),
            **_filled(
                tiers=draw(st.lists(st.sampled_from(TIERS), unique=True, max_size=3)),
                modes=draw(st.lists(st.sampled_from(MODES), unique=True)),
            ),
        }
        for day in days
    }


@st.composite
def books(draw: st.DrawFn) -> Document:
    """A book that has no faults."""
    return {
        "format": 1,
        "book": "generated",
        "from": datetime(2026, draw(st.integers(1, 12)), 1),  # noqa: DTZ001 — local in the zone
        "zone": draw(st.sampled_from(["UTC", "America/Los_Angeles", "Asia/Kathmandu"])),
        "currency": draw(st.sampled_from(["USD", "JPY", "BHD"])),
        "models": draw(models()),
        **_filled(
            same=draw(st.sampled_from([{}, {"reasoning": "output", "image_input": "input"}])),
            tiers=draw(TIER_FACTORS),
            modes=draw(MODE_FACTORS),
            windows=draw(windows()),
        ),
    }


BOOKS: Final = books()


def _filled(**entries: Document | list[str]) -> Document:
    """Leave out what is empty."""
    return {key: it for key, it in entries.items() if it}


def to_toml(document: Mapping[str, Any], *, style: Style) -> str:
    """Write parsed TOML; `style` says for each depth what tables are: header, dotted or inline."""
    return "\n".join(_rows(document, (), style=style)) + "\n"


def to_style(kinds: Sequence[str]) -> Style:
    """Return how the tables of each depth are written; below what has no header nothing has one."""
    first = next((place for place, kind in enumerate(kinds) if kind != "header"), len(kinds))
    fixed = [it if place < first or it != "header" else "inline" for place, it in enumerate(kinds)]
    return lambda depth: fixed[min(depth, len(fixed) - 1)]


STYLES: Final = st.lists(
    st.sampled_from(["header", "dotted", "inline"]), min_size=5, max_size=5
).map(to_style)


def to_key(key: str) -> str:
    """Write a key."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _rows(table: Mapping[str, Any], path: Sequence[str], *, style: Style) -> Iterator[str]:
    kind = style(len(path))
    headers = [key for key, it in table.items() if kind == "header" and _is_table(it)]
    for key, value in table.items():
        if key not in headers:
            yield from _pairs([key], value, depth=len(path), style=style)
    for key in headers:
        name = ".".join(map(to_key, [*path, key]))
        if isinstance(table[key], dict):
            yield f"[{name}]  # {key!r}".replace("\n", " ")
            yield from _rows(table[key], [*path, key], style=style)
        else:
            for item in table[key]:
                yield f"[[ {name} ]]"
                yield from _rows(item, [*path, key], style=style)


def _pairs(keys: Sequence[str], value: object, *, depth: int, style: Style) -> Iterator[str]:
    if isinstance(value, dict) and style(depth) == "dotted" and value:
        for key, it in value.items():
            yield from _pairs([*keys, key], it, depth=depth + 1, style=style)
    else:
        yield f"{' . '.join(map(to_key, keys))} = {_value(value)}"


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and isinstance(value[0], dict))


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{to_key(key)} = {_value(it)}" for key, it in value.items()) + " }"
    if isinstance(value, list):
        return "[\n  " + ",\n  ".join(map(_value, value)) + ",  # ]\n]"
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}'" if isinstance(value, str) and "'" not in value else json.dumps(value)
