"""Text in columns of equal cells, as terminals draw it: wide characters take two."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

# Vowels and final consonants that stand on the syllable before them.
_JOINING_JAMO: Final = range(0x1160, 0x1200)
_MARKS: Final = frozenset({"Mn", "Me", "Cf"})
_WIDE: Final = frozenset({"F", "W"})
_BLANKS: Final = re.compile(r"( +)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: how many cells wide, and on which side its texts stand."""

    width: int
    is_number: bool = False


def width_of(text: str) -> int:
    """Return how many cells a text takes."""
    return sum(map(_width, text))


def pad(text: str, width: int, *, to_right: bool = False) -> str:
    """Return a text with blanks up to a width, before it when it goes to the right."""
    blanks = " " * (width - width_of(text))
    return blanks + text if to_right else text + blanks


def wrap(text: str, width: int) -> list[str]:
    """Return a text as rows of at most so many cells (2 or more), at least one.

    Rows break at blanks and between wide characters; elsewhere only in what is longer than a row.
    """
    if width_of(text) <= width:
        return [text]
    rows = [""]
    for part in _parts(text, width):
        if width_of(rows[-1] + part) <= width:
            rows[-1] += part
        elif part.strip(" "):
            rows.append(part)
    return [row.rstrip(" ") for row in rows]


def lay_out(cells: Sequence[str], columns: Sequence[Column], *, gap: int) -> list[str]:
    """Return one row of a table, as many rows of text as its highest cell has."""
    wrapped = [wrap(cell, column.width) for cell, column in zip(cells, columns, strict=True)]
    return [
        (" " * gap).join(
            pad(text, column.width, to_right=column.is_number)
            for text, column in zip(row, columns, strict=True)
        )
        for row in zip_longest(*wrapped, fillvalue="")
    ]


def _parts(text: str, width: int) -> Iterator[str]:
    """Yield what is never broken: blanks, words, wide characters, pieces of what is too long."""
    for word in _BLANKS.split(text):
        part = ""
        for character in word:
            cells = _width(character)
            is_break = cells == 2 or (part != "" and _width(part[0]) == 2)  # noqa: PLR2004
            if cells and part and (is_break or width_of(part) + cells > width):
                yield part
                part = ""
            part += character
        if part:
            yield part


def _width(character: str) -> int:
    if unicodedata.category(character) in _MARKS or ord(character) in _JOINING_JAMO:
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1
