"""The versions of all books, and which one is in force."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from billing.price_book import PriceBook


class PriceBooks:
    """All versions that are known; never changes."""

    __slots__ = ("_versions",)

    def __init__(self, versions: Iterable[PriceBook] = ()) -> None:
        self._versions: dict[str, list[PriceBook]] = {}
        for version in sorted(versions, key=lambda it: it.start_ms):
            known = self._versions.setdefault(version.book, [])
            assert not known or known[-1].start_ms < version.start_ms, "one version an instant"
            known.append(version)

    def __contains__(self, book: str) -> bool:
        return book in self._versions

    def __iter__(self) -> Iterator[PriceBook]:
        for book in sorted(self._versions):
            yield from self._versions[book]

    def having(self, versions: Iterable[PriceBook]) -> "PriceBooks":
        """Return these books with more versions."""
        return PriceBooks([*self, *versions])

    def versions(self, book: str) -> Sequence[PriceBook]:
        """Return a book's versions, oldest first; empty for one that is unknown."""
        return self._versions.get(book, ())

    def find_at(self, book: str, at_ms: int) -> PriceBook | None:
        """Return the version that is in force at an instant; None before the first."""
        versions = self._versions.get(book, [])
        place = bisect_right(versions, at_ms, key=lambda it: it.start_ms)
        return versions[place - 1] if place else None
