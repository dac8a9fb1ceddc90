"""A TOML file that a person has written: values that know where they stand, and all faults at once.

A reader asks each value to be what it must be. If it is not, that is noted, with line and place,
and the reader goes on with None; at the end `TomlFile.check` raises if anything was noted.
"""

import json
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from meter.domain.limits import (
    DIGITS_MAX,
    FAULTS_MAX,
    FILE_CHARS_MAX,
    LIST_ENTRIES_MAX,
    NESTING_MAX,
    QUOTE_CHARS_MAX,
)
from meter.toml_lines import TomlPath, find_end, find_lines, find_too_deep

Choice = TypeVar("Choice")
# Python writes no number of thousands of digits; a price has none.
_INTEGER_MAX: Final = 10**18
_DECIMAL: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_LONG_NUMBER: Final = re.compile(r"(?<![0-9_])[0-9_]{4000}")
_WHERE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Fault(NamedTuple):
    """What is wrong at a place of a file; `line` counts from 1, `place` is empty for no key."""

    line: int
    place: str
    message: str


class FileFaults(ValueError):
    """A file that cannot be used, with all that is wrong with it, in the order of its lines.

    `faults` has at most FAULTS_MAX, `left_off_count` says how many more there are.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        found = sorted(set(faults))
        self.faults: Final = tuple(found[:FAULTS_MAX])
        self.left_off_count: Final = len(found) - len(self.faults)
        super().__init__(self.faults, self.left_off_count)

    def __str__(self) -> str:
        return "\n".join(self._lines(""))

    def describe(self, file: str) -> str:
        """Return a line for each fault, as compilers write them: `FILE:LINE: place: message`."""
        return "\n".join(self._lines(f"{file}:"))

    def _lines(self, prefix: str) -> Iterator[str]:
        for line, place, message in self.faults:
            yield f"{prefix}{line}: {place}: {message}" if place else f"{prefix}{line}: {message}"
        if self.left_off_count:
            yield f"{prefix} and {self.left_off_count} more faults"


class TomlFile:
    """A file, its values, and the faults that were noted."""

    def __init__(self, text: str) -> None:
        """Read the text; raises FileFaults when it is too large, or no TOML."""
        if len(text) > FILE_CHARS_MAX:
            raise FileFaults([Fault(1, "", f"longer than {FILE_CHARS_MAX:,} characters")])
        too_deep = find_too_deep(text, nesting_max=NESTING_MAX)
        if too_deep is not None:
            raise FileFaults([Fault(too_deep, "", f"nested in more than {NESTING_MAX} levels")])
        try:
            content = tomllib.loads(text, parse_float=_Number)
        except tomllib.TOMLDecodeError as error:
            raise FileFaults([_to_fault(str(error), text)]) from error
        except ValueError as error:
            # Python makes no number of so many digits; tomllib does not say where they are.
            digits = _LONG_NUMBER.search(text)
            line = 1 if digits is None else text.count("\n", 0, digits.start()) + 1
            raise FileFaults([Fault(line, "", "a number is too long")]) from error
        self._lines = find_lines(text)
        self._faults: list[Fault] = []
        self.root: Final = Entry(self, (), content)

    @property
    def fault_count(self) -> int:
        """How many faults were noted so far."""
        return len(self._faults)

    def line_of(self, path: TomlPath) -> int:
        """Return the line of a path, of what it lies in when it is not there itself."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def note(self, path: TomlPath, message: str) -> None:
        """Note what is wrong at a path, and go on."""
        self._faults.append(Fault(self.line_of(path), to_place(path), message))

    def check(self) -> None:
        """Raise FileFaults when anything was noted."""
        if self._faults:
            raise FileFaults(self._faults)


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of a file, and where it is.

    Each method returns what the value is; None when it is not, and this was noted.
    """

    file: TomlFile
    path: TomlPath
    value: object

    @property
    def line(self) -> int:
        """The line that it stands in, from 1."""
        return self.file.line_of(self.path)

    def note(self, message: str) -> None:
        """Note what is wrong with it."""
        self.file.note(self.path, message)

    def table(self, known: Collection[str] | None = None) -> "Table | None":
        """Return a table; keys that are not `known` are noted and left out. It may be empty."""
        if not isinstance(self.value, dict):
            self.note(f"is {_kind(self.value)}, and must be a table")
            return None
        entries = {key: Entry(self.file, (*self.path, key), it) for key, it in self.value.items()}
        if known is not None:
            for key in entries.keys() - set(known):
                entries.pop(key).note(f"no such key; here are {', '.join(known)}")
        return Table(self, entries)

    def entries(self) -> list["Entry"] | None:
        """Return the entries of a list."""
        if not isinstance(self.value, list):
            self.note(f"is {_kind(self.value)}, and must be a list")
            return None
        if not self.value:
            self.note("is empty; leave it out")
            return None
        if len(self.value) > LIST_ENTRIES_MAX:
            self.note(f"has more than {LIST_ENTRIES_MAX:,} entries")
            return None
        return [Entry(self.file, (*self.path, index), it) for index, it in enumerate(self.value)]

    def distinct(self) -> list["Entry"]:
        """Return the entries of a list, empty for none; texts that are there twice are noted."""
        seen: set[str] = set()
        distinct = []
        for entry in self.entries() or ():
            if isinstance(entry.value, str) and entry.value in seen:
                entry.note(f"{quote(entry.value)} is here twice")
                continue
            if isinstance(entry.value, str):
                seen.add(entry.value)
            distinct.append(entry)
        return distinct

    def text(self, *, chars_max: int) -> str | None:
        """Return a text of at most so many characters, none of them control."""
        if not isinstance(self.value, str):
            self.note(f"is {_kind(self.value)}, and must be a text in quotes")
            return None
        if not self.value.strip():
            self.note("is empty")
            return None
        if len(self.value) > chars_max:
            self.note(f"has more than {chars_max} characters")
            return None
        if not self.value.isprintable():
            self.note("has characters that cannot be printed")
            return None
        return self.value

    def matching(self, form: re.Pattern[str], *, chars_max: int) -> str | None:
        """Return a text of a form."""
        text = self.text(chars_max=chars_max)
        if text is not None and form.fullmatch(text) is None:
            self.note(f"is {quote(text)}, and must match {form.pattern}")
            return None
        return text

    def choice(self, known: Mapping[str, Choice], *, what: str) -> Choice | None:
        """Return what a text stands for; `what` it must be reads on as: is no `what`."""
        text = self.text(chars_max=QUOTE_CHARS_MAX)
        if text is not None and text not in known:
            self.note(f"{quote(text)} is no {what}; there are {', '.join(known)}")
            return None
        return None if text is None else known[text]

    def choices(self, known: Mapping[str, Choice], *, what: str) -> tuple[Choice, ...]:
        """Return what the texts of a list stand for, none of them twice; what is none is noted."""
        found = [entry.choice(known, what=what) for entry in self.distinct()]
        return tuple(it for it in found if it is not None)

    def integer(self, *, minimum: int, maximum: int) -> int | None:
        """Return a whole number."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.note(f"is {_kind(self.value)}, and must be a whole number without quotes")
            return None
        if not minimum <= self.value <= maximum:
            self.note(f"must be {minimum} to {maximum}")
            return None
        return self.value

    def decimal(self) -> Decimal | None:
        """Return a price or factor: exact, 0 or more, written as a string of plain digits."""
        if not isinstance(self.value, str):
            written = _number(self.value)
            example = "such as" if written is None else "to be exact:"
            self.note(
                f'is {_kind(self.value)}, and must be a string {example} "{written or "1.40"}"'
            )
            return None
        if re.fullmatch(rf"-{_DECIMAL.pattern}", self.value):
            self.note(f"{quote(self.value)} is negative; it must be 0 or more")
            return None
        match = _DECIMAL.fullmatch(self.value)
        if match is None:
            self.note(
                f'{quote(self.value)} is no plain decimal such as "1.40": digits, and at most one'
                " point with digits behind it; no sign, no exponent"
            )
            return None
        if any(len(digits or "") > DIGITS_MAX for digits in match.groups()):
            self.note(f"has more than {DIGITS_MAX} digits on one side of the point")
            return None
        return Decimal(self.value)

    def truth(self) -> bool | None:
        """Return true or false."""
        if not isinstance(self.value, bool):
            self.note(f"is {_kind(self.value)}, and must be true or false")
            return None
        return self.value

    def local_date(self) -> date | None:
        """Return a date without a time."""
        if isinstance(self.value, date) and not isinstance(self.value, datetime):
            return self.value
        self.note(f"is {_kind(self.value)}, and must be a date, without quotes: 2026-10-15")
        return None

    def local_time(self) -> datetime | None:
        """Return a date and time without an offset."""
        if isinstance(self.value, datetime):
            if self.value.tzinfo is None:
                return self.value
            self.note("has an offset; leave it off: the time is local in `zone`")
        else:
            self.note(
                f"is {_kind(self.value)}, and must be a date with a time, without quotes:"
                " 2026-10-01T00:00:00"
            )
        return None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a file: the entry that it is, and those that it has by their keys."""

    entry: Entry
    entries: Mapping[str, Entry]

    def find(self, key: str) -> Entry | None:
        """Return an entry, or None."""
        return self.entries.get(key)

    def need(self, key: str) -> Entry | None:
        """Return an entry; None when it had to note that there is none."""
        entry = self.entries.get(key)
        if entry is None:
            self.entry.file.note((*self.entry.path, key), "is missing")
        return entry


@dataclass(frozen=True, slots=True)
class _Number:
    """A number with a point or an exponent, as it is written; it is never made one."""

    text: str


def to_place(path: TomlPath) -> str:
    """Return a path as a TOML key, with the indexes of lists: `models."glm-5.1".above[0].input`."""
    place = ""
    for step in path:
        if isinstance(step, int):
            place += f"[{step}]"
        else:
            key = (
                step if _BARE_KEY.fullmatch(step) and len(step) <= QUOTE_CHARS_MAX else quote(step)
            )
            place += f".{key}" if place else key
    return place


def quote(text: str) -> str:
    """Return a text in quotes for a message: on one line, and cut where it is long."""
    if len(text) > QUOTE_CHARS_MAX:
        text = f"{text[:QUOTE_CHARS_MAX]}…"
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _to_fault(message: str, text: str) -> Fault:
    match = _WHERE.search(message)
    if match is None:
        return Fault(1, "", message)
    # Of a text that is not closed tomllib says that it goes on to the end.
    line = int(match[1]) if match[1] else find_end(text)
    return Fault(line, "", f"no TOML: {message[: match.start()]}")


def _number(value: object) -> str | None:
    """Return a number that is 0 or more and not too long, as it would be in a string."""
    text = value.text if isinstance(value, _Number) else ""
    if isinstance(value, int) and 0 <= value < _INTEGER_MAX:
        text = str(value)
    match = _DECIMAL.fullmatch(text)
    return text if match is not None and len(text) <= QUOTE_CHARS_MAX else None


def _kind(value: object) -> str:
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        ((int, _Number), "a number"),
        (str, "a text"),
        (list, "a list"),
        (dict, "a table"),
        ((date, time), "a date or a time"),
    )
    return next(name for kind, name in kinds if isinstance(value, kind))
