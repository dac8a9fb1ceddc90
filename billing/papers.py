"""Papers: a document's HTML, PDF and CSV, made once after its issue, and never made again.

They are made in steps of their own, so that a close does not wait for a hundred thousand pages.
Whoever asks for one that is not there yet makes it, and the first to keep it wins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from billing.documents.canonical import to_json
from billing.documents.html import to_html
from billing.documents.table import to_csv
from billing.documents.text import to_text
from billing.invoicing import Invoice
from billing.typesetting import Typesetter, UnprintableDocument

# Of one transaction: some seconds of work, which is all that a kill can cost.
_BATCH_SIZE: Final = 50


class PaperForm(StrEnum):
    """A form of a document that is kept; text and JSON are written from the document itself."""

    HTML = "html"
    PDF = "pdf"
    CSV = "csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """All papers of one document; `unshown` are characters that no font on this machine has."""

    bodies: Mapping[PaperForm, bytes]
    unshown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperBatch:
    """What a step made: numbers, with what was not as it should be.

    `last` is the number that the next step goes on behind; empty when there was nothing to do.
    """

    made: Sequence[str]
    unshown: Mapping[str, str]
    failed: Mapping[str, str]
    last: str


class PaperStore(Protocol):
    """Keeps papers beside their documents, and knows which have none."""

    def find(self, number: str, form: PaperForm) -> bytes | None:
        """Return a paper as it was kept; raises Unavailable."""
        ...

    def keep(self, number: str, papers: Papers) -> None:
        """Keep a document's papers; those that are there already stay as they are."""
        ...

    def make_missing(
        self, make: Callable[[Invoice], Papers], *, after: str, limit: int
    ) -> PaperBatch:
        """Make and keep the papers of the next documents without, in one transaction.

        Documents that another process is at are left to it, and what cannot be printed
        (UnprintableDocument) is named and stays without.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PapersMade:
    """What became of all papers that were missing, by the numbers of their documents."""

    made_count: int
    unshown: Mapping[str, str]
    failed: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperPress:
    """The use cases, over a store and what sets type."""

    store: PaperStore
    typesetter: Typesetter

    def make_missing(
        self, *, limit: int | None = None, on_progress: Callable[[int], None] = lambda _: None
    ) -> PapersMade:
        """Make papers of up to so many documents that have none; None: of all.

        `on_progress` is told how many are made. May be stopped at any time, and run by many
        processes at once. Raises Unavailable.
        """
        count, after = 0, ""
        unshown: dict[str, str] = {}
        failed: dict[str, str] = {}
        while limit is None or count < limit:
            size = _BATCH_SIZE if limit is None else min(_BATCH_SIZE, limit - count)
            batch = self.store.make_missing(self.make, after=after, limit=size)
            if not batch.last:
                break
            after = batch.last
            count += len(batch.made)
            unshown |= batch.unshown
            failed |= batch.failed
            on_progress(count)
        return PapersMade(made_count=count, unshown=unshown, failed=failed)

    def get(self, invoice: Invoice, form: PaperForm) -> bytes:
        """Return a paper of an issued document: as it was kept, or made and kept now.

        Raises Unavailable, UnprintableDocument.
        """
        assert invoice.issue is not None, "a draft has no paper that is kept"
        number = invoice.issue.number
        found = self.store.find(number, form)
        if found is not None:
            return found
        self.store.keep(number, self.make(invoice))
        kept = self.store.find(number, form)
        assert kept is not None, "it was kept just now"
        return kept

    def make(self, invoice: Invoice) -> Papers:
        """Return a document's papers as they are made now; raises UnprintableDocument."""
        printed = self.typesetter.to_pdf(invoice)
        return Papers(
            bodies={
                PaperForm.HTML: to_html(invoice),
                PaperForm.PDF: printed.body,
                PaperForm.CSV: to_csv(invoice),
            },
            unshown=printed.unshown,
        )

    def render(self, invoice: Invoice, form: str) -> bytes:
        """Return a document in a form (text, json, html, csv, pdf); papers of issued ones are kept.

        One that cannot be printed has its other forms all the same, which are not kept. Raises
        Unavailable, and for a PDF UnprintableDocument.
        """
        if form == "text":
            return to_text(invoice)
        if form == "json":
            return to_json(invoice)
        if invoice.issue is not None:
            try:
                return self.get(invoice, PaperForm(form))
            except UnprintableDocument:
                if form == PaperForm.PDF:
                    raise
        match PaperForm(form):
            case PaperForm.HTML:
                return to_html(invoice)
            case PaperForm.CSV:
                return to_csv(invoice)
            case PaperForm.PDF:
                return self.typesetter.to_pdf(invoice).body
