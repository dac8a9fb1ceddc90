"""From rated lines to an invoice: one rounding a line, and what it left over is kept. Pure."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import count
from typing import Final

from billing.charges import Charge
from billing.contracts import BillingPeriod, ContractVersion
from billing.difference import LeftLine
from billing.energy import InvoiceEnergy
from billing.money import Currency, add_up, multiply, round_half_up, subtract
from billing.periods import Month, Span, month_of
from billing.price_book import Price
from billing.rating import Unpriced
from billing.tax import Tax, TaxTotal, tax_totals
from meter.domain.times import to_time
from meter.domain.tokens import Mode, TokenClass

# Moves when the same usage and terms would come to another invoice.
ENGINE_VERSION: Final = 2


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
    """Units of a charge at a price each: `exact` = quantity × unit price.

    One that an earlier period has carried forward has an `origin`, which names no line.
    """

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
    origin: Origin | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrears:
    """What a closed period has left over: lines by the difference rule, and charges not billed."""

    period: BillingPeriod
    lines: tuple[LeftLine, ...]
    charges: tuple[Charge, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a draft is made by, and what a document says of it; see `Invoice`."""

    cut_id: int | None
    counted_until_ms: int
    is_sandbox: bool
    energy: InvoiceEnergy | None = None
    groups: tuple[Group, ...] = ()
    replaces: str = ""
    usage_sha256: str = ""
    terms: tuple[TermsFile, ...] = ()


def draft(
    period: BillingPeriod,
    lines: Sequence[LeftLine],
    *,
    made: Made,
    unpriced: tuple[Unpriced, ...] = (),
    arrears: Sequence[Arrears] = (),
    charges: Sequence[Charge] = (),
) -> Invoice:
    """Return the draft of a period's document: of its own lines, of arrears, and of charges.

    It is that of a credit note where all of it comes to less than nothing.
    """
    version = period.version
    numbers = count(1)
    own = [_to_line(line, number=next(numbers), origin=None) for line in lines]
    late = [
        _to_line(line, number=next(numbers), origin=_origin(each.period, line))
        for each in arrears
        for line in each.lines
    ]
    charged = [_to_charge(it, version, number=next(numbers), origin=None) for it in charges]
    charged += [
        _to_charge(charge, version, number=next(numbers), origin=_origin(each.period, None))
        for each in arrears
        for charge in each.charges
    ]
    billed = [(version.tax, it.billed) for it in (*own, *late)]
    billed += [(it.tax, it.billed) for it in charged]
    taxes = tax_totals(billed, version.currency)
    net = round_half_up(add_up(amount for _, amount in billed), version.currency)
    return Invoice(
        version=version,
        span=period.span,
        issue=None,
        cut_id=made.cut_id,
        counted_until_ms=made.counted_until_ms,
        engine=ENGINE_VERSION,
        is_sandbox=made.is_sandbox,
        lines=(*own, *late),
        unpriced=unpriced,
        total=add_up((net, *(it.amount for it in taxes))),
        residue=add_up([*(it.residue for it in (*own, *late)), *(it.residue for it in charged)]),
        energy=made.energy,
        kind=DocumentKind.CREDIT_NOTE if net < 0 else DocumentKind.INVOICE,
        charges=tuple(charged),
        groups=made.groups,
        taxes=taxes,
        replaces=made.replaces,
        usage_sha256=made.usage_sha256,
        terms=made.terms,
    )


def digest_of(terms: Iterable[TermsFile]) -> bytes:
    """Return what moves with any file that a period is priced by: a SHA-256 over all of them."""
    digest = hashlib.sha256()
    for it in terms:
        digest.update(f"{it.kind}|{it.name}|{it.start_ms}|{it.sha256}\n".encode())
    return digest.digest()


def series_of(invoice: Invoice) -> str:
    """Return the series that a document takes its number from: its contract's, by its kind."""
    return invoice.version.series + _SERIES_ENDINGS[invoice.kind]


def issue_year(version: ContractVersion, issue_ms: int) -> int:
    """Return the year whose numbers an invoice takes: the issue's, where the contract is."""
    return to_time(issue_ms).astimezone(version.zone).year


def number_of(series: str, year: int, serial: int) -> str:
    """Return the number of a document, from its place in its series and year."""
    return f"{series}-{year}-{serial:06d}"


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
            number=number_of(series, year, number),
            series=series,
            year=year,
            issue_ms=issue_ms,
            due=local_date + timedelta(days=days),
        ),
    )


def _to_line(line: LeftLine, *, number: int, origin: Origin | None) -> InvoiceLine:
    assert line.price is not None, "whoever drafts has found it"
    key = line.key
    return InvoiceLine(
        line=number,
        model=key.model,
        tier=key.tier,
        mode=key.mode,
        token_class=key.token_class,
        price=line.price,
        token_count=line.token_count,
        exact=line.exact,
        billed=line.billed,
        residue=subtract(line.exact, line.billed),
        group=key.group,
        origin=origin,
    )


def _origin(period: BillingPeriod, line: LeftLine | None) -> Origin:
    first = None if line is None else line.first
    return Origin(
        month=period.month,
        start_ms=period.span.start_ms,
        number="" if first is None else first.number,
        line=0 if first is None else first.line,
    )


def _to_charge(
    charge: Charge, version: ContractVersion, *, number: int, origin: Origin | None
) -> ChargeLine:
    exact = multiply(charge.quantity, charge.unit_price)
    billed = round_half_up(exact, version.currency)
    return ChargeLine(
        line=number,
        charge_id=charge.charge_id,
        text=charge.text,
        quantity=charge.quantity,
        unit=charge.unit,
        unit_price=charge.unit_price,
        exact=exact,
        billed=billed,
        residue=subtract(exact, billed),
        tax=version.tax if charge.tax is None else charge.tax,
        origin=origin,
    )
