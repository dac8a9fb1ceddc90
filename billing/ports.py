"""What billing's use cases ask of its store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Protocol, TypeAlias

from billing.books import PriceBooks
from billing.contracts import Contracts, ContractVersion
from billing.invoicing import Invoice, TermsFile
from billing.periods import Month, Span
from billing.price_book import PriceBook

# A file of the terms: `book` or `contract`, its name, and when the version begins.
FileKey: TypeAlias = tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """All books and contracts at one version, which every change of them moves.

    Contracts are as the newest revision of each version has them. `digests` has the SHA-256 of
    each file, in hex.
    """

    version: int
    books: PriceBooks
    contracts: Contracts
    digests: Mapping[FileKey, str] = field(default_factory=dict)

    def files(self, version: ContractVersion, span: Span) -> tuple[TermsFile, ...]:
        """Return the files that a span is priced by under a version: its own, and its book's.

        The contract's comes first, then the versions of the book that are in force, by time.
        """
        books = [it for it in self.books.versions(version.book) if span.start_ms < it.start_ms]
        first = self.books.find_at(version.book, span.start_ms)
        in_force = [it for it in (first, *books) if it is not None and it.start_ms < span.end_ms]
        return (
            self._file("contract", version.contract, version.start_ms),
            *(self._file("book", it.book, it.start_ms) for it in in_force),
        )

    def _file(self, kind: str, name: str, start_ms: int) -> TermsFile:
        digest = self.digests.get((kind, name, start_ms), "")
        return TermsFile(kind=kind, name=name, start_ms=start_ms, sha256=digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredText:
    """A file as it was taken in, by which key and when (ms since 1970, UTC)."""

    toml: str
    time_ms: int
    key_id: str
    revision: int


# Hears the terms as they are and as they would be, before a change is kept; raises Refused.
Judge: TypeAlias = Callable[[Terms, Terms], None]


class TermsStore(Protocol):
    """Keeps books and contracts; their changes come one after the other."""

    def load(self, version: int | None = None) -> Terms:
        """Return all terms, or as they were at a version; raises Unavailable."""
        ...

    def read_book(self, toml: str) -> PriceBook:
        """Return the version of a book that a text says; raises InvalidArgument (BOOK_INVALID)."""
        ...

    def with_book(self, toml: str) -> tuple[Terms, Terms, PriceBook]:
        """Return the terms as they are, and as they would be with a version of a book.

        Raises what `add_book` does. Keeps nothing.
        """
        ...

    def with_contract(self, toml: str) -> tuple[Terms, Terms, ContractVersion]:
        """Return the terms as they are, and as they would be with a version of a contract.

        Raises what `set_contract` does. Keeps nothing.
        """
        ...

    def add_book(
        self, toml: str, *, key_id: str, now_ms: int, judge: Judge
    ) -> tuple[PriceBook, bool]:
        """Keep a version of a book; False when it is there already, word for word.

        Raises InvalidArgument (BOOK_INVALID) with all faults, Refused (BOOK_CHANGED), and what the
        judge raises.
        """
        ...

    def set_contract(
        self, toml: str, *, key_id: str, now_ms: int, judge: Judge
    ) -> tuple[ContractVersion, bool]:
        """Keep a version of a contract, or its next revision; False when it is there already.

        Raises InvalidArgument (CONTRACT_INVALID) with all faults, Refused (COVER_TAKEN), and what
        the judge raises.
        """
        ...

    def find_book_text(self, book: str, start_ms: int) -> StoredText | None:
        """Return the file of a version of a book."""
        ...

    def find_contract_text(self, contract: str, start_ms: int) -> StoredText | None:
        """Return the file of a version of a contract, its newest revision."""
        ...


class PeriodState(StrEnum):
    """Whether a period was closed."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPeriod:
    """A period as it was materialised when it opened; times of a closed one never change.

    `month` is where the contract is; `tzdata` the edition of the time zones that made the times.
    `settled_cut_id` and `settled_terms` (a digest) say up to which cut and by which terms all that
    a closed period comes to was billed or written off; None: it has to be looked at.
    """

    contract: str
    month: Month
    span: Span
    version_start_ms: int
    zone: str
    tzdata: str
    state: PeriodState
    outcome: str
    exception: str
    close_ms: int | None
    cut_id: int | None
    settled_cut_id: int | None
    settled_terms: bytes | None


class NotIssued(Enum):
    """Why a draft was not issued."""

    ALREADY_ISSUED = "already issued"
    TERMS_CHANGED = "the terms have changed since it was drafted"


class InvoiceStore(Protocol):
    """Reads documents; what was issued never changes."""

    def find(self, number: str) -> Invoice | None:
        """Return an invoice as it was issued."""
        ...
