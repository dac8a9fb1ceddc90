"""What billing's use cases ask of its store."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from billing.books import PriceBooks
from billing.contracts import Contracts, ContractVersion
from billing.invoicing import Invoice
from billing.periods import Month, Span
from billing.price_book import PriceBook


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """All books and contracts at one version, which every change of them moves.

    Contracts are as the newest revision of each version has them.
    """

    version: int
    books: PriceBooks
    contracts: Contracts


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedPeriod:
    """A period that an invoice was issued for, and under which book."""

    contract: str
    version_start_ms: int
    span: Span
    number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredText:
    """A file as it was taken in, by which key and when (ms since 1970, UTC)."""

    toml: str
    time_ms: int
    key_id: str
    revision: int


class TermsStore(Protocol):
    """Keeps books and contracts; their changes come one after the other."""

    def load(self) -> Terms:
        """Return all terms; raises Unavailable."""
        ...

    def add_book(self, toml: str, *, key_id: str, now_ms: int) -> tuple[PriceBook, bool]:
        """Keep a version of a book; False when it is there already, word for word.

        Raises InvalidArgument (BOOK_INVALID) with all faults, Refused (BOOK_CHANGED,
        PERIOD_ISSUED).
        """
        ...

    def set_contract(self, toml: str, *, key_id: str, now_ms: int) -> tuple[ContractVersion, bool]:
        """Keep a version of a contract, or its next revision; False when it is there already.

        Raises InvalidArgument (CONTRACT_INVALID) with all faults, Refused (CONTRACT_CHANGED,
        COVER_TAKEN, PERIOD_ISSUED).
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
    """Keeps invoices; what was issued never changes."""

    def issue(self, invoice: Invoice, *, terms_version: int, now_ms: int) -> Invoice | NotIssued:
        """Give a draft the next number of its series and keep it, in one transaction."""
        ...

    def issued_periods(self) -> Sequence[IssuedPeriod]:
        """Return all periods that invoices were issued for."""
        ...

    def find(self, number: str) -> Invoice | None:
        """Return an invoice as it was issued."""
        ...

    def list_invoices(
        self, *, contracts: Sequence[str] | None, month: Month | None, after: str, limit: int
    ) -> Sequence[Invoice]:
        """Return invoices of these contracts and this month by number, after one of them.

        None stands for all of them.
        """
        ...
