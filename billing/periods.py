"""Billing periods: local months, made by this one function, on the 15-minute grid.

A month begins with the first instant of its first day in the zone: where midnight is missing, when
the clocks went over it; where it comes twice, the first time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meter.domain.interval import INTERVAL_MS, interval_start_ms, is_on_edge
from meter.domain.times import to_ms, to_time

YEAR_MIN: Final = 1980
YEAR_MAX: Final = 2200
_STEP: Final = timedelta(milliseconds=INTERVAL_MS)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Begins of months that are found once for all contracts of a zone.
_KNOWN_MAX: Final = 4096
# The longest that clocks ever went over: a whole day, where the date line was moved.
_GAP_STEPS_MAX: Final = 24 * 4 + 2
# Of the machine, not of a place; and zones that count leap seconds, whose edges lie on no grid.
_NO_ZONES: Final = frozenset({"localtime", "posixrules", "Factory"})
_NO_ZONE_FOLDERS: Final = ("posix/", "right/")


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A month of the calendar, in no zone."""

    year: int
    number: int

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.number:02d}"

    def next(self) -> "Month":
        """Return the month after it."""
        years, number = divmod(self.number, 12)
        return Month(self.year + years, number + 1)

    def previous(self) -> "Month":
        """Return the month before it."""
        return Month(self.year - 1, 12) if self.number == 1 else Month(self.year, self.number - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Time from `start_ms` until before `end_ms` (ms since 1970, UTC), both on edges."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        assert self.start_ms < self.end_ms
        assert is_on_edge(self.start_ms)
        assert is_on_edge(self.end_ms)

    def holds(self, at_ms: int) -> bool:
        """Tell whether an instant lies in it."""
        return self.start_ms <= at_ms < self.end_ms

    def meet(self, start_ms: int, end_ms: int | None) -> "Span | None":
        """Return what it shares with another span (None: without end), or None."""
        start_ms = max(self.start_ms, start_ms)
        end_ms = self.end_ms if end_ms is None else min(self.end_ms, end_ms)
        return Span(start_ms=start_ms, end_ms=end_ms) if start_ms < end_ms else None


class OffGrid(ValueError):
    """An instant that is no edge of an interval; the message offers the two nearest edges."""


def find_zone(name: str) -> ZoneInfo | None:
    """Return the time zone of an IANA name; None when there is none."""
    if name in _NO_ZONES or name.startswith(_NO_ZONE_FOLDERS):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def read_month(text: str) -> Month:
    """Return the month that a text like 2026-10 means; raises ValueError."""
    year, _, number = text.partition("-")
    if not (len(year) == 4 and len(number) == 2 and (year + number).isascii()):  # noqa: PLR2004
        raise ValueError(f"{text} is no month: write it as 2026-10")
    if not ((year + number).isdecimal() and 1 <= int(number) <= 12):  # noqa: PLR2004
        raise ValueError(f"{text} is no month: write it as 2026-10")
    if not YEAR_MIN <= int(year) <= YEAR_MAX:
        raise ValueError(f"{text}: months are of {YEAR_MIN} to {YEAR_MAX}")
    return Month(int(year), int(number))


def month_span(month: Month, zone: ZoneInfo) -> Span:
    """Return when a month begins and ends in a zone.

    Raises OffGrid where the zone's clock stood between two edges, as some did long ago.
    """
    return Span(start_ms=month_start_ms(month, zone), end_ms=month_start_ms(month.next(), zone))


@lru_cache(_KNOWN_MAX)
def month_start_ms(month: Month, zone: ZoneInfo) -> int:
    """Return the first instant (ms) of a month in a zone; raises OffGrid."""
    midnight = datetime(month.year, month.number, 1, tzinfo=zone)
    instant = midnight.astimezone(UTC)
    # A missing midnight is read with the offset before the gap, and falls at or behind its end;
    # if it began before midnight, the first instant of the day is a little earlier.
    while _is_in(instant - _STEP, month, zone):
        instant -= _STEP
    return check_edge(to_ms(instant))


@lru_cache(_KNOWN_MAX)
def month_of(at_ms: int, zone: ZoneInfo) -> Month:
    """Return the month in which an instant lies in a zone."""
    local = to_time(at_ms).astimezone(zone)
    month = Month(local.year, local.month)
    # Where the clocks went back over the begin of a month, its first hour is read as the last's.
    return month.next() if at_ms >= month_start_ms(month.next(), zone) else month


def read_local(local: datetime, zone: ZoneInfo) -> int:
    """Return the instant (ms) of a naive local time; of one that comes twice, the first.

    Raises ValueError for one of another age, or that the clocks went over, and OffGrid, which
    offers local times, for one between two edges.
    """
    assert local.tzinfo is None
    if not YEAR_MIN <= local.year <= YEAR_MAX:
        raise ValueError(f"{local.isoformat()}: times are of {YEAR_MIN} to {YEAR_MAX}")
    instant = local.replace(tzinfo=zone).astimezone(UTC)
    if not _exists(local, zone):
        floor = local.replace(minute=local.minute - local.minute % 15, second=0, microsecond=0)
        later = (floor + _STEP * count for count in range(1, _GAP_STEPS_MAX))
        after = next(it for it in later if _exists(it, zone))
        raise ValueError(
            f"{local.isoformat()} does not exist in {zone.key}: the clocks went over it, to"
            f" {after.isoformat()}"
        )
    before = instant - (instant - _EPOCH) % _STEP
    if before != instant:
        edges = (it.astimezone(zone).replace(tzinfo=None) for it in (before, before + _STEP))
        raise OffGrid(_off_grid(local.isoformat(), *(it.isoformat() for it in edges)))
    return to_ms(instant)


def check_edge(at_ms: int) -> int:
    """Return an instant that is an edge of an interval; raises OffGrid."""
    if not is_on_edge(at_ms):
        before = interval_start_ms(at_ms)
        times = (to_time(it).isoformat() for it in (at_ms, before, before + INTERVAL_MS))
        raise OffGrid(_off_grid(*times))
    return at_ms


def _exists(local: datetime, zone: ZoneInfo) -> bool:
    """Tell whether a clock in the zone ever shows a naive time."""
    shown = local.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
    return shown.replace(tzinfo=None) == local


def _off_grid(time: str, before: str, after: str) -> str:
    return f"{time} is not on a 15-minute edge; the nearest are {before} and {after}"


def _is_in(instant: datetime, month: Month, zone: ZoneInfo) -> bool:
    local = instant.astimezone(zone)
    return (local.year, local.month) == (month.year, month.number)
