"""Times as people type them, and spans of time on the edges of intervals."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import click

from meter.domain.interval import interval_start_ms, next_edge_ms

_UNITS_MS: Final = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AGO = re.compile(r"(\d{1,5})([mhd])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Time from `start_ms` until before `end_ms` (ms since 1970, UTC), both on 15-minute edges."""

    start_ms: int
    end_ms: int

    def __str__(self) -> str:
        return f"{format_edge(self.start_ms)} to {format_edge(self.end_ms)} UTC"


def check_time(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return an option's text when it is a time; `to_ms` reads it once the clock is known."""
    if value is not None:
        try:
            to_ms(value, now_ms=0)
        except ValueError as error:
            raise click.BadParameter(
                f"{value} is no time: write 2026-11-01 or 2026-11-01T09:15, or 90m, 12h, 7d for"
                " how long ago.",
                context,
                param,
            ) from error
    return value


def to_ms(text: str, *, now_ms: int) -> int:
    """Return the milliseconds since 1970 that the text means; raises ValueError for no time."""
    ago = _AGO.fullmatch(text)
    if ago:
        return now_ms - int(ago[1]) * _UNITS_MS[ago[2]]
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1000)


def check_order(since: str, until: str | None) -> None:
    """Refuse two times of which the first is not earlier, whatever the clock says.

    Raises click.BadParameter. A time and a time ago are compared by `to_span` alone.
    """
    if until is None or bool(_AGO.fullmatch(since)) is not bool(_AGO.fullmatch(until)):
        return
    if to_ms(until, now_ms=0) <= to_ms(since, now_ms=0):
        raise _wrong_order(since, until)


def to_span(since: str, until: str | None, *, now_ms: int) -> Span:
    """Return the span between two times, snapped outward; without `until` now is its last moment.

    Raises click.BadParameter when it would end before it begins.
    """
    begin_ms = to_ms(since, now_ms=now_ms)
    end_ms = now_ms + 1 if until is None else to_ms(until, now_ms=now_ms)
    if end_ms <= begin_ms:
        raise _wrong_order(since, until)
    return Span(start_ms=interval_start_ms(begin_ms), end_ms=next_edge_ms(end_ms))


def format_edge(time_ms: int) -> str:
    """Return a time for people to read, to the minute."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _wrong_order(since: str, until: str | None) -> click.BadParameter:
    end = "now" if until is None else until
    return click.BadParameter(f"{since} is not before {end}.", param_hint="--since")
