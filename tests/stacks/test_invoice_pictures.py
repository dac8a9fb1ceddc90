"""Invoices in Chromium, on a screen, on a narrow one and on paper: nothing is cut, all is there."""

import json
import re
import shutil
import subprocess
from collections import Counter
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
from billing.documents.html import to_html
from billing.invoicing import Invoice, InvoiceLine
from tests.billing.documents.gallery import SAMPLES
from tests.stacks.papers import stands_in

CHROMIUM: Final = shutil.which("chromium") or ""
COMMAND_SECONDS_MAX: Final = 120
# On A4, with the faces that `make stacks` installs.
PAGES: Final = {
    "month": 2,
    "sixty_lines": 3,
    "one_long_model": 3,
    "many_models": 4,
    "long_names": 2,
    "preview": 2,
    "sandbox": 2,
    "whole": 3,
    "two_hundred_lines": 8,
    "cjk_and_rtl": 2,
    "replacement": 2,
    "long_project_names": 2,
}
MINUS: Final = "\N{MINUS SIGN}"
A4_WIDTH_PT, A4_HEIGHT_PT = 595, 842
MARGIN_PT: Final = 51
ROW_HEIGHT_PT: Final = 12
BOX: Final = re.compile(r'xMin="([\d.]+)" yMin="([\d.]+)" xMax="([\d.]+)" yMax="([\d.]+)"')
RESOLUTION_DPI: Final = 50
# Below it a point is dark, above it red is bright.
INK: Final = 140
# Tells what sticks out of the page, is wider than its place, or is a number in two rows.
MEASURE: Final = """<script>
addEventListener("load", () => {
  const found = [];
  const page = document.querySelector("main").getBoundingClientRect();
  for (const it of document.querySelectorAll("main *")) {
    const box = it.getBoundingClientRect();
    if (!box.width || it.matches("bdi, col, colgroup, tr, tbody, thead")) continue;
    const name = `${it.tagName}.${it.className} ${it.textContent.slice(0, 40)}`;
    if (box.left < page.left || box.right > page.right) found.push(`out: ${name}`);
    const mayReachOver = it.matches(".class, .sold, table, span");
    if (!mayReachOver && it.scrollWidth > it.clientWidth + 1) found.push(`over: ${name}`);
    const text = document.createRange();
    text.selectNodeContents(it);
    const rows = [...text.getClientRects()].filter((row) => row.height > 0);
    const tops = rows.map((row) => row.top);
    if (it.matches(".number, .amount") && Math.max(...tops) - Math.min(...tops) > 12)
      found.push(`broken: ${name}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  document.title = JSON.stringify(found);
});
</script>"""

pytestmark = [
    pytest.mark.stacks,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
    pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler is not installed"),
]


@pytest.mark.parametrize("width", [1000, 500])
@pytest.mark.parametrize("name", SAMPLES)
def test_page__fits_the_screen(name: str, width: int, tmp_path: Path) -> None:
    """Nothing sticks out of the page or its cell, no number is broken, on either screen."""
    document = to_html(SAMPLES[name]()).decode()
    # What measures is a script: the page's own policy would keep it from running.
    measured = re.sub(r"<meta http-equiv=[^>]*>", "", document).replace(
        "</main>", "</main>" + MEASURE
    )
    assert measured.count("<script>") == 1
    (tmp_path / "page.html").write_text(measured, "utf-8")
    dumped = _browse(tmp_path, f"--window-size={width},1400", "--dump-dom")
    title = re.search("<title>(.*?)</title>", dumped, re.DOTALL)
    assert title is not None
    assert json.loads(title[1]) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_paper__has_everything(name: str, tmp_path: Path) -> None:
    """On paper are all names, tokens, prices and amounts, whole, on as many pages as expected."""
    invoice = SAMPLES[name]()
    pages = _print(invoice, tmp_path)
    assert len(pages) == PAGES.get(name, 1)
    expected, words = _numbers(invoice), Counter("".join(pages).split())
    assert expected <= words, expected - words
    # A long name goes over several rows.
    text = _squeeze("".join(pages))
    assert not [name for name in _names(invoice) if not stands_in(name, text)]
    for number, page in enumerate(pages, 1):
        rows = [_squeeze(row) for row in page.splitlines()]
        assert f"Page{number}of{len(pages)}" in rows
        is_headed = any(row.endswith(_squeeze(name_of(invoice))) for row in rows)
        # The first page of a preview has its title in large letters.
        assert is_headed is (number > 1 or invoice.issue is None)
        assert (_squeeze(SANDBOX) in "".join(rows)) is invoice.is_sandbox
        assert (_squeeze(PREVIEW) in "".join(rows)) is (invoice.issue is None)


@pytest.mark.parametrize("name", SAMPLES)
def test_paper__has_the_head_on_each_page(name: str, tmp_path: Path) -> None:
    """Each page with lines has the titles of their columns and the names of their models."""
    invoice = SAMPLES[name]()
    seen = 0
    for page in _print(invoice, tmp_path):
        words, text = set(page.split()), _squeeze(page)
        lines = [line for line in invoice.lines if _count(line) in words]
        assert ("Tokens" in words) is bool(lines or invoice.credits)
        assert not [line for line in lines if not stands_in(line.model, text)]
        seen += len(lines)
    assert seen >= len(invoice.lines)


@pytest.mark.parametrize("name", SAMPLES)
def test_paper__has_no_text_on_text(name: str, tmp_path: Path) -> None:
    """No word is in the margins, and none in another one's place."""
    _print(SAMPLES[name](), tmp_path)
    for page in _run("pdftotext", "-bbox", "page.pdf", "-", folder=tmp_path).split("<page ")[1:]:
        boxes = [tuple(map(float, box)) for box in BOX.findall(page)]
        assert boxes
        for left, top, right, bottom in boxes:
            assert left > MARGIN_PT - 1
            assert right < A4_WIDTH_PT - MARGIN_PT + 2
            assert 0 < top < bottom < A4_HEIGHT_PT
        assert not [pair for pair in combinations(boxes, 2) if _cover(*pair)]


@pytest.mark.parametrize("name", SAMPLES)
def test_paper__has_ink(name: str, tmp_path: Path) -> None:
    """No page is blank or black, and a sandbox is red on the first one."""
    invoice = SAMPLES[name]()
    pages = _print(invoice, tmp_path)
    _run("pdftoppm", "-r", str(RESOLUTION_DPI), "page.pdf", "page", folder=tmp_path)
    pictures = sorted(tmp_path.glob("page-*.ppm"))
    assert len(pictures) == len(pages)
    for picture in pictures:
        # A second page may bear a few lines alone; an empty one has none.
        assert 0.0005 < _share_of_ink(picture) < 0.2
    assert (_share_of_red(pictures[0]) > 0.01) is invoice.is_sandbox


def _print(invoice: Invoice, folder: Path) -> list[str]:
    """Print an invoice into a folder, and return the text of each page, in reading order."""
    (folder / "page.html").write_bytes(to_html(invoice))
    _browse(folder, "--no-pdf-header-footer", f"--print-to-pdf={folder / 'page.pdf'}")
    text = _run("pdftotext", "-raw", "page.pdf", "-", folder=folder)
    return text.removesuffix("\f").split("\f")


def _browse(folder: Path, *words: str) -> str:
    # It may run as root, where its own sandbox does not work; the page is ours and runs nothing.
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}")
    return _run(CHROMIUM, *flags, *words, (folder / "page.html").as_uri(), folder=folder)


def _run(*command: str, folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def _numbers(invoice: Invoice) -> Counter[str]:
    """Return all numbers of the lines and the total, as often as each has to be there."""
    currency = invoice.currency
    found = Counter([group_money(invoice.total, currency)] * 2)
    for line in invoice.lines:
        found[_count(line)] += 1
        found[group_price(line.price.unit_price, currency)] += 1
        found[group_money(line.billed, currency)] += 1
    return Counter({it.replace("-", MINUS): count for it, count in found.items()})


def _count(line: InvoiceLine) -> str:
    return group_count(line.token_count).replace("-", MINUS)


def _cover(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Tell whether two words of one row share a place; boxes are higher than letters are."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = abs(first[1] + first[3] - second[1] - second[3]) / 2
    return width > 1 and height < ROW_HEIGHT_PT / 2


def _squeeze(text: str) -> str:
    """Return a text without blanks: in which of them rows break is not the point."""
    return "".join(text.split())


def _names(invoice: Invoice) -> set[str]:
    version = invoice.version
    parties = (version.seller, version.buyer)
    names = {line.model for line in invoice.lines} | {line.tier for line in invoice.lines}
    names |= {key.model for key in invoice.unpriced} | {version.po}
    names |= {text for party in parties for text in (party.name, *party.address, party.tax_id)}
    return {printable(name) for name in names}


def _colours(picture: Path) -> tuple[bytes, bytes]:
    """Return how red and how green each point is; P6 is a head and three bytes for each."""
    content = picture.read_bytes()
    head = re.match(rb"P6\s+\d+\s+\d+\s+255\s", content)
    assert head is not None
    points = content[head.end() :]
    return points[::3], points[1::3]


def _share_of_ink(picture: Path) -> float:
    _, greens = _colours(picture)
    return sum(green < INK for green in greens) / len(greens)


def _share_of_red(picture: Path) -> float:
    reds, greens = _colours(picture)
    return sum(green < INK < red for red, green in zip(reds, greens, strict=True)) / len(reds)
