"""What the events cost by exact fractions, compared with the meter's own preview of the invoice.

Nothing of the product: prices are read from the file, tokens from the truth.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

_UNIT: Final = 1_000_000
_CENTS: Final = 100


class LineKey(NamedTuple):
    """What one line is for."""

    model: str
    tier: str
    mode: str
    token_class: str


class Line(NamedTuple):
    """Its tokens and its money."""

    quantity: int
    exact: Fraction
    billed: Fraction


def read_prices(book: Path) -> dict[str, Fraction]:
    """Read the price per million tokens of each tier from a book of flat prices."""
    tiers = tomllib.loads(book.read_text("utf-8"))["models"]["*"]["tier"]
    return {tier: Fraction(price["all"]) for tier, price in tiers.items()}


def bill(
    events: Iterable[Mapping[str, Any]], *, prices: Mapping[str, Fraction], month: str
) -> dict[LineKey, Line]:
    """Price the events that ended in a month of UTC; each line is rounded once, half up."""
    tokens: Counter[LineKey] = Counter()
    for event in events:
        if month_of(event["end_time_ms"]) == month:
            for name, count in event["classes"].items():
                key = LineKey(event["model"], event["tier"], event["mode"], name)
                tokens[key] += count
    lines = {}
    for key, quantity in tokens.items():
        if quantity:
            exact = prices[key.tier] * quantity / _UNIT
            billed = Fraction(int(exact * _CENTS + Fraction(1, 2)), _CENTS)
            lines[key] = Line(quantity, exact, billed)
    return lines


def month_of(end_ms: int) -> str:
    """Return the month of UTC as 2026-10."""
    return f"{datetime.fromtimestamp(end_ms / 1000, UTC):%Y-%m}"


def read_preview(document: Mapping[str, Any]) -> dict[LineKey, Line]:
    """Read the lines of a preview's JSON."""
    return {
        LineKey(line["model"], line["tier"], line["mode"], line["token_class"]): Line(
            line["quantity"], Fraction(line["exact"]), Fraction(line["billed"])
        )
        for line in document["lines"]
    }


def find_difference(
    expected: Mapping[LineKey, Line], preview: Mapping[str, Any] | None
) -> str | None:
    """Name the first difference between what is right and a preview; None when there is none."""
    found = read_preview(preview) if preview is not None else {}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            return f"invoice {' '.join(key)}: {expected.get(key)} expected, {found.get(key)} found"
    if preview is not None:
        total = sum((line.billed for line in expected.values()), Fraction())
        if Fraction(preview["total"]) != total:
            return f"invoice: {total} expected in all, {preview['total']} found"
    return None
