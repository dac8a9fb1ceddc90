"""Books and contracts as texts for tests, whose faulty lines say what is wrong with them.

A line that ends in `#! place: words` is expected to have a fault at this place, whose message has
these words; a second `#!` is a second fault.
"""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import pytest

from billing.book_file import read_book
from billing.contract_file import read_contract
from billing.contracts import ContractVersion
from billing.money import Currency, find_currency
from billing.price_book import Price, PriceBook, PriceKey
from meter.domain.times import to_ms
from meter.domain.tokens import Mode, TokenClass
from meter.toml_file import FileFaults

TIERS: Final = ("free", "medium", "high", "premium", "ultra")
BOOK: Final = {
    "format": "1",
    "book": '"retail"',
    "from": "2026-01-01T00:00:00",
    "zone": '"UTC"',
    "currency": '"USD"',
}
CONTRACT: Final = {
    "format": "1",
    "contract": '"acme-2026"',
    "from": "2026-01-01T00:00:00",
    "zone": '"UTC"',
    "currency": '"USD"',
    "book": '"retail"',
    "covers": '["acme"]',
    "seller": '"nimbus"',
    "buyer": '"acme"',
}
PARTIES: Final = """
[parties.nimbus]
name = "Nimbus GmbH"
address = ["Torstr. 1", "10119 Berlin"]
[parties.acme]
name = "ACME SA"
address = ["1 rue X", "75001 Paris"]
"""
# In Los Angeles, for some keys.
NIGHT_BOOK: Final = """
zone = "America/Los_Angeles"
[windows.night]
days = ["mon", "sun"]
hours = ["20:00-06:00", "12:00-12:15"]
models = ["m", "lora/*"]
tiers = ["high"]
modes = ["online"]
factor = "0.5"
[models.m]
names = ["adapter/m"]
all = "4"
[models.n]
names = ["lora/n"]
all = "4"
"""
ACCOUNTS: Final = {"acme": "acme", "/acme": "acme", "id:acme": "acme", "acme/team": "team"}


def book_text(body: str = "", *, without: Collection[str] = ()) -> str:
    """A book: what each has, unless the body has it or it is to be without, and the body."""
    models = "" if _has(body, "models") or "models" in without else '\n[models.m]\nall = "1"\n'
    return _with_header(BOOK, body, without=without) + models


def contract_text(body: str = "", *, without: Collection[str] = ()) -> str:
    """A contract, in the same way."""
    parties = "" if _has(body, "parties") or "parties" in without else PARTIES
    return _with_header(CONTRACT, body, without=without) + parties


def a_book(body: str = "", *, tiers: Collection[str] | None = TIERS) -> PriceBook:
    """The book that a body makes."""
    return read_book(book_text(body), tiers=tiers)


def read_for_acme(text: str, *, tiers: Collection[str] | None = TIERS) -> ContractVersion:
    """The contract of a text; acme and its team are all accounts, and retail is in dollars."""
    return read_contract(
        text,
        tiers=tiers,
        find_account=lambda written, _: ACCOUNTS.get(written),
        find_currency_of_book=currency_of_book,
    )


def a_contract(body: str = "") -> ContractVersion:
    """The contract that a body makes."""
    return read_for_acme(contract_text(body))


def currency_of_book(book: str) -> Currency | None:
    """The dollar for the one book that there is."""
    return find_currency("USD") if book == "retail" else None


def cases(text: str) -> list[str]:
    """The cases of a table, each below a line of dashes."""
    return text.strip("\n").split("\n---\n")


def check_faults(caught: FileFaults, text: str) -> None:
    """Assert that a text's faults are those that its lines expect, in order, and no others."""
    expected = []
    for number, row in enumerate(text.splitlines(), 1):
        for fault in row.split("#! ")[1:]:
            place, _, words = fault.strip().partition(": ")
            expected.append((number, place, words))
    found = [(line, place) for line, place, _ in caught.faults]
    assert found == sorted(found)
    assert sorted(found) == sorted((line, place) for line, place, _ in expected), str(caught)
    for line, place, words in expected:
        messages = [it.message for it in caught.faults if (it.line, it.place) == (line, place)]
        assert any(words in message for message in messages), (words, messages)


def check_book_faults(text: str, *, tiers: Collection[str] | None = TIERS) -> None:
    """Assert that a book is refused for what its lines say."""
    with pytest.raises(FileFaults) as caught:
        read_book(text, tiers=tiers)
    check_faults(caught.value, text)


def check_contract_faults(text: str, *, tiers: Collection[str] | None = TIERS) -> None:
    """Assert that a contract is refused for what its lines say."""
    with pytest.raises(FileFaults) as caught:
        read_for_acme(text, tiers=tiers)
    check_faults(caught.value, text)


def a_key(
    model: str = "m",
    *,
    tier: str = "high",
    mode: Mode = Mode.ONLINE,
    token_class: TokenClass = TokenClass.INPUT,
    band: int = 0,
    at: str = "2026-10-01T12:00",
) -> PriceKey:
    """A key, at a time in UTC."""
    return PriceKey(
        model=model,
        tier=tier,
        mode=mode,
        token_class=token_class,
        band=band,
        at_ms=to_ms(datetime.fromisoformat(at).replace(tzinfo=UTC)),
    )


def unit_price(price: Price | None) -> Decimal | None:
    """What a price comes to."""
    return None if price is None else price.unit_price


def _has(body: str, key: str) -> bool:
    return re.search(rf"^(\[\[?)?{key}\b", body, re.MULTILINE) is not None


def _with_header(header: dict[str, str], body: str, *, without: Collection[str]) -> str:
    top = body.partition("\n[")[0].splitlines()
    written = {line.partition("=")[0].strip() for line in top} | set(without)
    lines = [f"{key} = {value}" for key, value in header.items() if key not in written]
    return "\n".join([*lines, body.strip("\n")]) + "\n"
