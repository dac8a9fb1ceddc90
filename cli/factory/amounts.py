"""Figures of plans and comparisons for people: dollars, watts, tokens and how many times."""

from decimal import Decimal
from fractions import Fraction
from typing import Final

from billing.money import round_fraction

ABSENT: Final = "-"
_SCALES: Final = ((10**9, "B"), (10**6, "M"))
_THOUSAND: Final = 1_000


def write_usd(amount: Fraction) -> str:
    """Return dollars: billions and millions with three decimals, less in cents."""
    sign, size = ("-" if amount < 0 else ""), abs(amount)
    for unit, name in _SCALES:
        if size >= unit:
            return f"{sign}${round_fraction(size / unit, decimals=3):,} {name}"
    return f"{sign}${round_fraction(size, decimals=2):,}"


def write_price(amount: Fraction | None) -> str:
    """Return dollars to four digits or the cent, whichever is more; for prices and ratios."""
    if amount is None:
        return ABSENT
    decimals = 2 if abs(amount) >= 1 or not amount else 4
    return f"{round_fraction(amount, decimals=decimals):,}"


def write_power(power_mw: Fraction, *, is_small: bool = False) -> str:
    """Return megawatts with their unit, or kilowatts where it is a small factory."""
    if is_small:
        return f"{_trim(round_fraction(power_mw * _THOUSAND, decimals=3))} kW"
    return f"{_trim(round_fraction(power_mw, decimals=3))} MW"


def write_tokens(per_second: Fraction) -> str:
    """Return tokens a second, in millions where there are any."""
    if per_second >= _SCALES[1][0]:
        return f"{_trim(round_fraction(per_second / 10**6, decimals=3))} M"
    return f"{round_fraction(per_second, decimals=0):,}"


def write_percent(part: Fraction, whole: Fraction) -> str:
    """Return a share with one decimal."""
    return f"{round_fraction(100 * part / whole, decimals=1)} %" if whole else ABSENT


def write_times(times: Fraction | None) -> str:
    """Return how many times more: 2.00x."""
    return ABSENT if times is None else f"{round_fraction(times, decimals=2)}x"


def to_number(value: Fraction | None, *, decimals: int = 6) -> float | None:
    """Return a figure for JSON."""
    return None if value is None else float(round_fraction(value, decimals=decimals))


def _trim(value: Decimal) -> str:
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
