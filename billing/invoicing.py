"""From rated lines to an invoice: one rounding a line, and what it left over is kept. Pure."""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from billing.contracts import BillingPeriod, ContractVersion
from billing.energy import InvoiceEnergy
from billing.money import Currency, add_up, amount_of, round_half_up, subtract
from billing.periods import Month, Span, month_of
from billing.price_book import Price
from billing.rating import RatedLine, Rating, Unpriced
from billing.tax import Tax, TaxTotal
from meter.domain.times import to_time
from meter.domain.tokens import Mode, TokenClass

# Moves when the same usage and terms would come to another invoice.
ENGINE_VERSION: Final = 1


class DocumentKind(StrEnum):
    """What a document is; a draft or preview is an invoice that was not issued."""

    INVOICE = "invoice"
    SUPPLEMENTARY_INVOICE = "supplementary_invoice"
    CREDIT_NOTE = "credit_note"
    WRITE_OFF = "write_off"


_PAYABLE: Final = frozenset({DocumentKind.INVOICE, DocumentKind.SUPPLEMENTARY_INVOICE})
_SERIES_ENDINGS: Final = {
    DocumentKind.INVOICE: "",
    DocumentKind.SUPPLEMENTARY_INVOICE: "",
    DocumentKind.CREDIT_NOTE: "-C",
    DocumentKind.WRITE_OFF: "-W",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which closed period an adjustment is for, and which line of which document it changes.

    `number` is empty and `line` 0 where nothing was billed at that price: what was carried
    forward, or a model that was not used before.
    """

    month: Month
    start_ms: int
    number: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """Tokens of one class at one unit price; `line` counts from 1 over a document's all lines.

    `exact` = tokens × unit price / 1,000,000; `billed` is that in whole smallest units, and
    `residue` what that left over, exact less billed. `group` is the account right below what is
    covered, where the contract splits by it. An adjustment has an `origin`: its tokens are what
    came late, below 0 what was taken back, and `billed` is the rounded sum of all less what was
    billed of it before, so that parts add up to the cent.
    """

    line: int
    model: str
    tier: str
    mode: Mode
    token_class: TokenClass
    price: Price
    token_count: int
    exact: Decimal
    billed: Decimal
    residue: Decimal
    group: str = ""
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeLine:
    """Units of a charge at a price each: `exact` = quantity × unit price."""

    line: int
    charge_id: str
    text: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    exact: Decimal
    billed: Decimal
    residue: Decimal
    tax: Tax | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditLine:
    """Money off a line of an issued document, or given up: `amount` < 0, without tax.

    Above 0 only where a line below 0 is made good, in a credit note over a whole document.

    `token_count` are the tokens of the line that it is for, > 0; None where it is for none.
    """

    line: int
    number: str
    number_line: int
    text: str
    token_count: int | None
    amount: Decimal
    tax: Tax | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An account by which lines are grouped, and the path that it had at the period's end."""

    account_id: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsFile:
    """A file that an invoice was made by: its kind (`book`, `contract`), name, begin, SHA-256."""

    kind: str
    name: str
    start_ms: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """What makes a draft an invoice: its number, when it was issued, and when it is due."""

    number: str
    series: str
    year: int
    issue_ms: int
    due: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """An invoice, or with an `issue` of None the draft or preview of one.

    `total` is the sum of the billed lines, `residue` that of what rounding left over. It is made of
    usage at or below `cut_id`, or for a preview (None) of all that was counted until
    `counted_until_ms`. `unpriced` is empty in an invoice. `is_sandbox` marks one that no real
    month stands behind. `energy` is information, where the contract asks for it and it is known.

    Lines of usage come first, then adjustments, charges and credits, numbered through. `total` is
    with `taxes`, `net` without. `refers_to` is the document that this one corrects, `replaces` the
    void invoice that it stands for, `reason` why there is such a document. `usage_sha256` is that
    of the usage as `billing.usage_hash` writes it; empty in documents of engine 1, which also name
    no `terms`.
    """

    version: ContractVersion
    span: Span
    issue: Issue | None
    cut_id: int | None
    counted_until_ms: int
    engine: int
    is_sandbox: bool
    lines: tuple[InvoiceLine, ...]
    unpriced: tuple[Unpriced, ...]
    total: Decimal
    residue: Decimal
    energy: InvoiceEnergy | None = None
    kind: DocumentKind = DocumentKind.INVOICE
    charges: tuple[ChargeLine, ...] = ()
    credits: tuple[CreditLine, ...] = ()
    groups: tuple[Group, ...] = ()
    taxes: tuple[TaxTotal, ...] = ()
    refers_to: str = ""
    replaces: str = ""
    reason: str = ""
    usage_sha256: str = ""
    terms: tuple[TermsFile, ...] = ()

    @property
    def net(self) -> Decimal:
        """The sum of the rounded lines, without taxes."""
        return subtract(self.total, add_up(it.amount for it in self.taxes))

    @property
    def currency(self) -> Currency:
        """The currency of all its amounts."""
        return self.version.currency

    @property
    def month(self) -> Month:
        """The month that it is for, where its contract is."""
        return month_of(self.span.start_ms, self.version.zone)

    @property
    def account_id(self) -> str:
        """The account that it is found by: the first that the contract covers."""
        return self.version.covers[0]


def draft(
    period: BillingPeriod,
    rating: Rating,
    *,
    cut_id: int | None,
    counted_until_ms: int,
    is_sandbox: bool,
    energy: InvoiceEnergy | None = None,
) -> Invoice:
    """Return the draft of a period's invoice."""
    currency = period.version.currency
    lines = tuple(
        _to_line(place, line, currency=currency) for place, line in enumerate(rating.lines, 1)
    )
    return Invoice(
        version=period.version,
        span=period.span,
        issue=None,
        cut_id=cut_id,
        counted_until_ms=counted_until_ms,
        engine=ENGINE_VERSION,
        is_sandbox=is_sandbox,
        lines=lines,
        unpriced=rating.unpriced,
        total=round_half_up(add_up(line.billed for line in lines), currency),
        residue=add_up(line.residue for line in lines),
        energy=energy,
    )


def series_of(invoice: Invoice) -> str:
    """Return the series that a document takes its number from: its contract's, by its kind."""
    return invoice.version.series + _SERIES_ENDINGS[invoice.kind]


def issue_year(version: ContractVersion, issue_ms: int) -> int:
    """Return the year whose numbers an invoice takes: the issue's, where the contract is."""
    return to_time(issue_ms).astimezone(version.zone).year


def issue(invoice: Invoice, *, number: int, issue_ms: int) -> Invoice:
    """Return the invoice that a draft becomes with the next number of its series and year."""
    assert invoice.issue is None
    assert not invoice.unpriced, "what has no price is not issued"
    assert invoice.cut_id is not None, "an invoice is of a cut"
    version = invoice.version
    year, series = issue_year(version, issue_ms), series_of(invoice)
    local_date = to_time(issue_ms).astimezone(version.zone).date()
    days = version.terms_days if invoice.kind in _PAYABLE else 0
    return replace(
        invoice,
        issue=Issue(
            number=f"{series}-{year}-{number:06d}",
            series=series,
            year=year,
            issue_ms=issue_ms,
            due=local_date + timedelta(days=days),
        ),
    )


def _to_line(place: int, line: RatedLine, *, currency: Currency) -> InvoiceLine:
    exact = amount_of(line.token_count, unit_price=line.price.unit_price)
    billed = round_half_up(exact, currency)
    return InvoiceLine(
        line=place,
        model=line.model,
        tier=line.tier,
        mode=line.mode,
        token_class=line.token_class,
        price=line.price,
        token_count=line.token_count,
        exact=exact,
        billed=billed,
        residue=subtract(exact, billed),
    )
