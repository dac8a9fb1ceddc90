"""The page of HTML: whole, harmless whatever names say, and with every amount."""

from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given

from billing.documents.format import PREVIEW, SANDBOX, group_count, group_money, printable
from billing.documents.html import to_html
from billing.documents.markup import Markup, css_text, element
from billing.invoicing import Invoice
from tests.billing.documents.gallery import SAMPLES
from tests.billing.documents.strategies import invoices
from tests.billing.invoices import INPUT, VERSION, Sold, book, make_invoice, with_names

MINUS = "\N{MINUS SIGN}"
VOID = {"meta", "col"}
ELEMENTS = VOID | {
    *("html", "head", "title", "style", "body", "main", "header", "section", "footer", "div"),
    *("h1", "h2", "p", "span", "strong", "bdi", "dl", "dt", "dd"),
    *("table", "colgroup", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {
    *("charset", "class", "colspan", "content", "http-equiv", "lang", "name", "scope", "style"),
    "translate",
}
EVIL = "<script>alert(\"1\")</script> & <b onclick='x'>Söhne</b> &amp;"


class Page(HTMLParser):
    """Reads a page as a browser does: its elements, its attributes, and each run of text."""

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.texts = [""]
        self._open: list[str] = []
        self.feed(document.decode())
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element and what it is given."""
        self.elements[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        if tag not in VOID:
            self._open.append(tag)
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last, and no other."""
        assert self._open.pop() == tag
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        """Take text."""
        self.texts[-1] += data


@given(invoices())
def test_to_html__is_whole(invoice: Invoice) -> None:
    """Whatever names say, there are only our own elements and attributes, each closed once."""
    page = Page(to_html(invoice))
    assert set(page.elements) <= ELEMENTS
    assert page.attributes <= ATTRIBUTES
    assert page.elements["style"] == page.elements["main"] == 1


@given(invoices())
def test_to_html__says_it_all(invoice: Invoice) -> None:
    """Names and amounts of each line stand on the page as they are, and the total twice."""
    texts = Counter(Page(to_html(invoice)).texts)
    seller, buyer = invoice.version.seller, invoice.version.buyer
    names = [seller.name, buyer.name, *seller.address, *buyer.address]
    names += [line.model for line in invoice.lines] + [key.model for key in invoice.unpriced]
    assert {printable(name) for name in names} <= set(texts)
    numbers = [group_money(line.billed, invoice.currency) for line in invoice.lines]
    numbers += [group_count(line.token_count) for line in invoice.lines]
    numbers += [group_money(invoice.total, invoice.currency)] * 2
    assert Counter(it.replace("-", MINUS) for it in numbers) <= texts


def test_to_html__escapes() -> None:
    """A name that is HTML is shown as it was written, everywhere."""
    version = with_names(replace(VERSION, po=EVIL), seller=EVIL, buyer=EVIL)
    books = (replace(book(), tiers=None),)
    document = to_html(make_invoice([Sold(EVIL, EVIL, INPUT, 1)] * 2, version=version, books=books))
    assert b"<script" not in document
    assert b"onclick='" not in document
    page = Page(document)
    assert page.texts.count(EVIL) == 6
    assert set(page.elements) <= ELEMENTS


@pytest.mark.parametrize("name", SAMPLES)
def test_to_html__comes_alone(name: str) -> None:
    """The page runs no script and asks for nothing from elsewhere, and says so itself."""
    document = to_html(SAMPLES[name]()).decode()
    assert "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;" in document
    for word in ("<script", "<link", "<img", "src=", "href=", "url(", "@import", "http:", "https:"):
        assert word not in document


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("month", []),
        ("preview", [PREVIEW]),
        ("sandbox", [SANDBOX]),
        ("sandbox_preview", [SANDBOX, PREVIEW]),
    ],
)
def test_to_html__begins_with_what_it_is(name: str, expected: list[str]) -> None:
    """A sandbox and a preview say so before anything else, and on each page of paper."""
    document = to_html(SAMPLES[name]())
    texts = list(filter(str.strip, Page(document).texts))
    assert [it for it in texts if it in {PREVIEW, SANDBOX}] == expected
    assert texts[2 : 2 + len(expected[:1])] == expected[:1]
    warning = css_text(" · ".join(expected))
    assert f"@top-left {{ content: {warning};" in document.decode()


def test_to_html__of_a_preview() -> None:
    """A preview has no number, and lists what has no price."""
    texts = Page(to_html(SAMPLES["preview"]())).texts
    assert "Preview" in texts
    assert "no number" in texts
    assert "3 keys have no price: this account’s invoice is held until they have one." in texts
    assert texts.count("glm-6-preview") == 2
    assert "high · batch · output · prompts of ≥1M tokens" in texts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("month", ["Due on 1 December 2026", "3,769.25"]),
        ("all_free", ["Nothing is due", "0.00"]),
        ("no_lines", ["Nothing is due", "Nothing was used in this period.", "0.00"]),
        ("taken_back", ["In your favour", f"{MINUS}17.28", f"{MINUS}12,345,678"]),
        ("yen", ["1,265,267", "JPY per million"]),
        ("dinar", ["3,165.105"]),
        ("preview", ["Total so far"]),
    ],
)
def test_to_html__tells_what_is_due(name: str, expected: list[str]) -> None:
    """What is to be paid stands in the currency's decimals, with what that means."""
    assert set(expected) <= set(Page(to_html(SAMPLES[name]())).texts)


def test_element__escapes_text_only() -> None:
    """What is text is escaped, in content and in attributes; what is ready is not again."""
    inner = element("b", "a < b & c")
    assert inner == "<b>a &lt; b &amp; c</b>"
    assert element("p", inner, "\x00\u2028", class_='"x"') == (
        '<p class="&quot;x&quot;"><b>a &lt; b &amp; c</b>\ufffd\ufffd</p>'
    )
    assert element("td", "", colspan="", http_equiv="x") == '<td http-equiv="x"></td>'
    assert isinstance(element("col"), Markup)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Invoice NG-2026-000042", '"Invoice NG-2026-000042"'),
        ('"; } </style><script>', r'"\22 \3b  \7d  \3c \2f style\3e \3c script\3e "'),
        ("漢\n\\", r'"\6f22 \a \5c "'),
        ("", '""'),
    ],
)
def test_css_text__ends_nothing(text: str, expected: str) -> None:
    """Nothing in a text ends the string, the rule or the style sheet."""
    assert css_text(text) == expected
