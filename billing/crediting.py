"""Credit notes: how much of a line is given back, so that parts add up to the line. Pure.

What is left of a line is what it billed, less what was credited of it before. Tokens are credited
at the line's price, and the sum of all that were credited so far is rounded, not each part: parts
come to the line, to the smallest unit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from billing.errors import BillingReason
from billing.invoicing import (
    ENGINE_VERSION,
    ChargeLine,
    CreditLine,
    DocumentKind,
    Invoice,
    InvoiceLine,
)
from billing.money import ZERO, Currency, add_up, amount_of, round_half_up, subtract, write_money
from billing.price_book import MODE_NAMES, class_name
from billing.tax import Tax, tax_totals
from meter.domain.account import invalid_argument
from meter.domain.errors import NotFound, Refused
from meter.domain.tokens import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be credited of a line: tokens (> 0), an amount (> 0), or of both None all."""

    token_count: int | None = None
    amount: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOff:
    """What a credit note took off a line: `amount` without tax, > 0 where the line's billed is.

    `token_count` is of how many of the line's tokens; None: of none.
    """

    line: int
    token_count: int | None
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line that can be credited, whatever it bills."""

    line: int
    text: str
    token_count: int | None
    unit_price: Decimal
    billed: Decimal
    tax: Tax | None


def credit_line(
    invoice: Invoice, line_number: int, *, wanted: Wanted, taken: Iterable[TakenOff]
) -> CreditLine:
    """Return the line of a credit note for part of a line, or for all that is left of it.

    `taken` is what was taken off the invoice before. Raises NotFound (LINE_NOT_FOUND), Refused
    (CREDIT_TOO_HIGH), InvalidArgument for an amount that nobody can pay, or tokens that come to
    less than the smallest unit.
    """
    line = _find_line(invoice, line_number)
    before = [it for it in taken if it.line == line_number]
    left = subtract(line.billed, add_up(it.amount for it in before))
    if left <= 0:
        raise Refused(
            BillingReason.CREDIT_TOO_HIGH, f"Nothing is left of line {line_number} to credit."
        )
    tokens = None if line.token_count is None else line.token_count - _tokens_of(before)
    if wanted.amount is not None:
        _check_amount(wanted.amount, invoice.currency)
        amount, token_count = wanted.amount, None
    elif wanted.token_count is not None:
        if tokens is None:
            raise invalid_argument("token_count", "for a line of tokens; this one is a charge")
        if wanted.token_count > tokens:
            _refuse_more(line, f"{tokens:,} tokens", f"{wanted.token_count:,}")
        token_count = wanted.token_count
        amount = _amount_of_tokens(line, token_count, before=before, currency=invoice.currency)
    else:
        amount, token_count = left, tokens or None
    if amount > left:
        words = [f"{write_money(it, invoice.currency)}" for it in (left, amount)]
        _refuse_more(line, f"{words[0]} {invoice.currency.code}", words[1])
    return _to_credit(invoice, line, amount=amount, token_count=token_count)


def credit_lines(invoice: Invoice, *, taken: Sequence[TakenOff]) -> tuple[CreditLine, ...]:
    """Return the lines of the credit note that takes all back that is left of a whole invoice.

    Lines below 0 are made good too, so that nothing is left. Adjustments in later documents stay:
    they are part of what was billed for the period, which is looked at anew.
    """
    found = []
    for line in _lines(invoice):
        before = [it for it in taken if it.line == line.line]
        left = subtract(line.billed, add_up(it.amount for it in before))
        if left:
            tokens = None if line.token_count is None else line.token_count - _tokens_of(before)
            count = tokens if tokens is not None and tokens > 0 else None
            found.append(_to_credit(invoice, line, amount=left, token_count=count))
    return tuple(_numbered(found))


def credit_note(invoice: Invoice, lines: Sequence[CreditLine], *, reason: str) -> Invoice:
    """Return the draft of a credit note over lines of an issued invoice, with their taxes."""
    assert invoice.issue is not None, "only what was issued is credited"
    taxes = tax_totals(((it.tax, it.amount) for it in lines), invoice.currency)
    net = add_up(it.amount for it in lines)
    total = add_up((net, *(it.amount for it in taxes)))
    return Invoice(
        version=invoice.version,
        span=invoice.span,
        issue=None,
        cut_id=invoice.cut_id,
        counted_until_ms=invoice.counted_until_ms,
        engine=ENGINE_VERSION,
        is_sandbox=invoice.is_sandbox,
        lines=(),
        unpriced=(),
        total=round_half_up(total, invoice.currency),
        residue=ZERO,
        kind=DocumentKind.CREDIT_NOTE,
        credits=tuple(lines),
        taxes=taxes,
        refers_to=invoice.issue.number,
        reason=reason,
    )


def _amount_of_tokens(
    line: _Line, token_count: int, *, before: Sequence[TakenOff], currency: Currency
) -> Decimal:
    """Return what so many more tokens come to: the rounded sum of all, less those before."""
    earlier = [it for it in before if it.token_count is not None]
    count = _tokens_of(before) + token_count
    worth = round_half_up(amount_of(count, unit_price=line.unit_price), currency)
    # An adjustment may bill a unit more or less than its own tokens come to: parts add up to it.
    worth = line.billed if count == line.token_count else min(worth, line.billed)
    amount = subtract(worth, add_up(it.amount for it in earlier))
    if amount <= 0:
        raise invalid_argument(
            "token_count",
            f"so many tokens that they come to {write_money(_unit(currency), currency)}"
            f" {currency.code} or more",
        )
    return amount


def _check_amount(amount: Decimal, currency: Currency) -> None:
    if amount <= 0 or round_half_up(amount, currency) != amount:
        raise invalid_argument(
            "amount", f"above 0, with at most {currency.exponent} decimals for {currency.code}"
        )


def _unit(currency: Currency) -> Decimal:
    return Decimal(1).scaleb(-currency.exponent)


def _refuse_more(line: _Line, left: str, wanted: str) -> None:
    raise Refused(
        BillingReason.CREDIT_TOO_HIGH,
        f"Of line {line.line} {left} are left to credit, and not {wanted}.",
        left=left,
    )


def _tokens_of(taken: Iterable[TakenOff]) -> int:
    return sum(it.token_count or 0 for it in taken)


def _to_credit(
    invoice: Invoice, line: _Line, *, amount: Decimal, token_count: int | None
) -> CreditLine:
    assert invoice.issue is not None
    return CreditLine(
        line=1,
        number=invoice.issue.number,
        number_line=line.line,
        text=line.text,
        token_count=token_count,
        amount=subtract(ZERO, amount),
        tax=line.tax,
    )


def _numbered(lines: Iterable[CreditLine]) -> Iterable[CreditLine]:
    return (replace(it, line=place) for place, it in enumerate(lines, 1))


def _find_line(invoice: Invoice, line_number: int) -> _Line:
    found = next((it for it in _lines(invoice) if it.line == line_number), None)
    if found is None:
        assert invoice.issue is not None
        count = len(invoice.lines) + len(invoice.charges)
        raise NotFound(
            BillingReason.LINE_NOT_FOUND, f"{invoice.issue.number} has lines 1 to {count}."
        )
    return found


def _lines(invoice: Invoice) -> list[_Line]:
    tokens = [_of_tokens(it, tax=invoice.version.tax) for it in invoice.lines]
    return [*tokens, *map(_of_charge, invoice.charges)]


def _of_tokens(line: InvoiceLine, *, tax: Tax | None) -> _Line:
    names = [line.model, line.tier, class_name(line.token_class)]
    if line.mode is not Mode.ONLINE:
        names.insert(2, MODE_NAMES[line.mode])
    return _Line(
        line=line.line,
        text=", ".join(names),
        token_count=line.token_count,
        unit_price=line.price.unit_price,
        billed=line.billed,
        tax=tax,
    )


def _of_charge(charge: ChargeLine) -> _Line:
    return _Line(
        line=charge.line,
        text=charge.text,
        token_count=None,
        unit_price=charge.unit_price,
        billed=charge.billed,
        tax=charge.tax,
    )
