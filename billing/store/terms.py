"""Books and contracts in Postgres: as the files that were taken in, read again when asked for.

A change locks the terms' one row before it looks at anything, so that its rules are checked against
the newest terms and the newest invoices; what issues an invoice holds the same row.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, insert, select, update

from billing.book_file import read_book
from billing.books import PriceBooks
from billing.contract_file import read_contract
from billing.contracts import Contracts, ContractVersion
from billing.errors import BillingReason
from billing.money import Currency
from billing.ports import IssuedPeriod, StoredText, Terms
from billing.price_book import PriceBook
from billing.store.invoices import select_issued_periods
from billing.store.tables import contract_covers, contracts, price_books, terms
from meter.domain.account import PATH_SEPARATOR, AccountTree
from meter.domain.errors import InvalidArgument, Refused
from meter.domain.times import to_ms, to_time
from meter.runtime.engine import store_faults
from meter.toml_file import FileFaults

_ID_MARK: Final = "id:"


@dataclass(frozen=True, slots=True)
class _Row:
    """A file in its table, with the accounts that its covers meant by how they were written."""

    toml: str
    covers: Mapping[str, str]


class TermsStore:
    """Reads and changes books and contracts; safe to share between threads."""

    def __init__(
        self, engine: Engine, *, tiers: Collection[str], tree: Callable[[], AccountTree]
    ) -> None:
        """Take the engine, the tiers that are sold, and the accounts as last known."""
        self._engine = engine
        self._tiers = tiers
        self._tree = tree
        self._known: Terms | None = None

    def load(self) -> Terms:
        """Return all terms at one version; what was read is read again only when it moved."""
        with store_faults(), self._engine.connect() as connection:
            connection.execution_options(isolation_level="REPEATABLE READ")
            return self._load(connection)

    def add_book(self, toml: str, *, key_id: str, now_ms: int) -> tuple[PriceBook, bool]:
        """Keep a version of a book; False when it is there already, word for word.

        Raises InvalidArgument (BOOK_INVALID), Refused (BOOK_CHANGED, PERIOD_ISSUED).
        """
        with _as_invalid(BillingReason.BOOK_INVALID):
            book = read_book(toml, tiers=self._tiers)
        with store_faults(), self._changing() as (connection, known):
            stored = _find_book(connection, book.book, book.start_ms)
            if stored is not None:
                if stored.toml == toml:
                    return book, False
                raise Refused(
                    BillingReason.BOOK_CHANGED,
                    f"{book.book} has another version from {_iso(book.start_ms)}, and versions"
                    " never change: give the new prices a later `from`.",
                )
            _refuse_other_currency(book, known.books)
            _refuse_issued_prices(book, known, select_issued_periods(connection))
            connection.execute(
                insert(price_books).values(
                    book=book.book,
                    start_time=to_time(book.start_ms),
                    currency=book.currency.code,
                    toml=toml,
                    import_time=to_time(now_ms),
                    imported_by=key_id,
                )
            )
            _move(connection)
        return book, True

    def set_contract(self, toml: str, *, key_id: str, now_ms: int) -> tuple[ContractVersion, bool]:
        """Keep a version of a contract, or its next revision; False when it is there already.

        A version may be set anew until an invoice was issued under it. Raises InvalidArgument
        (CONTRACT_INVALID), Refused (COVER_TAKEN, PERIOD_ISSUED).
        """
        tree = self._tree()
        covers: dict[str, str] = {}

        def find_account(written: str, at_ms: int) -> str | None:
            found = _find_account(tree, written, at_ms=at_ms)
            if found is not None:
                covers[written] = found
            return found

        with store_faults(), self._changing() as (connection, known):
            with _as_invalid(BillingReason.CONTRACT_INVALID):
                version = read_contract(
                    toml,
                    tiers=self._tiers,
                    find_account=find_account,
                    find_currency_of_book=lambda book: _currency_of(known.books, book),
                )
            stored = _find_contract(connection, version.contract, version.start_ms)
            if stored is not None and stored.toml == toml:
                return version, False
            _refuse_clash(version, known.contracts)
            _refuse_issued_contract(version, known, select_issued_periods(connection), tree)
            revision = 1 if stored is None else stored.revision + 1
            _insert_contract(
                connection, version, toml, covers, revision=revision, key_id=key_id, now_ms=now_ms
            )
            _move(connection)
        return version, True

    def find_book_text(self, book: str, start_ms: int) -> StoredText | None:
        """Return the file of a version of a book."""
        with store_faults(), self._engine.connect() as connection:
            return _find_book(connection, book, start_ms)

    def find_contract_text(self, contract: str, start_ms: int) -> StoredText | None:
        """Return the file of a version of a contract, its newest revision."""
        with store_faults(), self._engine.connect() as connection:
            return _find_contract(connection, contract, start_ms)

    @contextmanager
    def _changing(self) -> Iterator[tuple[Connection, Terms]]:
        """One transaction that holds the terms' row, with the terms as they are."""
        with self._engine.begin() as connection:
            connection.execute(select(terms.c.version).with_for_update())
            yield connection, self._load(connection)

    def _load(self, connection: Connection) -> Terms:
        version = connection.execute(select(terms.c.version)).scalar_one()
        if self._known is not None and self._known.version == version:
            return self._known
        books = PriceBooks(
            read_book(row.toml, tiers=None)
            for row in connection.execute(select(price_books.c.toml)).all()
        )
        contracts_of = Contracts(_read(row, books=books) for row in _select_contracts(connection))
        self._known = Terms(version=version, books=books, contracts=contracts_of)
        return self._known


@contextmanager
def _as_invalid(reason: BillingReason) -> Iterator[None]:
    try:
        yield
    except FileFaults as faults:
        raise InvalidArgument(reason, str(faults), field="toml", rule="no faults") from faults


def _read(row: _Row, *, books: PriceBooks) -> ContractVersion:
    """Read a contract that was taken in, with the accounts that it meant then."""

    def find_account(written: str, _: int) -> str | None:
        return row.covers.get(written)

    def find_currency(book: str) -> Currency | None:
        return _currency_of(books, book)

    return read_contract(
        row.toml, tiers=None, find_account=find_account, find_currency_of_book=find_currency
    )


def _select_contracts(connection: Connection) -> Iterator[_Row]:
    """Yield the newest revision of each version."""
    keys = (contracts.c.contract, contracts.c.start_time)
    newest = (
        select(*keys, func.max(contracts.c.revision).label("revision")).group_by(*keys).subquery()
    )
    is_newest = (
        (newest.c.contract == contracts.c.contract)
        & (newest.c.start_time == contracts.c.start_time)
        & (newest.c.revision == contracts.c.revision)
    )
    covers: dict[Any, dict[str, str]] = {}
    for row in connection.execute(select(contract_covers)):
        key = (row.contract, row.start_time, row.revision)
        covers.setdefault(key, {})[row.written] = row.account_id
    for row in connection.execute(select(contracts).join(newest, is_newest).order_by(*keys)):
        yield _Row(row.toml, covers.get((row.contract, row.start_time, row.revision), {}))


def _insert_contract(
    connection: Connection,
    version: ContractVersion,
    toml: str,
    covers: Mapping[str, str],
    *,
    revision: int,
    key_id: str,
    now_ms: int,
) -> None:
    key = {
        "contract": version.contract,
        "start_time": to_time(version.start_ms),
        "revision": revision,
    }
    connection.execute(
        insert(contracts).values(**key, toml=toml, set_time=to_time(now_ms), set_by=key_id)
    )
    connection.execute(
        insert(contract_covers),
        [
            {**key, "place": place, "written": written, "account_id": account_id}
            for place, (written, account_id) in enumerate(covers.items())
        ],
    )


def _find_book(connection: Connection, book: str, start_ms: int) -> StoredText | None:
    statement = select(price_books).where(
        price_books.c.book == book, price_books.c.start_time == to_time(start_ms)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    time_ms = to_ms(row.import_time)
    return StoredText(toml=row.toml, time_ms=time_ms, key_id=row.imported_by, revision=1)


def _find_contract(connection: Connection, contract: str, start_ms: int) -> StoredText | None:
    statement = (
        select(contracts)
        .where(contracts.c.contract == contract, contracts.c.start_time == to_time(start_ms))
        .order_by(contracts.c.revision.desc())
        .limit(1)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    time_ms = to_ms(row.set_time)
    return StoredText(toml=row.toml, time_ms=time_ms, key_id=row.set_by, revision=row.revision)


def _find_account(tree: AccountTree, written: str, *, at_ms: int) -> str | None:
    """Return the account that a file means: `id:ID`, `/PATH`, or what is one of them."""
    if written.startswith(_ID_MARK):
        found = tree.find(written.removeprefix(_ID_MARK))
    elif written.startswith(PATH_SEPARATOR):
        found = tree.find_by_path(written.removeprefix(PATH_SEPARATOR), at_ms=at_ms)
    else:
        found = tree.find_by_path(written, at_ms=at_ms) or tree.find(written)
    return None if found is None else found.account_id


def _currency_of(books: PriceBooks, book: str) -> Currency | None:
    versions = books.versions(book)
    return versions[0].currency if versions else None


def _refuse_other_currency(book: PriceBook, books: PriceBooks) -> None:
    known = _currency_of(books, book.book)
    if known is not None and known != book.currency:
        raise Refused(
            BillingReason.BOOK_CHANGED,
            f"{book.book} is in {known.code}; a book keeps its currency. Name another book.",
        )


def _refuse_issued_prices(book: PriceBook, known: Terms, issued: list[IssuedPeriod]) -> None:
    for period in issued:
        version = next(
            it
            for it in known.contracts.versions(period.contract)
            if it.start_ms == period.version_start_ms
        )
        if version.book == book.book and period.span.end_ms > book.start_ms:
            raise Refused(
                BillingReason.PERIOD_ISSUED,
                f"Prices from {_iso(book.start_ms)} would change what invoice {period.number} has"
                f" billed until {_iso(period.span.end_ms)}: begin the version then, or later.",
            )


def _refuse_clash(version: ContractVersion, known: Contracts) -> None:
    for account_id, other in known.clashes(version):
        raise Refused(
            BillingReason.COVER_TAKEN,
            f"Account {account_id} is covered by contract {other.contract} from"
            f" {_iso(other.start_ms)}{_until(other.end_ms)}: an account has one contract at a time."
            " End the other one with `until`, or cover an account below.",
        )


def _refuse_issued_contract(
    version: ContractVersion, known: Terms, issued: list[IssuedPeriod], tree: AccountTree
) -> None:
    """Refuse what would bill otherwise what an invoice has billed."""
    for period in issued:
        touched = period.span.meet(version.start_ms, version.end_ms)
        own = period.contract == version.contract and period.span.end_ms > version.start_ms
        if own or (touched is not None and _takes_over(version, period, known, tree)):
            raise Refused(
                BillingReason.PERIOD_ISSUED,
                f"Invoice {period.number} was issued for {_iso(period.span.start_ms)} to"
                f" {_iso(period.span.end_ms)}: begin contract {version.contract} then, or later.",
            )


def _takes_over(
    version: ContractVersion, period: IssuedPeriod, known: Terms, tree: AccountTree
) -> bool:
    """Tell whether accounts that the version covers were billed by the period's invoice."""
    touched = period.span.meet(version.start_ms, version.end_ms)
    assert touched is not None
    instants = [touched.start_ms, *tree.later_moves_ms(touched.start_ms, end_ms=touched.end_ms)]
    for account_id in version.covers:
        for at_ms in instants:
            billing = known.contracts.find_billing(tree, account_id, at_ms)
            if billing is not None and billing.contract == period.contract:
                return True
    return False


def _move(connection: Connection) -> None:
    connection.execute(update(terms).values(version=terms.c.version + 1))


def _iso(at_ms: int) -> str:
    return to_time(at_ms).isoformat(timespec="minutes").replace("+00:00", "Z")


def _until(end_ms: int | None) -> str:
    return " on" if end_ms is None else f" to {_iso(end_ms)}"
