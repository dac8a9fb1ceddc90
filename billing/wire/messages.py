"""Billing's values as messages, and the parts of requests that have rules of their own."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from billing.contracts import ContractVersion
from billing.invoicing import DocumentKind, Invoice
from billing.issued import JUST_ISSUED, DocumentState, Standing
from billing.limits import NAME_CHARS_MAX
from billing.money import write, write_money
from billing.periods import Month, Span, read_month
from billing.previewing import Preview
from billing.price_book import Price, PriceBook
from billing.rating import Unpriced
from meter.domain.account import invalid_argument
from meter.domain.interval import is_on_edge
from meter.domain.tokens import BAND_NAMES
from tokenworks.billing.v1 import billing_service_pb2 as pb

_KINDS: Final = {
    DocumentKind.INVOICE: pb.DOCUMENT_KIND_INVOICE,
    DocumentKind.SUPPLEMENTARY_INVOICE: pb.DOCUMENT_KIND_SUPPLEMENTARY_INVOICE,
    DocumentKind.CREDIT_NOTE: pb.DOCUMENT_KIND_CREDIT_NOTE,
    DocumentKind.WRITE_OFF: pb.DOCUMENT_KIND_WRITE_OFF,
}
_STATES: Final = {
    DocumentState.ISSUED: pb.DOCUMENT_STATE_ISSUED,
    DocumentState.PAID: pb.DOCUMENT_STATE_PAID,
    DocumentState.VOID: pb.DOCUMENT_STATE_VOID,
}
_FORMS: Final[dict[int, str]] = {
    pb.DOCUMENT_FORMAT_UNSPECIFIED: "text",
    pb.DOCUMENT_FORMAT_TEXT: "text",
    pb.DOCUMENT_FORMAT_JSON: "json",
    pb.DOCUMENT_FORMAT_HTML: "html",
    pb.DOCUMENT_FORMAT_CSV: "csv",
    pb.DOCUMENT_FORMAT_PDF: "pdf",
}
# One more than a month has: what is longer is none, however long it is, and is not told back.
_MONTH_CHARS_READ: Final = len("2026-10") + 1
_LAST_SECONDS: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def to_price_version(book: PriceBook) -> pb.PriceVersion:
    """Return a version of a book in short."""
    return pb.PriceVersion(
        book=book.book,
        start_time=to_timestamp(book.start_ms),
        currency=book.currency.code,
        model_count=len(book.models) + len(book.names),
    )


def to_contract_version(version: ContractVersion) -> pb.ContractVersion:
    """Return a version of a contract in short."""
    end_ms = version.end_ms
    return pb.ContractVersion(
        contract=version.contract,
        start_time=to_timestamp(version.start_ms),
        end_time=None if end_ms is None else to_timestamp(end_ms),
        seller=version.seller.name,
        buyer=version.buyer.name,
        covers=version.covers,
        book=version.book,
        currency=version.currency.code,
        zone=version.zone.key,
    )


def to_summary(invoice: Invoice, *, standing: Standing = JUST_ISSUED) -> pb.InvoiceSummary:
    """Return an invoice in short, and what came of it since it was issued."""
    message = pb.InvoiceSummary(
        contract=invoice.version.contract,
        account=invoice.account_id,
        buyer=invoice.version.buyer.name,
        month=str(invoice.month),
        start_time=to_timestamp(invoice.span.start_ms),
        end_time=to_timestamp(invoice.span.end_ms),
        currency=invoice.currency.code,
        total=write_money(invoice.total, invoice.currency),
        line_count=len(invoice.lines) + len(invoice.charges) + len(invoice.credits),
        sandbox=invoice.is_sandbox,
        kind=_KINDS[invoice.kind],
        state=pb.DOCUMENT_STATE_DRAFT,
        net=write_money(invoice.net, invoice.currency),
        refers_to=invoice.refers_to,
        replaces=invoice.replaces,
    )
    if invoice.issue is not None:
        message.number = invoice.issue.number
        message.issue_time.FromMilliseconds(invoice.issue.issue_ms)
        message.due_date = invoice.issue.due.isoformat()
        message.state = _STATES[standing.state]
        message.credited = write_money(standing.credited, invoice.currency)
        message.paid = write_money(standing.paid, invoice.currency)
        message.voided_by = standing.voided_by
    return message


def to_preview(preview: Preview, document: bytes) -> pb.Preview:
    """Return a preview with its document."""
    invoice, close_ms = preview.invoice, preview.close_ms
    difference = preview.difference
    return pb.Preview(
        invoice=to_summary(invoice),
        document=document,
        unpriced=to_unpriced(invoice.unpriced),
        close_time=None if close_ms is None else to_timestamp(close_ms),
        number=preview.number,
        difference="" if difference is None else write_money(difference, invoice.currency),
    )


def to_unpriced(unpriced: Sequence[Unpriced]) -> list[pb.Unpriced]:
    """Return tokens that have no price."""
    messages = []
    for it in unpriced:
        message = pb.Unpriced(
            model=it.model,
            tier=it.tier,
            band=BAND_NAMES[it.band],
            token_count=it.token_count,
            first_time=to_timestamp(it.first_ms),
        )
        message.mode = int(it.mode)  # type: ignore[assignment]
        message.token_class = int(it.token_class)  # type: ignore[assignment]
        messages.append(message)
    return messages


def to_explained_price(price: Price | None, book: PriceBook) -> pb.ExplainPriceResponse:
    """Return a price factor by factor; None is a key that has none."""
    if price is None:
        return pb.ExplainPriceResponse(priced=False, version=to_price_version(book))
    return pb.ExplainPriceResponse(
        priced=True,
        unit_price=write(price.unit_price),
        base=write(price.base),
        source=price.source,
        factors=[pb.PriceFactor(source=it.source, value=write(it.value)) for it in price.factors],
        above=price.above,
        window=price.window,
        version=to_price_version(book),
    )


def to_timestamp(time_ms: int) -> Timestamp:
    """Return the wire's form of an instant."""
    message = Timestamp()
    message.FromMilliseconds(time_ms)
    return message


def from_text(text: str, field: str, *, chars_max: int, may_be_empty: bool = False) -> str:
    """Return a text of a request, of printable characters; raises InvalidArgument."""
    if len(text) > chars_max or not text.isprintable() or not (text.strip() or may_be_empty):
        count = f"at most {chars_max}" if may_be_empty else f"1–{chars_max}"
        raise invalid_argument(field, f"{count} printable characters")
    return text


def from_name(text: str, field: str) -> str:
    """Return a name or number of a request, as anything can have; raises InvalidArgument."""
    return from_text(text, field, chars_max=NAME_CHARS_MAX)


def from_filter(text: str, field: str) -> str | None:
    """Return a name that something is listed by, None where it is empty; raises InvalidArgument."""
    return from_name(text, field) if text else None


def from_form(form: int) -> str:
    """Return the name of a document's form; raises InvalidArgument."""
    found = _FORMS.get(form)
    if found is None:
        raise invalid_argument("format", "text, JSON, HTML, CSV or PDF")
    return found


def from_month(text: str) -> Month:
    """Return the month of a request; raises InvalidArgument."""
    try:
        return read_month(text[:_MONTH_CHARS_READ])
    except ValueError as error:
        raise invalid_argument("month", str(error)) from error


def from_timestamp(time: Timestamp, field: str) -> int:
    """Return the instant of a request in ms; raises InvalidArgument."""
    # A timestamp that was built by hand may lie beyond the years that there are.
    if not (0 <= time.seconds < _LAST_SECONDS and 0 <= time.nanos < 10**9):
        raise invalid_argument(field, "between 1970 and 9999")
    return time.seconds * 1000 + time.nanos // 10**6


def from_span(start: Timestamp, end: Timestamp) -> Span:
    """Return the span of a request; raises InvalidArgument."""
    start_ms, end_ms = from_timestamp(start, "start_time"), from_timestamp(end, "end_time")
    for field, time_ms in (("start_time", start_ms), ("end_time", end_ms)):
        if not is_on_edge(time_ms):
            raise invalid_argument(field, "on a 15-minute edge")
    if end_ms <= start_ms:
        raise invalid_argument("end_time", "after start_time")
    return Span(start_ms=start_ms, end_ms=end_ms)
