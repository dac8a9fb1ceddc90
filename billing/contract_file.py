"""Contracts as TOML: what a file says, as a version; see `docs/reference/contracts.md`."""

from collections.abc import Callable, Collection
from typing import Final

from billing.contract_charges import Force, check_tax_parties, read_charges, read_tax, taxes_of
from billing.contract_document import read_closing, read_document
from billing.contract_overrides import read_overrides
from billing.contracts import ContractVersion, Party, PriceBy
from billing.file_terms import (
    check_id,
    read_currency,
    read_format,
    read_id,
    read_instant,
    read_zone,
)
from billing.limits import ADDRESS_LINES_MAX, COVER_CHARS_MAX, TEXT_CHARS_MAX
from billing.money import Currency
from meter.toml_file import Entry, Table, TomlFile, quote

_KEYS: Final = (
    *("format", "contract", "from", "until", "zone", "currency", "book", "price_by", "covers"),
    *("seller", "buyer", "parties", "tax", "charges", "document", "closing", "overrides"),
)
_PARTY_KEYS: Final = ("name", "address", "tax_id")
_PRICE_BY: Final = {it.value: it for it in PriceBy}


def read_contract(
    text: str,
    *,
    tiers: Collection[str] | None,
    find_account: Callable[[str, int], str | None],
    find_currency_of_book: Callable[[str], Currency | None],
) -> ContractVersion:
    """Return the version of a contract that a TOML text says; raises FileFaults with all faults.

    `tiers` are those that the installation sells, None for a text that was taken in before.
    `find_account` finds the id of an account by id or path as it was at an instant (ms).
    """
    file = TomlFile(text)
    root = file.root.table(_KEYS)
    assert root is not None
    read_format(root)
    contract = read_id(root.need("contract"))
    force = _read_force(root)
    currency = read_currency(root.need("currency"))
    book = _read_book_id(root.need("book"), root, currency, find_currency_of_book)
    price_by_entry = root.find("price_by")
    price_by = None
    if price_by_entry is not None:
        price_by = price_by_entry.choice(_PRICE_BY, what="name of a model")
    covers = _read_covers(root.need("covers"), force.start_ms, find_account)
    seller, buyer = _read_parties(root)
    tax = read_tax(root.find("tax"))
    charges = read_charges(root.find("charges"), force=force)
    check_tax_parties(root, taxes_of(tax, charges), seller=seller, buyer=buyer)
    document = read_document(root, currency=currency)
    closing = read_closing(root.find("closing"))
    overrides = read_overrides(root.find("overrides"), tiers=tiers)
    file.check()
    assert contract is not None
    assert force.zone is not None
    assert force.start_ms is not None
    assert currency is not None
    assert book is not None
    assert seller is not None
    assert buyer is not None
    return ContractVersion(
        contract=contract,
        start_ms=force.start_ms,
        end_ms=force.end_ms,
        zone=force.zone,
        currency=currency,
        book=book,
        price_by=price_by or PriceBy.REQUESTED,
        covers=covers,
        seller=seller,
        buyer=buyer,
        series=document.series,
        po=document.po,
        terms_days=document.terms_days,
        overrides=overrides,
        energy=document.energy,
        tax=tax,
        charges=charges,
        bank=document.bank,
        by_account=document.by_account,
        minimum=document.minimum,
        zero_documents=document.zero_documents,
        closing=closing,
    )


def _read_force(root: Table) -> Force:
    zone = read_zone(root.need("zone"))
    start_ms = read_instant(root.need("from"), zone)
    end_ms = read_instant(root.find("until"), zone)
    if start_ms is not None and end_ms is not None and end_ms <= start_ms:
        root.entries["until"].note("must be after `from`")
    return Force(zone=zone, start_ms=start_ms, end_ms=end_ms)


def _read_book_id(
    entry: Entry | None,
    root: Table,
    currency: Currency | None,
    find_currency_of_book: Callable[[str], Currency | None],
) -> str | None:
    book = read_id(entry)
    if entry is None or book is None:
        return None
    of_book = find_currency_of_book(book)
    if of_book is None:
        entry.note(f"no book {quote(book)}; import it first: tokenworks prices import {book}.toml")
    elif currency is not None and currency != of_book:
        root.entries["currency"].note(f"must be the book's: {quote(book)} is in {of_book.code}")
    return book


def _read_covers(
    entry: Entry | None, start_ms: int | None, find_account: Callable[[str, int], str | None]
) -> tuple[str, ...]:
    """Return the ids of the accounts that are covered, as they are named when it begins."""
    covers: dict[str, str] = {}
    for item in entry.distinct() if entry else ():
        written = item.text(chars_max=COVER_CHARS_MAX)
        if written is None or start_ms is None:
            continue
        account_id = find_account(written, start_ms)
        if account_id is None:
            item.note(
                f"no account {quote(written)} when the contract begins; create it first, or name"
                " it by its id: id:acme"
            )
        elif account_id in covers:
            item.note(f"{quote(written)} is the account that {quote(covers[account_id])} is")
        else:
            covers[account_id] = written
    return tuple(covers)


def _read_parties(root: Table) -> tuple[Party | None, Party | None]:
    """Return the seller and the buyer."""
    parties_entry = root.need("parties")
    parties = None if parties_entry is None else parties_entry.table()
    roles = {role: read_id(root.need(role)) for role in ("seller", "buyer")}
    if roles["seller"] is not None and roles["seller"] == roles["buyer"]:
        root.entries["buyer"].note("must be another party than the seller")
    found: dict[str, Party | None] = {}
    for party_id, entry in {} if parties is None else parties.entries.items():
        if check_id(entry) and party_id not in roles.values():
            entry.note("is neither the seller nor the buyer")
        found[party_id] = _read_party(party_id, entry)
    for role, named in roles.items():
        if named is not None and parties is not None and named not in found:
            root.entries[role].note(f"no such party; write a table [parties.{named}]")
    return found.get(roles["seller"] or ""), found.get(roles["buyer"] or "")


def _read_party(party_id: str, entry: Entry) -> Party | None:
    table = entry.table(_PARTY_KEYS)
    if table is None:
        return None
    name_entry, address_entry = table.need("name"), table.need("address")
    tax_id_entry = table.find("tax_id")
    name = None if name_entry is None else name_entry.text(chars_max=TEXT_CHARS_MAX)
    lines = (address_entry.entries() if address_entry else None) or []
    if address_entry is not None and len(lines) > ADDRESS_LINES_MAX:
        address_entry.note(f"has more than {ADDRESS_LINES_MAX} lines")
    address = [it.text(chars_max=TEXT_CHARS_MAX) for it in lines]
    tax_id = None if tax_id_entry is None else tax_id_entry.text(chars_max=TEXT_CHARS_MAX)
    if name is None:
        return None
    return Party(
        party_id=party_id,
        name=name,
        address=tuple(it for it in address if it is not None),
        tax_id=tax_id or "",
    )
