"""The rules of prices, written down once more, for random books and keys."""

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from billing.book_file import read_book
from billing.price_book import (
    DAY_NAMES,
    PriceKey,
)
from meter.domain.times import to_ms, to_time
from meter.domain.tokens import BAND_EDGES, Mode
from tests.billing import generated_books
from tests.billing.terms import TIERS


@st.composite
def keys(draw: st.DrawFn) -> PriceKey:
    """A key in two weeks in which clocks are moved, for names that some books have."""
    quarter = draw(st.integers(0, 14 * 96))
    at = datetime(2026, 10, 20, tzinfo=UTC) + timedelta(minutes=15 * quarter)
    names = ["a", "ab", "abc", "abd/e", "bc", "alias", "lora/a/x", "lora/b", 'odd "name"', "z"]
    return PriceKey(
        model=draw(st.sampled_from(names)),
        tier=draw(st.sampled_from(TIERS)),
        mode=draw(st.sampled_from(Mode)),
        token_class=draw(generated_books.TOKEN_CLASSES),
        band=draw(st.integers(0, len(BAND_EDGES))),
        at_ms=to_ms(at),
    )


@given(generated_books.BOOKS, st.lists(keys(), min_size=5, max_size=5))
def test_find_price__agrees_with_another_writing(
    document: dict[str, Any], asked: list[PriceKey]
) -> None:
    """For any book and key, the price is what the rules come to when written down once more."""
    book = read_book(generated_books.to_toml(document, style=lambda _: "inline"), tiers=TIERS)
    for key in asked:
        found = book.find_price(key)
        expected = naive_price(document, key)
        assert (None if found is None else Fraction(found.unit_price)) == expected


def naive_price(document: dict[str, Any], key: PriceKey) -> Fraction | None:
    """The rules once more, from the parsed TOML, in the words of the page."""
    at = to_time(key.at_ms).astimezone(ZoneInfo(document["zone"]))
    mode = key.mode.name.lower()
    models = document["models"]
    names = {name: own for own, it in models.items() for name in [own, *it.get("names", ())]}
    # Equal is better than longer.
    fitting = [
        (name == key.model, len(name), own) for name, own in names.items() if _fits(name, key.model)
    ]
    if not fitting:
        return None
    model = models[max(fitting)[2]]
    factors = []
    written = model.get("tier", {}).get(key.tier)
    base = None if written is None else _look_up(written, key, same=document.get("same", {}))
    if base is None:
        base = _look_up(model, key, same=document.get("same", {}))
        factors = [document["tiers"].get(key.tier)] if "tiers" in document else []
    if base is None or None in factors:
        return None
    factors.append(document.get("modes", {}).get(mode, "1"))
    for window in document.get("windows", {}).values():
        is_for = key.tier in window.get("tiers", TIERS) and mode in window.get("modes", mode)
        if is_for and _holds(window, at):
            factors.append(window["factor"])
    result = Fraction(base)
    for factor in factors:
        result *= Fraction(factor)
    return result


def _fits(name: str, model: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, name.split("*"))), model) is not None


def _look_up(table: dict[str, Any], key: PriceKey, *, same: dict[str, str]) -> str | None:
    reached = [it for it in table.get("above", ()) if it["prompt"] <= (0, *BAND_EDGES)[key.band]]
    name = key.token_class.name.lower()
    for part in [*sorted(reached, key=lambda it: -int(it["prompt"])), table]:
        for wanted in (name, same.get(name), "all"):
            if wanted in part:
                return str(part[wanted])
    return None


def _holds(window: dict[str, Any], at: datetime) -> bool:
    """Whether a window began in one of the last quarters of an hour and has not ended since."""
    begin, end = window["hours"][0].split("-")
    minutes = [int(it[:2]) * 60 + int(it[3:]) for it in (begin, end)]
    length = (minutes[1] - minutes[0]) % (24 * 60) or 24 * 60
    began = at.replace(tzinfo=None) - timedelta(minutes=minutes[0])
    ago = timedelta(hours=began.hour, minutes=began.minute)
    days = [DAY_NAMES.index(it) for it in window["days"]]
    return began.weekday() in days and ago < timedelta(minutes=length)
