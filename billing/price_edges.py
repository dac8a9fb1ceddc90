"""The instants at which a book's prices may change: where usage may not be added up across. Pure.

Between two of them a key has one price, so that rating a sum is rating its intervals.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from billing.books import PriceBooks
from billing.periods import Span
from billing.price_book import Window
from meter.domain.interval import INTERVAL_MS

# Windows of a month are looked up once for all whose months are in the same zone.
_SPANS_KNOWN_MAX: Final = 512


def price_edges(books: PriceBooks, book: str, span: Span) -> tuple[int, ...]:
    """Return the instants (ms) inside a span at which prices of a book may change, rising.

    They are where a version begins, and where a window of the version in force opens or closes.
    """
    begins = [it.start_ms for it in books.versions(book) if span.holds(it.start_ms)]
    inside = {it for it in begins if it > span.start_ms}
    for start_ms, end_ms in pairwise(sorted({span.start_ms, *inside, span.end_ms})):
        version = books.find_at(book, start_ms)
        if version is not None and version.windows:
            inside.update(_window_edges(version.windows, version.zone, start_ms, end_ms))
    return tuple(sorted(inside))


@lru_cache(maxsize=_SPANS_KNOWN_MAX)
def _window_edges(
    windows: tuple[Window, ...], zone: ZoneInfo, start_ms: int, end_ms: int
) -> tuple[int, ...]:
    """Return where windows open or close, by a look at each quarter of an hour."""
    edges = []
    before: list[bool] | None = None
    for at_ms in range(start_ms, end_ms, INTERVAL_MS):
        now = [window.holds_at(at_ms, zone) for window in windows]
        if before is not None and now != before:
            edges.append(at_ms)
        before = now
    return tuple(edges)
