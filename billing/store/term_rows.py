"""Rows of books and contracts: what of them was known at a version of the terms."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from billing.book_file import read_book
from billing.books import PriceBooks
from billing.compiled import compile_version, find_compiled
from billing.contract_file import read_contract
from billing.contracts import ContractVersion
from billing.money import Currency
from billing.ports import FileKey, StoredText
from billing.price_book import PriceBook
from billing.store.tables import contract_covers, contracts, price_books
from meter.domain.times import to_ms, to_time

BOOK: Final = "book"
CONTRACT: Final = "contract"
_COVERS: Final = select(contract_covers.c.written, contract_covers.c.account_id)


def select_books(
    connection: Connection, *, after: int, until: int
) -> Iterator[tuple[PriceBook, str]]:
    """Yield what came after a version of the terms, until another, with the SHA-256 of its file."""
    rows = connection.execute(
        select(price_books.c.toml, _digest(price_books.c.toml).label("digest")).where(
            price_books.c.terms_version > after, price_books.c.terms_version <= until
        )
    )
    for row in rows:
        yield read_book(row.toml, tiers=None), row.digest


def select_contracts(
    connection: Connection, *, after: int, until: int, books: PriceBooks
) -> Iterator[tuple[ContractVersion, str]]:
    """Yield the newest revisions that came after a version of the terms, until another.

    Each as it was written, with the SHA-256 of its file.
    """
    unknown = []
    for row in connection.execute(_newest(after=after, until=until)):
        version = find_compiled(row.compiled)
        if version is None:
            unknown.append((row.contract, row.start_time, row.revision))
        else:
            yield version, row.digest
    for key in unknown:
        yield _read_file(connection, key, books=books)


def insert_book(
    connection: Connection,
    book: PriceBook,
    toml: str,
    *,
    terms_version: int,
    key_id: str,
    now_ms: int,
) -> None:
    """Keep a version of a book."""
    connection.execute(
        insert(price_books).values(
            book=book.book,
            start_time=to_time(book.start_ms),
            currency=book.currency.code,
            toml=toml,
            import_time=to_time(now_ms),
            imported_by=key_id,
            terms_version=terms_version,
        )
    )


def insert_contract(
    connection: Connection,
    version: ContractVersion,
    toml: str,
    covers: Mapping[str, str],
    *,
    revision: int,
    terms_version: int,
    key_id: str,
    now_ms: int,
) -> None:
    """Keep a revision of a contract's version, and whom each of its covers means."""
    key = {
        "contract": version.contract,
        "start_time": to_time(version.start_ms),
        "revision": revision,
    }
    connection.execute(
        insert(contracts).values(
            **key,
            toml=toml,
            set_time=to_time(now_ms),
            set_by=key_id,
            terms_version=terms_version,
            compiled=compile_version(version),
        )
    )
    connection.execute(
        insert(contract_covers),
        [
            {**key, "place": place, "written": written, "account_id": account_id}
            for place, (written, account_id) in enumerate(covers.items())
        ],
    )


def find_book(connection: Connection, book: str, start_ms: int) -> StoredText | None:
    """Return the file of a version of a book."""
    statement = select(price_books).where(
        price_books.c.book == book, price_books.c.start_time == to_time(start_ms)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    time_ms = to_ms(row.import_time)
    return StoredText(toml=row.toml, time_ms=time_ms, key_id=row.imported_by, revision=1)


def find_contract(connection: Connection, contract: str, start_ms: int) -> StoredText | None:
    """Return the file of a version of a contract, its newest revision."""
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


def currency_of(books: PriceBooks, book: str) -> Currency | None:
    """Return the currency that all versions of a book have; None for a book that is unknown."""
    versions = books.versions(book)
    return versions[0].currency if versions else None


def to_digests(
    books: Collection[tuple[PriceBook, str]], found: Collection[tuple[ContractVersion, str]]
) -> dict[FileKey, str]:
    """Return the digests of files, by what they are."""
    return {
        **{(BOOK, it.book, it.start_ms): digest for it, digest in books},
        **{(CONTRACT, it.contract, it.start_ms): digest for it, digest in found},
    }


def _newest(*, after: int, until: int) -> Select[Any]:

    return (
        select(
            contracts.c.contract,
            contracts.c.start_time,
            contracts.c.revision,
            contracts.c.compiled,
            _digest(contracts.c.toml).label("digest"),
        )
        .where(contracts.c.terms_version > after, contracts.c.terms_version <= until)
        .ext(distinct_on(contracts.c.contract, contracts.c.start_time))
        .order_by(contracts.c.contract, contracts.c.start_time, contracts.c.revision.desc())
    )


def _read_file(
    connection: Connection, key: tuple[Any, Any, Any], *, books: PriceBooks
) -> tuple[ContractVersion, str]:
    """Read a contract that was taken in by its file, with the accounts that it meant then."""
    contract, start_time, revision = key
    is_it = (
        (contracts.c.contract == contract)
        & (contracts.c.start_time == start_time)
        & (contracts.c.revision == revision)
    )
    row: Row[Any] = connection.execute(
        select(contracts.c.toml, _digest(contracts.c.toml).label("digest")).where(is_it)
    ).one()
    is_its = (
        (contract_covers.c.contract == contract)
        & (contract_covers.c.start_time == start_time)
        & (contract_covers.c.revision == revision)
    )
    covers = {it.written: it.account_id for it in connection.execute(_COVERS.where(is_its))}
    version = read_contract(
        row.toml,
        tiers=None,
        find_account=lambda written, _: covers.get(written),
        find_currency_of_book=lambda book: currency_of(books, book),
    )
    return version, row.digest


def _digest(toml: Any) -> Any:  # noqa: ANN401  SQL expressions
    return func.encode(func.sha256(func.convert_to(toml, "UTF8")), "hex")
