"""Documents as PDF, read again by other people's programs: all is there, whole, within the page."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Final

import pytest

from billing.documents.format import (
    PREVIEW,
    SANDBOX,
    group_count,
    group_money,
    group_price,
    name_of,
    printable,
)
from billing.documents.sections import (
    charge_items,
    credit_items,
    payment_rows,
    sections,
    sums,
    total_row,
)
from billing.invoicing import Invoice
from billing.typesetting import Typesetter
from tests.billing.documents.gallery import SAMPLES
from tests.stacks.papers import SHOWN, print_paper, run, squeeze, stands_in

TYPESETTER: Final = Typesetter()
PAGES: Final = {
    "month": 1,
    "whole": 2,
    "sixty_lines": 2,
    "one_long_model": 2,
    "many_models": 3,
    "long_names": 2,
    "preview": 2,
    "two_hundred_lines": 5,
}
MINUS: Final = "\N{MINUS SIGN}"
A4_WIDTH_PT, A4_HEIGHT_PT = 595, 842
MARGIN_PT: Final = 51
ROW_HEIGHT_PT: Final = 9
BOX: Final = re.compile(r'xMin="([\d.]+)" yMin="([\d.]+)" xMax="([\d.]+)" yMax="([\d.]+)"')
# Marks at which a word may be broken, and those that turn the direction of writing.
MARKS: Final = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069]")

pytestmark = [
    pytest.mark.stacks,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler is not installed"),
]


@pytest.mark.parametrize("name", SAMPLES)
def test_paper__has_everything(name: str, tmp_path: Path) -> None:
    """Each name, number and amount is there, whole, and each page says which of how many it is."""
    invoice = SAMPLES[name]()
    pages = [MARKS.sub("", page) for page in print_paper(TYPESETTER, invoice, tmp_path)]
    if name in PAGES:
        assert len(pages) == PAGES[name]
    expected, words = _numbers(invoice), Counter("".join(pages).split())
    assert expected <= words, expected - words
    text = squeeze("".join(pages))
    assert not [it for it in _names(invoice) if not stands_in(it, text)]
    for number, page in enumerate(pages, 1):
        rows = [squeeze(row) for row in page.splitlines()]
        assert f"Page{number}of{len(pages)}" in rows
        assert number == 1 or any(squeeze(name_of(invoice)) in row for row in rows)
        assert (squeeze(SANDBOX) in "".join(rows)) is invoice.is_sandbox
        assert (squeeze(PREVIEW) in "".join(rows)) is (invoice.issue is None)


@pytest.mark.parametrize("name", SAMPLES)
def test_paper__has_the_head_on_each_page(name: str, tmp_path: Path) -> None:
    """Each page with lines of tokens has the titles of their columns and the names of models."""
    invoice = SAMPLES[name]()
    for page in print_paper(TYPESETTER, invoice, tmp_path):
        plain = MARKS.sub("", page)
        words, text = set(plain.split()), squeeze(plain)
        lines = [it for it in invoice.lines if _count(it.token_count) in words]
        assert not lines or "Tokens" in words
        assert not [it for it in lines if not stands_in(it.model, text)]


@pytest.mark.parametrize("name", SAMPLES)
def test_paper__has_no_text_on_text(name: str, tmp_path: Path) -> None:
    """No word is in the margins or outside the page, and none in another one's place."""
    print_paper(TYPESETTER, SAMPLES[name](), tmp_path)
    boxed = run("pdftotext", "-bbox", "page.pdf", "-", folder=tmp_path)
    for page in boxed.split("<page ")[1:]:
        boxes = [tuple(map(float, box)) for box in BOX.findall(page)]
        assert boxes
        for left, top, right, bottom in boxes:
            assert left > MARGIN_PT - 1
            assert right < A4_WIDTH_PT - MARGIN_PT + 2
            assert 0 < top < bottom < A4_HEIGHT_PT
        assert not [pair for pair in combinations(boxes, 2) if _cover(*pair)]


@pytest.mark.parametrize("line_count", [30, 33, 36, 37, 38])
def test_paper__has_the_last_lines_beside_the_sums(line_count: int, tmp_path: Path) -> None:
    """However long the table is, the page of its sums has at least its last two lines."""
    whole = SAMPLES["two_hundred_lines"]()
    invoice = replace(whole, lines=whole.lines[:line_count])
    pages = print_paper(TYPESETTER, invoice, tmp_path)
    (page,) = [it for it in pages if total_row(invoice)[0] in it]
    assert all(_count(it.token_count) in page.split() for it in invoice.lines[-2:])


def test_paper__brings_its_fonts(tmp_path: Path) -> None:
    """Every font is inside, so that the page looks the same on every machine and in ten years."""
    print_paper(TYPESETTER, SAMPLES["cjk_and_rtl"](), tmp_path)
    rows = run("pdffonts", "page.pdf", folder=tmp_path).splitlines()[2:]
    assert len(rows) > 4
    # Name, type, encoding; then whether it is embedded, a subset, and can be read as text.
    assert all(row.split()[-5:-2] == ["yes", "yes", "yes"] for row in rows)


def test_pictures__are_of_what_there_is() -> None:
    """The page of reference shows each of the pictures, and each is of a sample."""
    root = Path(__file__).parents[2]
    page = (root / "docs/reference/invoice.md").read_text("utf-8")
    names = {
        f"{name}-{page}" if len(pages) > 1 else name
        for name, pages in SHOWN.items()
        for page in pages
    }
    assert {it.stem for it in (root / "docs/images/invoices").glob("*.png")} == names
    assert not [it for it in names if f"../images/invoices/{it}.png" not in page]


def _numbers(invoice: Invoice) -> Counter[str]:
    """Return all numbers of the lines and the sums, as often as each has to be there."""
    currency = invoice.currency
    found = Counter([group_money(invoice.total, currency)] * 2)
    for line in invoice.lines:
        found[group_count(line.token_count)] += 1
        found[group_price(line.price.unit_price, currency)] += 1
        found[group_money(line.billed, currency)] += 1
    for item in (*charge_items(invoice), *credit_items(invoice)):
        found[item.amount] += 1
    for _, amount in sums(invoice):
        found[amount] += 1
    return Counter({it.replace("-", MINUS): count for it, count in found.items()})


def _names(invoice: Invoice) -> set[str]:
    version = invoice.version
    parties = (version.seller, version.buyer)
    names = {line.model for line in invoice.lines} | {line.tier for line in invoice.lines}
    names |= {key.model for key in invoice.unpriced} | {version.po, invoice.reason}
    names |= {text for party in parties for text in (party.name, *party.address, party.tax_id)}
    names |= {it.text for it in (*charge_items(invoice), *credit_items(invoice))}
    names |= {it.title for it in sections(invoice)} | set(payment_rows(invoice))
    names |= {it.tax.note for it in invoice.taxes} | {it.sha256 for it in invoice.terms}
    names |= {invoice.refers_to, invoice.replaces, invoice.usage_sha256}
    return {printable(name) for name in names}


def _count(token_count: int) -> str:
    return group_count(token_count).replace("-", MINUS)


def _cover(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Tell whether two words of one row share a place; boxes are higher than letters are."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = abs(first[1] + first[3] - second[1] - second[3]) / 2
    return width > 1 and height < ROW_HEIGHT_PT / 2
