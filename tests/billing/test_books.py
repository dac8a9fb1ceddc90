"""The versions of books: which one is in force."""

from dataclasses import replace

import pytest

from billing.books import PriceBooks
from billing.price_book import PriceBook
from meter.domain.interval import INTERVAL_MS
from tests.billing.terms import a_book


def version(book: str, start: int) -> PriceBook:
    """A version of a book, from the interval of this number on."""
    return replace(a_book(), book=book, start_ms=start * INTERVAL_MS)


BOOKS = PriceBooks([version("b", 20), version("a", 5), version("b", 10), version("b", 30)])


@pytest.mark.parametrize(
    ("book", "at", "start"),
    [
        ("b", 0, None),
        ("b", 9, None),
        ("b", 10, 10),
        ("b", 19, 10),
        ("b", 20, 20),
        ("b", 29, 20),
        ("b", 30, 30),
        ("b", 1_000, 30),
        ("a", 5, 5),
        ("a", 4, None),
        ("c", 10, None),
    ],
)
def test_find_at__newest_that_has_begun(book: str, at: int, start: int | None) -> None:
    """A version is in force from its own begin until the next one's; before the first, none is."""
    found = BOOKS.find_at(book, at * INTERVAL_MS)
    assert (None if found is None else found.start_ms) == (
        None if start is None else start * INTERVAL_MS
    )
    last = BOOKS.find_at(book, (at + 1) * INTERVAL_MS - 1)
    assert last is found


def test_versions__oldest_first() -> None:
    """Books and their versions come in order, whatever order they were taken in."""
    assert [(it.book, it.start_ms // INTERVAL_MS) for it in BOOKS] == [
        *(("a", 5), ("b", 10), ("b", 20), ("b", 30)),
    ]
    assert [it.start_ms // INTERVAL_MS for it in BOOKS.versions("b")] == [10, 20, 30]
    assert BOOKS.versions("c") == ()
    assert "a" in BOOKS
    assert "c" not in BOOKS


def test_books__one_version_an_instant() -> None:
    """Two versions of one book from one instant are our own mistake."""
    with pytest.raises(AssertionError):
        PriceBooks([version("a", 5), version("a", 5)])
