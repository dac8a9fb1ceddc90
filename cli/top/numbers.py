"""Numbers and lines for people: three digits and a prefix, bars, and curves one line high."""

from collections.abc import Sequence
from math import isfinite
from typing import Final

NOTHING: Final = "–"
_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
_THOUSAND: Final = 1000
_BARS: Final = " ▏▎▍▌▋▊▉█"
_CURVE: Final = "▁▂▃▄▅▆▇█"
_EIGHTHS: Final = 8
_PERCENT_MAX: Final = 999


def write_number(number: float | None) -> str:
    """Return a number from 0 on in six characters at most: 0, 0.0123, 1.23, 12.3k; – for None."""
    if number is None or not isfinite(number):
        return NOTHING
    if number == 0:
        return "0"
    rounded = float(f"{number:.3g}")
    if rounded < 0.001:  # noqa: PLR2004 — the smallest that six characters can tell from 0
        return "<0.001"
    if rounded < 0.1:  # noqa: PLR2004 — two digits behind the zeros, as six characters have room
        return f"{rounded:.4f}"
    place = 0
    while rounded >= _THOUSAND and place < len(_PREFIXES) - 1:
        rounded, place = float(f"{rounded / _THOUSAND:.3g}"), place + 1
    if rounded >= _THOUSAND:
        return f">999{_PREFIXES[-1]}"
    return f"{rounded:#.3g}".rstrip(".") + _PREFIXES[place]


def draw_bar(ratio: float, *, columns: int) -> str:
    """Return a bar for a ratio of 0 to 1, as exact as an eighth of a column."""
    eighths = round(min(1.0, max(0.0, ratio)) * columns * _EIGHTHS)
    full, rest = divmod(eighths, _EIGHTHS)
    return (_BARS[-1] * full + (_BARS[rest] if rest else "")).ljust(columns)


def draw_curve(points: Sequence[float | None]) -> str:
    """Return a curve one line high from 0 to its own highest point; a blank for None."""
    highest = max((point for point in points if point is not None), default=0.0)
    steps = len(_CURVE) - 1
    return "".join(
        " " if point is None else _CURVE[round(point / highest * steps) if highest else 0]
        for point in points
    )


def write_percent(ratio: float | None) -> str:
    """Return a ratio in five characters at most: 0%, <1%, 93%, >999%; – for None."""
    if ratio is None:
        return NOTHING
    percent = round(ratio * 100)
    if percent > _PERCENT_MAX:
        return f">{_PERCENT_MAX}%"
    return "<1%" if ratio and not percent else f"{percent}%"
