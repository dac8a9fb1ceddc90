"""The pages about prices and contracts: their files are read, their numbers recomputed."""

import re
import tomllib
from bisect import bisect_right
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from billing.book_file import read_book
from billing.contract_file import read_contract
from billing.contracts import ContractVersion
from billing.money import Currency, amount_of, find_currency, round_half_up, subtract, write
from billing.price_book import Price, PriceBook, PriceKey, explain
from cli.settings import Settings
from meter.domain.interval import interval_start_ms
from meter.domain.times import to_ms
from meter.domain.tokens import BAND_EDGES, Mode, TokenClass
from meter.toml_file import FileFaults

REFERENCE = Path(__file__).resolve().parents[2] / "docs/reference"
BOOK_PAGE = (REFERENCE / "price-book.md").read_text("utf-8")
CONTRACT_PAGE = (REFERENCE / "contracts.md").read_text("utf-8")
TIERS = Settings().tiers
USD = Currency("USD", 2)
ROW = re.compile(r"^\| (.*?) \| (.*?) \|$", re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def part(title: str) -> str:
    """What the page of books has under a title."""
    found = BOOK_PAGE.split(f"\n## {title}\n")[1]
    return found.partition("\n## ")[0]


def the_book() -> PriceBook:
    """The book of the page."""
    return read_book(blocks(BOOK_PAGE, "toml")[0], tiers=TIERS)


def a_contract(text: str) -> ContractVersion:
    """A contract of a page, where any account is one, and any book is in dollars."""
    return read_contract(
        text,
        tiers=TIERS,
        find_account=lambda written, _: written if written != "acmee" else None,
        find_currency_of_book=lambda _: find_currency("USD"),
    )


EXAMPLE = part("An example, to the last digit")
ASKED, _, COMPUTED = EXAMPLE.partition("What one million of these tokens costs")
STEPS, _, CHANGED = COMPUTED.partition("The same request with one thing changed")
STEP = re.compile(r"^\| [\d, ]*\| (?:`(.*?)`|\*\*unit price\*\*) \| `(.*?)` \|$", re.MULTILINE)


def code(cell: str) -> str:
    """What a cell of a table has as code."""
    found: list[str] = re.findall(r"`(.*?)`", cell)
    return found[-1]


def request() -> dict[str, str]:
    """The request of the example, as its table has it."""
    rows = ROW.findall(ASKED.split("One request")[1])
    return {name.removeprefix("token "): code(value) for name, value in rows}


def price_of(asked: dict[str, str]) -> Price | None:
    """The price that the page's book and contract have for a request."""
    (override,) = a_contract(blocks(BOOK_PAGE, "toml")[1]).overrides
    ended = datetime.fromisoformat(asked["ended"])
    key = PriceKey(
        model=asked["model"],
        tier=asked["tier"],
        mode=Mode[asked["mode"].upper()],
        token_class=TokenClass[asked["class"].upper()],
        band=bisect_right(BAND_EDGES, int(asked["prompt"].replace(",", ""))),
        at_ms=interval_start_ms(to_ms(ended)),
    )
    return the_book().find_price(key, [override])


def test_example__numbers_are_what_the_code_computes() -> None:
    """Each number of the worked example comes from the page's own book, contract and request."""
    price = price_of(request())
    assert price is not None
    rows = STEP.findall(STEPS)
    written = [(price.source, write(price.base))]
    written += [(it.source, f"× {write(it.value)}") for it in price.factors]
    assert rows == [*written, ("", write(price.unit_price))]
    assert price.unit_price == Decimal("0.16575")
    tokens = int(request()["tokens"].replace(",", ""))
    exact = amount_of(tokens, unit_price=price.unit_price)
    billed = round_half_up(exact, USD)
    sums = [code(it) for it in re.findall(r"`[-\d.]+` USD", EXAMPLE)]
    assert sums == [write(exact), write(billed), write(subtract(exact, billed))]
    assert f"{tokens:,} tokens × {write(price.unit_price)} USD ÷ 1,000,000" in EXAMPLE


def test_example__local_time_is_the_zones() -> None:
    """The local time that the page tells is that of the book's zone, and in its window."""
    ended = datetime.fromisoformat(request()["ended"])
    local = ended.astimezone(the_book().zone)
    assert local.strftime("%A %H:%M") == "Thursday 21:40"
    assert "at 21:40 in Los Angeles" in ASKED


def test_example__changed_requests() -> None:
    """Each row of changes has the price, and the arithmetic, that the change comes to."""
    rows = ROW.findall(CHANGED)[1:]
    assert len(rows) == 9
    for changes, told in rows:
        changed = dict(re.findall(r"(\w+) `(.*?)`", changes))
        assert changed
        price = price_of({**request(), **changed})
        if price is None:
            assert told == "none: unpriced", changes
        else:
            assert told.replace("`", "") == explain(price)


@pytest.mark.parametrize("text", blocks(CONTRACT_PAGE, "toml"))
def test_contract_page__is_read(text: str) -> None:
    """Each file of the page of contracts is a contract without faults."""
    assert a_contract(text).series == "NG"


@pytest.mark.parametrize(("page", "known"), [(BOOK_PAGE, 1), (CONTRACT_PAGE, 0)])
def test_page__has_no_toml_that_is_not_read(page: str, known: int) -> None:
    """The pages have no other files than those that are read above, and all of these are TOML."""
    found = blocks(page, "toml")
    assert len(found) == 1 + known
    assert all(tomllib.loads(text)["format"] == 1 for text in found)


def test_book_page__names_each_class_edge_and_key() -> None:
    """The page has all token classes, in order, all edges of bands and all keys of a book."""
    classes = ", ".join(f"`{it.name.lower()}`" for it in TokenClass)
    assert f"Token classes: {classes}." in BOOK_PAGE
    *edges, last = (f"{it:,}" for it in BAND_EDGES)
    assert f"{', '.join(edges)} and {last} tokens" in BOOK_PAGE
    keys = part("Every key")
    for key in ("format", "book", "from", "zone", "currency", "missing", "same", "tiers", "modes"):
        assert f"`{key}`" in keys


def test_book_page__messages_are_the_codes() -> None:
    """The faults that the page shows are told in these words."""
    night = (
        '[windows.night]\ndays = ["fri"]\nhours = ["18:00-22:00"]\nfactor = "0.9"\n'
        "[windows.off_peak]"
    )
    text = blocks(BOOK_PAGE, "toml")[0]
    text = text.replace("tiers    = {", 'tiers    = { gold = "2",').replace('"1.40"', "1.40")
    with pytest.raises(FileFaults) as caught:
        read_book(text.replace("[windows.off_peak]", night), tiers=TIERS)
    _check_shown(BOOK_PAGE, [(it.place, it.message) for it in caught.value.faults])


def test_contract_page__messages_are_the_codes() -> None:
    """The faults that the page shows are told in these words."""
    text = blocks(CONTRACT_PAGE, "toml")[0]
    text = text.replace('"USD"', '"EUR"').replace('["acme"]', '["acmee"]')
    text = text.replace('["kimi-k2.6"]', '["glm-5.1"]')
    with pytest.raises(FileFaults) as caught:
        a_contract(text)
    _check_shown(CONTRACT_PAGE, [(it.place, it.message) for it in caught.value.faults])


def _check_shown(page: str, faults: list[tuple[str, str]]) -> None:
    (shown,) = blocks(page, "text")
    rows = [re.fullmatch(r"\w+\.toml:\d+: (\S+): (.*)", row) for row in shown.splitlines()]
    told = [(row[1], re.sub(r"line \d+", "", row[2])) for row in rows if row is not None]
    assert len(told) == len(rows)
    found = [(place, re.sub(r"line \d+", "", message)) for place, message in faults]
    assert sorted(told) == sorted(found)
