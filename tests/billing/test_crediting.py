"""What a credit note takes off an invoice: parts that add up to a line, and never more than it."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.crediting import TakenOff, Wanted, credit_line, credit_lines, credit_note
from billing.errors import BillingReason
from billing.invoicing import ChargeLine, CreditLine, DocumentKind, Invoice
from billing.money import Currency, add_up
from billing.tax import Tax
from meter.domain.errors import InvalidArgument, NotFound, Refused
from tests.billing.invoices import BHD, INPUT, JPY, OUTPUT, USD, VERSION, Sold, make_invoice

STANDARD: Final = Tax(category="S", rate=Decimal(19))
REDUCED: Final = Tax(category="S", rate=Decimal(7))


def an_invoice(
    token_count: int = 1_000_000, *, currency: Currency = USD, tax: Tax | None = None
) -> Invoice:
    """Return an invoice with a line of kimi's output at 4 a million."""
    version = replace(VERSION, currency=currency, tax=tax)
    return make_invoice([Sold("kimi-k2.6", "high", OUTPUT, token_count)], version=version)


def with_charge(invoice: Invoice, amount: str, *, tax: Tax | None) -> Invoice:
    """Return an invoice that bears a support fee as its second line."""
    charge = ChargeLine(
        line=2,
        charge_id="support",
        text="Support",
        quantity=Decimal(1),
        unit="month",
        unit_price=Decimal(amount),
        exact=Decimal(amount),
        billed=Decimal(amount),
        residue=Decimal(0),
        tax=tax,
    )
    return replace(invoice, charges=(charge,))


def taken_by(lines: Sequence[CreditLine]) -> list[TakenOff]:
    """Return what lines of credit notes have taken off."""
    return [
        TakenOff(line=it.number_line, token_count=it.token_count, amount=-it.amount) for it in lines
    ]


@pytest.mark.parametrize(
    ("wanted", "amount", "tokens"),
    [
        (Wanted(), "4.00", 1_000_000),
        (Wanted(token_count=1_000_000), "4.00", 1_000_000),
        (Wanted(token_count=250_000), "1.00", 250_000),
        (Wanted(token_count=1_250), "0.01", 1_250),
        (Wanted(amount=Decimal("0.01")), "0.01", None),
        (Wanted(amount=Decimal(4)), "4.00", None),
    ],
)
def test_credit__part_of_a_line(wanted: Wanted, amount: str, tokens: int | None) -> None:
    """Tokens are credited at the line's price, an amount as it is, and else all that is left."""
    line = credit_line(an_invoice(), 1, wanted=wanted, taken=[])
    assert (line.amount, line.token_count) == (-Decimal(amount), tokens)
    assert (line.number, line.number_line) == ("NG-2026-000042", 1)
    assert line.text == "kimi-k2.6, high, output"


@pytest.mark.parametrize(
    ("taken", "wanted"),
    [
        ([], Wanted(amount=Decimal("4.01"))),
        ([], Wanted(token_count=1_000_001)),
        ([("1.00", None)], Wanted(amount=Decimal("3.01"))),
        ([("1.00", None)], Wanted(token_count=750_001 + 1_249)),
        ([("1.00", 250_000)], Wanted(token_count=750_001)),
        ([("4.00", None)], Wanted()),
        ([("4.00", 1_000_000)], Wanted(token_count=1)),
    ],
)
def test_credit__more_than_is_left(taken: Sequence[tuple[str, int | None]], wanted: Wanted) -> None:
    """What goes beyond the line, or beyond what earlier credits have left of it, is refused."""
    before = [TakenOff(line=1, token_count=count, amount=Decimal(it)) for it, count in taken]
    with pytest.raises(Refused) as error:
        credit_line(an_invoice(), 1, wanted=wanted, taken=before)
    assert error.value.reason is BillingReason.CREDIT_TOO_HIGH


@pytest.mark.parametrize(
    ("currency", "wanted"),
    [
        (USD, Wanted(amount=Decimal("0.001"))),
        (USD, Wanted(amount=Decimal(0))),
        (USD, Wanted(amount=Decimal(-1))),
        (USD, Wanted(token_count=1_249)),
        (JPY, Wanted(amount=Decimal("0.5"))),
        (BHD, Wanted(amount=Decimal("0.0001"))),
    ],
)
def test_credit__what_nobody_can_pay(currency: Currency, wanted: Wanted) -> None:
    """An amount in parts of the smallest unit, or tokens that come to none, is an error."""
    with pytest.raises(InvalidArgument):
        credit_line(an_invoice(currency=currency), 1, wanted=wanted, taken=[])


def test_credit__of_a_charge() -> None:
    """A charge is credited by amount, with its own tax, and has no tokens to count."""
    invoice = with_charge(an_invoice(tax=STANDARD), "100.00", tax=REDUCED)
    line = credit_line(invoice, 2, wanted=Wanted(amount=Decimal(40)), taken=[])
    assert (line.amount, line.token_count, line.tax) == (Decimal(-40), None, REDUCED)
    assert line.text == "Support"
    with pytest.raises(InvalidArgument):
        credit_line(invoice, 2, wanted=Wanted(token_count=1), taken=[])


def test_credit__of_no_line() -> None:
    """A line that the invoice has not is said to be unknown."""
    with pytest.raises(NotFound) as error:
        credit_line(an_invoice(), 2, wanted=Wanted(), taken=[])
    assert error.value.reason is BillingReason.LINE_NOT_FOUND


@settings(max_examples=500)
@given(
    st.sampled_from([USD, JPY, BHD]),
    st.integers(1, 3_000_000),
    st.lists(st.integers(1, 1_000_000), min_size=1, max_size=12),
)
def test_credit__parts_come_to_the_line(
    currency: Currency, token_count: int, parts: Sequence[int]
) -> None:
    """However tokens are split into credits, all of them are the line, to the smallest unit."""
    invoice = an_invoice(token_count, currency=currency)
    lines: list[CreditLine] = []
    left = token_count
    for count in [*parts, token_count]:
        try:
            part = credit_line(
                invoice, 1, wanted=Wanted(token_count=min(count, left)), taken=taken_by(lines)
            )
        except (InvalidArgument, Refused):
            # Too few for a smallest unit, or none left: nothing was given for them.
            continue
        lines.append(part)
        left -= part.token_count or 0
    if left:
        # The last tokens come to nothing: the line has given all that it has.
        assert add_up(it.amount for it in lines) == -invoice.lines[0].billed
    assert add_up(it.amount for it in lines) == -invoice.total


def test_note__over_a_line() -> None:
    """A credit note is negative, names the invoice, and has the tax of what it credits."""
    invoice = an_invoice(tax=STANDARD)
    line = credit_line(invoice, 1, wanted=Wanted(amount=Decimal("1.50")), taken=[])
    note = credit_note(invoice, [line], reason="slow in October")
    assert (note.kind, note.refers_to) == (DocumentKind.CREDIT_NOTE, "NG-2026-000042")
    assert (note.net, note.total) == (Decimal("-1.50"), Decimal("-1.79"))
    (tax,) = note.taxes
    assert (tax.basis, tax.amount) == (Decimal("-1.50"), Decimal("-0.29"))
    assert (note.cut_id, note.reason) == (invoice.cut_id, "slow in October")


def test_note__over_all_is_the_invoice_with_the_other_sign() -> None:
    """Over a whole invoice a credit note has its taxes to the cent, of every category."""
    sold = [Sold("kimi-k2.6", "high", INPUT, 77_777), Sold("glm-5.1", "high", OUTPUT, 12_345)]
    version = replace(VERSION, tax=STANDARD)
    invoice = with_charge(make_invoice(sold, version=version), "9.99", tax=REDUCED)
    invoice = replace(invoice, charges=(replace(invoice.charges[0], line=3),))
    note = credit_note(invoice, credit_lines(invoice, taken=[]), reason="x")
    billed = [*(it.billed for it in invoice.lines), *(it.billed for it in invoice.charges)]
    assert [it.amount for it in note.credits] == [-it for it in billed]
    assert [it.line for it in note.credits] == [1, 2, 3]
    assert note.net == -add_up(billed)


def test_note__over_what_credits_have_left() -> None:
    """What was credited before is not given back again; a line that is gone is not there."""
    sold = [Sold("kimi-k2.6", "high", INPUT, 2_000_000), Sold("glm-5.1", "high", OUTPUT, 500_000)]
    invoice = make_invoice(sold)
    taken = [
        TakenOff(line=1, token_count=None, amount=invoice.lines[0].billed),
        TakenOff(line=2, token_count=100_000, amount=Decimal("0.44")),
    ]
    (line,) = credit_lines(invoice, taken=taken)
    assert (line.number_line, line.amount, line.token_count) == (2, Decimal("-1.76"), 400_000)


def test_note__makes_lines_below_zero_good() -> None:
    """Over a whole invoice an adjustment below 0 is made good too: all comes to 0."""
    invoice = an_invoice()
    (line,) = invoice.lines
    taken_back = replace(
        line, line=2, token_count=-250_000, billed=Decimal("-1.00"), exact=Decimal(-1)
    )
    invoice = replace(invoice, lines=(line, taken_back), total=Decimal("3.00"))
    lines = credit_lines(invoice, taken=[])
    assert [(it.amount, it.token_count) for it in lines] == [
        (Decimal(-4), 1_000_000),
        (Decimal(1), None),
    ]
    with pytest.raises(Refused):
        credit_line(invoice, 2, wanted=Wanted(), taken=[])
