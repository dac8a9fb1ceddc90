"""Parts of months that usage is added up by: no zone's month begins or ends inside a long one.

At each begin of a month in UTC there is a short cell that holds the begins of that month in every
zone, from 14 hours before to 12 hours after; between two of them lies a long one, of four weeks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Final

from meter.domain.times import to_ms, to_time

_HOUR_MS: Final = 3_600_000
# The zones that are the first and the last to begin a month.
_FIRST_MS: Final = 14 * _HOUR_MS
_LAST_MS: Final = 12 * _HOUR_MS
_MORE_THAN_A_MONTH: Final = timedelta(days=32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A part of time: ms since 1970, on edges of intervals, half-open."""

    start_ms: int
    end_ms: int


def cell_at(time_ms: int) -> Cell:
    """Return the cell that holds an instant (ms since 1970)."""
    month = to_time(time_ms + _FIRST_MS).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month_ms = to_ms(month)
    if time_ms < month_ms + _LAST_MS:
        return Cell(start_ms=month_ms - _FIRST_MS, end_ms=month_ms + _LAST_MS)
    next_ms = to_ms((month + _MORE_THAN_A_MONTH).replace(day=1))
    return Cell(start_ms=month_ms + _LAST_MS, end_ms=next_ms - _FIRST_MS)


def cells_over(*, start_ms: int, end_ms: int) -> Iterator[Cell]:
    """Yield the cells that have any part of `[start_ms, end_ms)`, in order."""
    while start_ms < end_ms:
        cell = cell_at(start_ms)
        yield cell
        start_ms = cell.end_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """A span of time with edges in it, as cells that lie wholly between two of them, and the rest.

    `whole` has each cell with the place, from 0, of the edge that its part begins at; `rest` are
    spans (ms, half-open) in order, which may hold edges.
    """

    whole: Sequence[tuple[int, Cell]]
    rest: Sequence[tuple[int, int]]


def divide(edges_ms: Sequence[int], *, until_ms: int) -> Division:
    """Divide the span from the first edge to the last; no cell is whole that ends after `until_ms`.

    Edges are at least two, and rise.
    """
    whole = []
    rest: list[tuple[int, int]] = []
    at_ms = edges_ms[0]
    for place, (start_ms, end_ms) in enumerate(pairwise(edges_ms)):
        for cell in cells_over(start_ms=start_ms, end_ms=min(end_ms, until_ms)):
            if start_ms <= cell.start_ms and cell.end_ms <= min(end_ms, until_ms):
                whole.append((place, cell))
                rest.append((at_ms, cell.start_ms))
                at_ms = cell.end_ms
    rest.append((at_ms, edges_ms[-1]))
    return Division(whole=whole, rest=[span for span in rest if span[0] < span[1]])
