"""The hours of windows: a week of quarters of an hour, in which no two may meet for one key."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from billing.price_book import (
    DAY_NAMES,
    ModelKeys,
    Window,
    can_meet,
    is_meant,
    matches,
)
from meter.toml_file import Entry, quote

_DAY_MINUTES: Final = 24 * 60
_SLOT_MINUTES: Final = 15
_DAY_SLOTS: Final = _DAY_MINUTES // _SLOT_MINUTES
_WEEK_SLOTS: Final = 7 * _DAY_SLOTS
_HOURS: Final = re.compile(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")

Hours = tuple[int, int]
# A bit for each quarter of an hour of a week, from Monday on; hours behind Sunday come around.
Week = int


def read_hours(entry: Entry) -> Hours | None:
    """Return hours as minutes of the day, the second up to a day later than the first."""
    text = entry.text(chars_max=len("20:00-06:00"))
    if text is None:
        return None
    match = _HOURS.fullmatch(text)
    if match is None:
        entry.note(f'{quote(text)} must be hours such as "20:00-06:00"')
        return None
    begin_hour, begin_minute, end_hour, end_minute = map(int, match.groups())
    begin, end = begin_hour * 60 + begin_minute, end_hour * 60 + end_minute
    if max(begin_minute, end_minute) > 59 or begin >= _DAY_MINUTES or end > _DAY_MINUTES:  # noqa: PLR2004
        entry.note(
            f"{quote(text)} must begin at 00:00 to 23:45 and end at 24:00 at the latest; hours"
            ' that end on the next day are written "20:00-06:00"'
        )
        return None
    if begin % _SLOT_MINUTES or end % _SLOT_MINUTES:
        entry.note(f"{quote(text)} must begin and end on a quarter of an hour: :00, :15, :30, :45")
        return None
    if begin == end:
        entry.note(f'{quote(text)} is empty; the whole day is "00:00-24:00"')
        return None
    return (begin, end) if begin < end else (begin, end + _DAY_MINUTES)


def week_of(day: int, hours: Hours) -> Week:
    """Return the hours that begin on a day of the week, 0 for Monday."""
    begin, end = (minute // _SLOT_MINUTES for minute in hours)
    bits = ((1 << (end - begin)) - 1) << (day * _DAY_SLOTS + begin)
    return (bits | bits >> _WEEK_SLOTS) & ((1 << _WEEK_SLOTS) - 1)


def check_own_hours(days: Iterable[int], hours: Sequence[tuple[Entry, Hours]]) -> None:
    """Note hours of a window that meet others of it."""
    taken: Week = 0
    days = sorted(days)
    for entry, span in hours:
        own: Week = 0
        for day in days:
            own |= week_of(day, span)
        if taken & own:
            entry.note(f"meets other hours of this window on {_first_time(taken & own)}")
        taken |= own


def check_windows(windows: Sequence[tuple[Entry, Window]], keys: ModelKeys) -> None:
    """Note windows of which two could hold at once for a key."""
    listed = {it: keys.find(it) for _, window in windows for it in window.models}
    names = {it: key for it, key in listed.items() if key is not None} | keys.exact
    known = [
        (entry, window, _week(window), _reach(window, keys, names)) for entry, window in windows
    ]
    for first, second in combinations(known, 2):
        earlier, later = sorted((first, second), key=lambda it: it[0].line)
        both = first[2] & second[2]
        if both and _can_share(first[1], second[1]) and _can_meet(first[3], second[3]):
            later[0].note(
                f"meets window {quote(earlier[1].name)} of line {earlier[0].line} on"
                f" {_first_time(both)}; at any time a price has one window at most"
            )


def _week(window: Window) -> Week:
    week: Week = 0
    for day in window.days:
        for hours in window.hours:
            week |= week_of(day, hours)
    return week


def _first_time(week: Week) -> str:
    slot = (week & -week).bit_length() - 1
    day, of_day = divmod(slot, _DAY_SLOTS)
    hour, minute = divmod(of_day * _SLOT_MINUTES, 60)
    return f"{DAY_NAMES[day]} {hour:02d}:{minute:02d}"


def _can_share(first: Window, second: Window) -> bool:
    """Tell whether a tier and a mode are both windows'."""
    lists = ((first.tiers, second.tiers), (first.modes, second.modes))
    return all(not one or not other or set(one) & set(other) for one, other in lists)


@dataclass(frozen=True, slots=True)
class _Reach:
    """Which models a window is for: of all names that are written, and of each book's pattern."""

    names: frozenset[str]
    patterns: tuple[tuple[str, ...], ...]


def _reach(window: Window, keys: ModelKeys, names: Mapping[str, str]) -> _Reach:
    return _Reach(
        names=frozenset(
            name for name, key in names.items() if is_meant(name, by=window.models, model_key=key)
        ),
        patterns=tuple(_part_of(pattern, key, window, keys) for pattern, key in keys.patterns),
    )


def _part_of(pattern: str, key: str, window: Window, keys: ModelKeys) -> tuple[str, ...]:
    """Return patterns for those names of a book's pattern that a window is for."""
    if is_meant(key, by=window.models, model_key=None):
        return (pattern,)
    parts = (it for it in window.models if can_meet(it, pattern))
    return tuple(it for it in parts if not _is_taken(it, pattern, keys))


def _is_taken(part: str, pattern: str, keys: ModelKeys) -> bool:
    """Tell whether all names of a part are those of a longer pattern of the book."""
    longest = next((it for it, _ in keys.patterns if matches(it, part)), pattern)
    return len(longest) > len(pattern)


def _can_meet(first: _Reach, second: _Reach) -> bool:
    return bool(first.names & second.names) or any(
        can_meet(one, other)
        for parts, other_parts in zip(first.patterns, second.patterns, strict=True)
        for one in parts
        for other in other_parts
    )
