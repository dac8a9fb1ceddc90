"""Documents as PDF/A-3b: typst sets them, in faces of a package, with the JSON inside.

The same document is the same bytes wherever the same faces are. Characters that no face has are
never shown as empty boxes: they are written as their numbers, and the page says so.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import typst

from billing.documents.canonical import to_json
from billing.documents.format import date_of
from billing.documents.sheet import to_sheet
from billing.invoicing import Invoice
from billing.typefaces import load_typefaces

_HERE: Final = Path(__file__).parent
_STANDARD: Final = "a-3b"
# What typst says of each character, of those that PDF/A wants to be shown.
_UNSHOWN: Final = re.compile(r'the text `"(.*?)"` could not be displayed with font', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\u\{([0-9a-f]+)\}")
# Each attempt finds all that the one before could not show; shaping may add some.
_ATTEMPTS_MAX: Final = 5
_NOTE: Final = (
    "No font on the machine that made this paper has the characters that are written as [U+…]."
    " The names are whole in the JSON that is attached."
)


class UnprintableDocument(Exception):
    """A document that cannot be set, or not here; its other forms are as good as ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """A PDF; `unshown` are the characters that no face has, each once, in order."""

    body: bytes
    unshown: str


class Typesetter:
    """Sets documents, one after the other; its faces are read at the first one."""

    def __init__(self) -> None:
        """Take the layout."""
        self._lock = Lock()
        self._compiler: typst.Compiler | None = None
        self._layout = _HERE.joinpath("documents", "invoice.typ").read_bytes()

    def to_pdf(self, invoice: Invoice) -> Printed:
        """Return a document as PDF/A-3b; raises UnprintableDocument."""
        unshown: set[str] = set()
        for _ in range(_ATTEMPTS_MAX):
            missing = "".join(sorted(unshown))
            try:
                return Printed(body=self._compile(invoice, unshown=missing), unshown=missing)
            except typst.TypstError as error:
                found = _unshown_in(error.diagnostic) - unshown
                if not found:
                    raise UnprintableDocument(error.message) from error
                unshown |= found
        raise UnprintableDocument("fonts lack ever more characters")

    def _compile(self, invoice: Invoice, *, unshown: str) -> bytes:
        issue, zone = invoice.issue, invoice.version.zone
        made_ms = invoice.counted_until_ms if issue is None else issue.issue_ms
        values = {
            "sheet": to_sheet(invoice, unshown=unshown),
            "document": to_json(invoice).decode(),
            "date": date_of(made_ms, zone).isoformat(),
            "unshown": _NOTE if unshown else "",
        }
        with self._lock:
            if self._compiler is None:
                self._compiler = typst.Compiler(self._layout, font_paths=_load_typefaces())
            made = self._compiler.compile(
                self._layout,
                format="pdf",
                pdf_standards=_STANDARD,
                # Its structure for readers aloud is eight times the page; HTML has it for nothing.
                pdf_tags=False,
                sys_inputs=values,
                timestamp=made_ms // 1000,
            )
        assert isinstance(made, bytes), "a PDF is one file"
        return made


def _load_typefaces() -> typst.Fonts:
    try:
        return load_typefaces()
    except OSError as error:
        raise UnprintableDocument(f"no fonts, which a temporary folder takes: {error}") from error


def _unshown_in(diagnostic: str) -> set[str]:
    """Return the characters that typst names; it writes some of them as escapes."""
    found: set[str] = set()
    for text in _UNSHOWN.findall(diagnostic):
        plain = _ESCAPE.sub(lambda it: chr(int(it[1], 16)), text)
        found |= {it for it in plain if not it.isspace()}
    return found
