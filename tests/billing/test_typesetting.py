"""Documents as PDF: the same bytes each time, PDF/A with the JSON inside, and no letter missing."""

import re
import zlib
from dataclasses import replace
from typing import Final

import pytest
import typst
from hypothesis import given, settings

from billing.documents.canonical import to_json
from billing.invoicing import Invoice
from billing.typesetting import Typesetter, UnprintableDocument
from tests.billing.documents.gallery import SAMPLES
from tests.billing.documents.strategies import invoices
from tests.billing.invoices import VERSION, with_names

TYPESETTER: Final = Typesetter()
STREAM: Final = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
# Of the planes that belong to nobody: no font of any machine has it.
UNSHOWN: Final = "\U0010fffd"


def streams(document: bytes) -> list[bytes]:
    """Return what a PDF holds, unpacked."""
    found = []
    for packed in STREAM.findall(document):
        try:
            # Without its check at the end, whose last byte may look like the end of a line.
            found.append(zlib.decompressobj().decompress(packed))
        except zlib.error:
            found.append(packed)
    return found


def named(seller: str, *, buyer: str = "") -> Invoice:
    """Return an invoice between parties of these names."""
    return replace(SAMPLES["two_lines"](), version=with_names(VERSION, seller=seller, buyer=buyer))


def _fault(words: str) -> typst.TypstError:
    """Return what typst raises; it sets these itself, whatever its constructor is given."""
    error = typst.TypstError.__new__(typst.TypstError, words)
    error.message = error.diagnostic = words
    return error


@pytest.mark.parametrize("name", ["two_lines", "whole", "cjk_and_rtl"])
def test_to_pdf__is_the_same_each_time(name: str) -> None:
    """The same document is the same bytes, also from a press that was just set up."""
    invoice = SAMPLES[name]()
    assert TYPESETTER.to_pdf(invoice) == TYPESETTER.to_pdf(invoice) == Typesetter().to_pdf(invoice)


@pytest.mark.parametrize("name", SAMPLES)
def test_to_pdf__of_every_sample(name: str) -> None:
    """Every document is PDF/A-3b, has the canonical JSON inside, and all its letters."""
    invoice = SAMPLES[name]()
    printed = TYPESETTER.to_pdf(invoice)
    parts = streams(printed.body)
    assert printed.body.startswith(b"%PDF-1.7")
    assert any(b"pdfaid:part>3<" in it and b"pdfaid:conformance>B<" in it for it in parts)
    assert to_json(invoice) in parts
    assert printed.unshown == ""


@pytest.mark.parametrize(
    "name", ["#panic()", '"; #read("/etc/passwd")', "$x$ *b* _i_ @ref <a> \\", "= Title\n- item"]
)
def test_to_pdf__of_a_name_that_is_markup(name: str) -> None:
    """A name is a value and never read: nothing in it runs, reads a file or ends the page."""
    printed = TYPESETTER.to_pdf(named(name, buyer=name))
    assert printed.unshown == ""


def test_to_pdf__of_characters_that_no_font_has() -> None:
    """What cannot be shown is told, and written as its number instead of as an empty box."""
    printed = TYPESETTER.to_pdf(named(f"Nimbus {UNSHOWN}", buyer=f"{UNSHOWN}\U0010fffc"))
    assert printed.unshown == f"\U0010fffc{UNSHOWN}"
    plain = TYPESETTER.to_pdf(named("Nimbus"))
    assert len(printed.body) != len(plain.body)
    assert plain.unshown == ""


def test_to_pdf__of_what_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the layout is told as one of the document, and not tried for ever."""

    class Broken:
        def compile(self, *_: object, **__: object) -> bytes:
            raise _fault("no page")

    press = Typesetter()
    monkeypatch.setattr(press, "_compiler", Broken())
    with pytest.raises(UnprintableDocument, match="no page"):
        press.to_pdf(SAMPLES["two_lines"]())


@settings(max_examples=40)
@given(invoices())
def test_to_pdf__of_any_document(invoice: Invoice) -> None:
    """Whatever names, numbers and dates a document has, it is set, with its JSON inside."""
    assert to_json(invoice) in streams(TYPESETTER.to_pdf(invoice).body)
