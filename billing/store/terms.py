"""Books and contracts in Postgres: as the files that were taken in, and each with its version.

A change locks the terms' one row before it looks at anything, so that its rules are checked against
the newest terms and the newest invoices; what issues an invoice holds the same row. Each row keeps
the version of the terms that it came with: terms of then are those up to a version.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine, select, update

from billing.actions import BillingAction
from billing.book_file import read_book
from billing.books import PriceBooks
from billing.contract_file import read_contract
from billing.contracts import Contracts, ContractVersion
from billing.errors import BillingReason
from billing.ports import Judge, StoredText, Terms
from billing.price_book import PriceBook
from billing.store.periods import lay_out_contract
from billing.store.tables import terms
from billing.store.term_rows import (
    currency_of,
    find_book,
    find_contract,
    insert_book,
    insert_contract,
    select_books,
    select_contracts,
    to_digests,
)
from meter.audit_log import Change, ChangeLog
from meter.domain.account import PATH_SEPARATOR, AccountTree
from meter.domain.errors import InvalidArgument, Refused
from meter.domain.times import to_time
from meter.runtime.engine import store_faults
from meter.runtime.garbage import uncollected
from meter.runtime.zones import tzdata_version
from meter.toml_file import FileFaults

_ID_MARK: Final = "id:"
# Before any terms: rows of before there were versions have 0.
_NONE: Final = Terms(version=-1, books=PriceBooks(), contracts=Contracts())
# Terms of then that are kept in mind, for whoever explains or replays many documents of one time.
_PAST_MAX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Set:
    """A contract's text, read: the version, whom its covers mean, and the terms with it."""

    version: ContractVersion
    covers: Mapping[str, str]
    after: Terms


class TermsStore:
    """Reads and changes books and contracts; safe to share between threads."""

    def __init__(
        self,
        engine: Engine,
        *,
        tiers: Collection[str],
        tree: Callable[[], AccountTree],
        change_log: ChangeLog,
    ) -> None:
        """Take the engine, the tiers that are sold, the accounts as last known, and the log."""
        self._engine = engine
        self._tiers = tiers
        self._tree = tree
        self._change_log = change_log
        self._known = _NONE
        self._past: dict[int, Terms] = {}

    def load(self, version: int | None = None) -> Terms:
        """Return all terms, or as they were at a version; only what is new is read."""
        with store_faults(), self._engine.connect() as connection:
            connection.execution_options(isolation_level="REPEATABLE READ")
            now = self._load(connection)
            if version is None or version >= now.version:
                return now
            if version not in self._past:
                past = _advance(connection, _NONE, version)
                kept = list(self._past.items())[1 - _PAST_MAX :]
                self._past = {**dict(kept), version: past}
                return past
            return self._past[version]

    def read_book(self, toml: str) -> PriceBook:
        """Return the version of a book that a text says; raises InvalidArgument (BOOK_INVALID)."""
        with _as_invalid(BillingReason.BOOK_INVALID):
            return read_book(toml, tiers=self._tiers)

    def with_book(self, toml: str) -> tuple[Terms, Terms, PriceBook]:
        """Return the terms as they are, and as they would be with a version of a book."""
        book, known = self.read_book(toml), self.load()
        return known, _with_book(known, book, toml), book

    def with_contract(self, toml: str) -> tuple[Terms, Terms, ContractVersion]:
        """Return the terms as they are, and as they would be with a version of a contract."""
        known = self.load()
        found = self._read_contract(toml, known)
        return known, found.after, found.version

    def add_book(
        self, toml: str, *, key_id: str, now_ms: int, judge: Judge
    ) -> tuple[PriceBook, bool]:
        """Keep a version of a book; False when it is there already, word for word.

        Raises InvalidArgument (BOOK_INVALID), Refused (BOOK_CHANGED), and what the judge raises.
        """
        book = self.read_book(toml)
        with store_faults(), self._changing() as (connection, known):
            stored = find_book(connection, book.book, book.start_ms)
            if stored is not None and stored.toml == toml:
                return book, False
            after = _with_book(known, book, toml)
            judge(known, after)
            insert_book(
                connection,
                book,
                toml,
                terms_version=after.version,
                key_id=key_id,
                now_ms=now_ms,
            )
            self._note(
                connection,
                BillingAction.BOOK_IMPORT,
                book.book,
                start_ms=book.start_ms,
                toml=toml,
                key_id=key_id,
                now_ms=now_ms,
            )
        return book, True

    def set_contract(
        self, toml: str, *, key_id: str, now_ms: int, judge: Judge
    ) -> tuple[ContractVersion, bool]:
        """Keep a version of a contract, or its next revision; False when it is there already.

        Raises InvalidArgument (CONTRACT_INVALID), Refused (COVER_TAKEN), and what the judge raises.
        """
        with store_faults(), self._changing() as (connection, known):
            found = self._read_contract(toml, known)
            version = found.version
            stored = find_contract(connection, version.contract, version.start_ms)
            if stored is not None and stored.toml == toml:
                return version, False
            judge(known, found.after)
            revision = 1 if stored is None else stored.revision + 1
            insert_contract(
                connection,
                version,
                toml,
                found.covers,
                revision=revision,
                terms_version=found.after.version,
                key_id=key_id,
                now_ms=now_ms,
            )
            self._note(
                connection,
                BillingAction.CONTRACT_SET,
                version.contract,
                start_ms=version.start_ms,
                toml=toml,
                key_id=key_id,
                now_ms=now_ms,
                revision=revision,
            )
            lay_out_contract(
                connection,
                version.contract,
                found.after.contracts.versions(version.contract),
                now_ms=now_ms,
                tzdata=tzdata_version(),
            )
        return version, True

    def find_book_text(self, book: str, start_ms: int) -> StoredText | None:
        """Return the file of a version of a book."""
        with store_faults(), self._engine.connect() as connection:
            return find_book(connection, book, start_ms)

    def find_contract_text(self, contract: str, start_ms: int) -> StoredText | None:
        """Return the file of a version of a contract, its newest revision."""
        with store_faults(), self._engine.connect() as connection:
            return find_contract(connection, contract, start_ms)

    def _read_contract(self, toml: str, known: Terms) -> _Set:
        tree = self._tree()
        covers: dict[str, str] = {}

        def find_account(written: str, at_ms: int) -> str | None:
            found = _find_account(tree, written, at_ms=at_ms)
            if found is not None:
                covers[written] = found
            return found

        with _as_invalid(BillingReason.CONTRACT_INVALID):
            version = read_contract(
                toml,
                tiers=self._tiers,
                find_account=find_account,
                find_currency_of_book=lambda book: currency_of(known.books, book),
            )
        _refuse_other_currency(version, known.contracts)
        _refuse_clash(version, known.contracts)
        after = Terms(
            version=known.version + 1,
            books=known.books,
            contracts=known.contracts.having([version]),
            digests={**known.digests, **to_digests((), [(version, _sha256(toml))])},
        )
        return _Set(version=version, covers=covers, after=after)

    @contextmanager
    def _changing(self) -> Iterator[tuple[Connection, Terms]]:
        """One transaction that holds the terms' row, with the terms as they are."""
        with self._engine.begin() as connection:
            connection.execute(select(terms.c.version).with_for_update())
            yield connection, self._load(connection)

    def _note(
        self,
        connection: Connection,
        action: BillingAction,
        subject: str,
        *,
        start_ms: int,
        toml: str,
        key_id: str,
        now_ms: int,
        **more: object,
    ) -> None:
        """Move the version of the terms, and say who moved it."""
        connection.execute(update(terms).values(version=terms.c.version + 1))
        detail = {"from": _iso(start_ms), "sha256": _sha256(toml), **more}
        change = Change(
            at_ms=now_ms, key_id=key_id, action=action.value, subject=subject, detail=detail
        )
        self._change_log.write(connection, change)

    def _load(self, connection: Connection) -> Terms:
        known = self._known
        version = connection.execute(select(terms.c.version)).scalar_one()
        if known.version == version:
            return known
        found = _advance(connection, known if known.version < version else _NONE, version)
        self._known = found
        return found


def _advance(connection: Connection, known: Terms, version: int) -> Terms:
    """Return the terms of a version, from those of an earlier one and what came since."""
    with uncollected():
        books = list(select_books(connection, after=known.version, until=version))
        all_books = known.books.having(it for it, _ in books) if books else known.books
        found = list(
            select_contracts(connection, after=known.version, until=version, books=all_books)
        )
        return Terms(
            version=version,
            books=all_books,
            contracts=known.contracts.having(it for it, _ in found),
            digests={**known.digests, **to_digests(books, found)},
        )


def _with_book(known: Terms, book: PriceBook, toml: str) -> Terms:
    """Return the terms with a version of a book; raises Refused (BOOK_CHANGED)."""
    currency = currency_of(known.books, book.book)
    if currency is not None and currency != book.currency:
        raise Refused(
            BillingReason.BOOK_CHANGED,
            f"{book.book} is in {currency.code}; a book keeps its currency. Name another book.",
        )
    digest = _sha256(toml)
    of_then = next(iter(to_digests([(book, digest)], ())))
    if known.digests.get(of_then, digest) != digest:
        raise Refused(
            BillingReason.BOOK_CHANGED,
            f"{book.book} has another version from {_iso(book.start_ms)}, and versions"
            " never change: give the new prices a later `from`.",
        )
    if of_then in known.digests:
        return known
    return Terms(
        version=known.version + 1,
        books=known.books.having([book]),
        contracts=known.contracts,
        digests={**known.digests, of_then: digest},
    )


@contextmanager
def _as_invalid(reason: BillingReason) -> Iterator[None]:
    try:
        yield
    except FileFaults as faults:
        raise InvalidArgument(reason, str(faults), field="toml", rule="no faults") from faults


def _find_account(tree: AccountTree, written: str, *, at_ms: int) -> str | None:
    """Return the account that a file means: `id:ID`, `/PATH`, or what is one of them."""
    if written.startswith(_ID_MARK):
        found = tree.find(written.removeprefix(_ID_MARK))
    elif written.startswith(PATH_SEPARATOR):
        found = tree.find_by_path(written.removeprefix(PATH_SEPARATOR), at_ms=at_ms)
    else:
        found = tree.find_by_path(written, at_ms=at_ms) or tree.find(written)
    return None if found is None else found.account_id


def _refuse_other_currency(version: ContractVersion, known: Contracts) -> None:
    """Refuse a second currency: what comes late of a month is billed with a later one."""
    for other in known.versions(version.contract):
        if other.currency != version.currency:
            raise InvalidArgument(
                BillingReason.CONTRACT_INVALID,
                f"currency: {version.contract} is in {other.currency.code}, and a contract keeps"
                " its currency. Write a contract of another name.",
                field="toml",
                rule="no faults",
            )


def _refuse_clash(version: ContractVersion, known: Contracts) -> None:
    for account_id, other in known.clashes(version):
        raise Refused(
            BillingReason.COVER_TAKEN,
            f"Account {account_id} is covered by contract {other.contract} from"
            f" {_iso(other.start_ms)}{_until(other.end_ms)}: an account has one contract at a time."
            " End the other one with `until`, or cover an account below.",
        )


def _sha256(toml: str) -> str:
    return hashlib.sha256(toml.encode()).hexdigest()


def _iso(at_ms: int) -> str:
    return to_time(at_ms).isoformat(timespec="minutes").replace("+00:00", "Z")


def _until(end_ms: int | None) -> str:
    return " on" if end_ms is None else f" to {_iso(end_ms)}"
