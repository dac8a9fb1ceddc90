"""Contracts as TOML: what a file says, as a version; see `docs/reference/contracts.md`."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from billing.contracts import ContractVersion, Party, PriceBy
from billing.file_terms import (
    ALL,
    CLASSES,
    Tiers,
    check_id,
    read_currency,
    read_format,
    read_id,
    read_instant,
    read_models,
    read_modes,
    read_prices,
    read_tiers,
    read_zone,
)
from billing.limits import (
    ADDRESS_LINES_MAX,
    COVER_CHARS_MAX,
    MODELS_LISTED_MAX,
    OVERRIDES_MAX,
    SERIES_CHARS_MAX,
    TERMS_DAYS_MAX,
    TEXT_CHARS_MAX,
)
from billing.money import Currency
from billing.price_book import Override, class_name, matches
from meter.domain.boundary import Boundary
from meter.domain.tokens import Mode, TokenClass
from meter.toml_file import Entry, Table, TomlFile, quote

DOCUMENT_KIND: Final = "invoice"
TERMS_DAYS_DEFAULT: Final = 30
_KEYS: Final = (
    *("format", "contract", "from", "until", "zone", "currency", "book", "price_by", "covers"),
    *("seller", "buyer", "parties", "document", "overrides"),
)
_PARTY_KEYS: Final = ("name", "address", "tax_id")
_DOCUMENT_KEYS: Final = ("kind", "series", "po", "terms_days", "energy")
_OVERRIDE_KEYS: Final = ("models", "tiers", "modes", "classes", "factor", "prices")
_PRICE_BY: Final = {it.value: it for it in PriceBy}
_BOUNDARIES: Final = {it.value: it for it in Boundary}
_SERIES: Final = re.compile(r"[A-Z0-9][A-Z0-9-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    series: str
    po: str
    terms_days: int
    energy: Boundary | None


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
    zone = read_zone(root.need("zone"))
    start_ms = read_instant(root.need("from"), zone)
    end_ms = read_instant(root.find("until"), zone)
    if start_ms is not None and end_ms is not None and end_ms <= start_ms:
        root.entries["until"].note("must be after `from`")
    currency = read_currency(root.need("currency"))
    book = _read_book_id(root.need("book"), root, currency, find_currency_of_book)
    price_by_entry = root.find("price_by")
    price_by = PriceBy.REQUESTED
    if price_by_entry is not None:
        price_by = price_by_entry.choice(_PRICE_BY, what="name of a model") or price_by
    covers = _read_covers(root.need("covers"), start_ms, find_account)
    seller, buyer = _read_parties(root)
    document = _read_document(root)
    overrides = _read_overrides(root.find("overrides"), tiers=tiers)
    file.check()
    assert contract is not None
    assert zone is not None
    assert start_ms is not None
    assert currency is not None
    assert book is not None
    assert seller is not None
    assert buyer is not None
    return ContractVersion(
        contract=contract,
        start_ms=start_ms,
        end_ms=end_ms,
        zone=zone,
        currency=currency,
        book=book,
        price_by=price_by,
        covers=covers,
        seller=seller,
        buyer=buyer,
        series=document.series,
        po=document.po,
        terms_days=document.terms_days,
        overrides=overrides,
        energy=document.energy,
    )


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


def _read_document(root: Table) -> _Document:
    entry = root.find("document")
    table = None if entry is None else entry.table(_DOCUMENT_KEYS)
    entries: Mapping[str, Entry] = {} if table is None else table.entries
    kind, series, po, days, energy = (entries.get(key) for key in _DOCUMENT_KEYS)
    if kind is not None and kind.value != DOCUMENT_KIND:
        kind.note(f'must be "{DOCUMENT_KIND}", the only kind')
    terms_days = None if days is None else days.integer(minimum=0, maximum=TERMS_DAYS_MAX)
    return _Document(
        series=_default_series(root) if series is None else _read_series(series),
        po="" if po is None else po.text(chars_max=TEXT_CHARS_MAX) or "",
        terms_days=TERMS_DAYS_DEFAULT if terms_days is None else terms_days,
        energy=None if energy is None else energy.choice(_BOUNDARIES, what="boundary"),
    )


def _read_series(entry: Entry) -> str:
    return entry.matching(_SERIES, chars_max=SERIES_CHARS_MAX) or ""


def _default_series(root: Table) -> str:
    """Return the seller's id in capitals."""
    seller = root.find("seller")
    series = str(seller.value).upper().replace("_", "-") if seller is not None else ""
    if len(series) > SERIES_CHARS_MAX:
        root.entry.file.note(
            ("document", "series"),
            f"is missing; the seller's id has more than {SERIES_CHARS_MAX} characters and makes"
            " none",
        )
    return series


def _read_overrides(entry: Entry | None, *, tiers: Tiers) -> tuple[Override, ...]:
    entries = (entry.entries() if entry else None) or []
    if entry is not None and len(entries) > OVERRIDES_MAX:
        entry.note(f"has more than {OVERRIDES_MAX} overrides")
        return ()
    overrides: list[tuple[Entry, Override]] = []
    for index, each in enumerate(entries):
        override = _read_override(index, each, tiers=tiers)
        if override is not None:
            overrides.append((each, override))
    if entry is not None and sum(len(it.models) for _, it in overrides) > MODELS_LISTED_MAX:
        entry.note(f"lists more than {MODELS_LISTED_MAX} models in all; a pattern stands for many")
        return ()
    for place, (each, override) in enumerate(overrides):
        for earlier_entry, earlier in overrides[:place]:
            if _takes_all(earlier, override, tiers=tiers):
                each.note(
                    f"never applies: the override of line {earlier_entry.line} comes before it and"
                    " is for all that this one is for"
                )
                break
    return tuple(override for _, override in overrides)


def _read_override(index: int, entry: Entry, *, tiers: Tiers) -> Override | None:
    table = entry.table(_OVERRIDE_KEYS)
    if table is None:
        return None
    count_before = entry.file.fault_count
    factor_entry, prices_entry = table.find("factor"), table.find("prices")
    if (factor_entry is None) == (prices_entry is None):
        entry.note("must have either a `factor` or `prices`")
    classes_entry = table.find("classes")
    classes = classes_entry.choices(CLASSES, what="token class") if classes_entry else ()
    factor = None if factor_entry is None else factor_entry.decimal()
    prices, every = _read_override_prices(prices_entry, classes)
    override = Override(
        index=index,
        models=read_models(table.find("models")),
        tiers=read_tiers(table.find("tiers"), tiers=tiers),
        modes=read_modes(table.find("modes")),
        classes=classes,
        factor=factor,
        prices=prices,
        all=every,
    )
    return None if entry.file.fault_count > count_before else override


def _read_override_prices(
    entry: Entry | None, classes: Sequence[TokenClass]
) -> tuple[dict[TokenClass, Decimal], Decimal | None]:
    table = None if entry is None else entry.table((*CLASSES, ALL))
    if entry is None or table is None:
        return {}, None
    if not entry.value:
        entry.note("is empty")
    for name, each in table.entries.items():
        if classes and name != ALL and CLASSES[name] not in classes:
            listed = ", ".join(map(class_name, classes))
            each.note(f"never applies: the override is for {listed} only")
    return read_prices(table)


def _takes_all(earlier: Override, later: Override, *, tiers: Tiers) -> bool:
    """Tell whether each key that the later one is for is the earlier one's."""
    models = not earlier.models or (
        bool(later.models)
        and all(any(matches(it, name) for it in earlier.models) for name in later.models)
    )
    return (
        models
        and _has_all(earlier.tiers, later.tiers, every=tuple(tiers or ()))
        and _has_all(earlier.modes, later.modes, every=tuple(Mode))
        and _classes_of(earlier) >= _classes_of(later)
    )


def _has_all(
    earlier: Sequence[object], later: Sequence[object], *, every: Sequence[object]
) -> bool:
    """Tell whether a list has all that another has, where an empty one stands for every one."""
    wanted = later or every
    return not earlier or (bool(wanted) and set(earlier) >= set(wanted))


def _classes_of(override: Override) -> frozenset[TokenClass]:
    classes = frozenset(override.classes or TokenClass)
    is_of_all = override.factor is not None or override.all is not None
    return classes if is_of_all else classes & override.prices.keys()
