"""Numbers as Grafana writes them, in the units that the dashboards name."""

import math
from collections.abc import Sequence

_SI = (("p", -4), ("n", -3), ("µ", -2), ("m", -1), ("", 0), ("k", 1), ("M", 2), ("G", 3), ("T", 4))
_SHORT = ((" K", 3), (" Mil", 6), (" Bil", 9), (" Tri", 12))
_PLAIN = {"eps": " evt/s", "reqps": " req/s", "ops": " ops/s"}
_PREFIXED = {"watt": "W", "joule": "J", "massg": "g"}
_SECONDS = ((86_400, "day"), (3_600, "hour"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


def write(value: object, *, unit: str, decimals: int | None = None) -> str:
    """Return a value as a panel shows it; a dash stands for none."""
    if value is None:
        return "–"
    if unit == "string" or isinstance(value, str):
        return str(value)
    assert isinstance(value, float), value
    return _write_number(value, unit=unit, decimals=decimals)


def _write_number(value: float, *, unit: str, decimals: int | None) -> str:
    if unit == "percentunit":
        return f"{_round(value * 100, decimals)}%"
    if unit == "currencyUSD":
        sign = "-" if value < 0 else ""
        return f"{sign}${_shorten(abs(value), decimals).replace(' ', '')}"
    if unit == "kwatth":
        return _prefix(value * 1000, "Wh", decimals)
    if unit == "s":
        return _write_seconds(value, decimals)
    if unit in _PREFIXED or unit.startswith("si:"):
        return _prefix(value, _PREFIXED.get(unit, unit.removeprefix("si:")), decimals)
    if unit in _PLAIN:
        return _shorten(value, decimals) + _PLAIN[unit]
    if unit == "short":
        return _shorten(value, decimals)
    assert unit == "none", unit
    return _round(value, decimals)


def _write_seconds(value: float, decimals: int | None) -> str:
    for size, name in _SECONDS:
        if abs(value) >= size:
            return f"{_round(value / size, decimals)} {name}"
    return f"{_round(value, decimals)} s"


def _prefix(value: float, unit: str, decimals: int | None) -> str:
    power = 0 if value == 0 else math.floor(math.log10(abs(value)) / 3 + 1e-9)
    power = min(max(power, _SI[0][1]), _SI[-1][1])
    (letter,) = [letter for letter, each in _SI if each == power]
    return f"{_round(value / 1000**power, decimals)} {letter}{unit}"


def _shorten(value: float, decimals: int | None) -> str:
    name, exponent = "", 0
    for each, power in _SHORT:
        if abs(value) >= 10**power:
            name, exponent = each, power
    return _round(value / 10**exponent, decimals) + name


def _round(value: float, decimals: int | None) -> str:
    """Grafana's own choice of decimals where none are given: three digits that count."""
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    if value == 0:
        return "0"
    chosen = min(max(2 - math.floor(math.log10(abs(value))), 0), 6)
    text = f"{value:,.{chosen}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def choose_ticks(lowest: float, highest: float, *, count: int) -> Sequence[float]:
    """Return round numbers from just below the lowest to just above the highest."""
    if highest <= lowest:
        highest = lowest + (abs(lowest) or 1)
    rough = (highest - lowest) / count
    scale = 10 ** math.floor(math.log10(rough))
    step = next(it * scale for it in (1, 2, 2.5, 5, 10) if it * scale >= rough * 0.999)
    first, last = math.floor(lowest / step + 1e-9), math.ceil(highest / step - 1e-9)
    return [place * step for place in range(first, last + 1)]
