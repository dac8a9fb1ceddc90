"""Complaints 5, 17, 19, 23: credit notes a cent off, payments kept twice, late usage lost."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Final

import pytest

from billing.crediting import Wanted
from billing.errors import BillingReason
from billing.invoicing import DocumentKind, Invoice
from billing.issued import Doing, IssuedDocument
from billing.periods import read_month
from meter.domain.errors import InvalidArgument, Refused
from tests.billing.town import Town
from tests.peers.customers import NOW_MS, OCTOBER, Customer

DOING: Final = Doing(key_id="key_1", now_ms=NOW_MS)


def credit(customer: Customer, name: str, wanted: Wanted) -> IssuedDocument:
    """Credit part of the first line of the customer's first invoice."""
    note, _ = customer.town.billing.credit_notes.credit(
        customer.number(1),
        line=1,
        wanted=wanted,
        reason="a test",
        credit_id=f"{customer.name}-{name}",
        doing=DOING,
    )
    return note


def correct(customer: Customer, *, write_off: bool = False) -> tuple[Invoice, ...]:
    """Bill or give up what October comes to by now."""
    return customer.town.billing.correcting.correct(
        customer.name,
        read_month(OCTOBER),
        reason="a test",
        key_id=DOING.key_id,
        write_off=write_off,
    )


def test_lago_api_4373__parts_of_a_line_credit_it_to_the_cent(town: Town) -> None:
    """A line that is credited in three thirds is credited whole, not a cent less or more."""
    thirds = Customer(town, "thirds", prices=['all = "1"'])
    thirds.use(input=1_000_000)
    assert thirds.invoice().total == 1
    for place, count in enumerate((333_333, 333_333, 333_334)):
        credit(thirds, f"part-{place}", Wanted(token_count=count))
    rows = town.ask("SELECT net FROM invoices WHERE contract = 'thirds' ORDER BY series, number")
    assert rows == [(Decimal(1),), *[(-Decimal(it),) for it in ("0.33", "0.34", "0.33")]]
    with pytest.raises(Refused) as error:
        credit(thirds, "more", Wanted(amount=Decimal("0.01")))
    assert error.value.reason is BillingReason.CREDIT_TOO_HIGH


def test_lago_805__tokens_too_few_for_a_cent_are_left_to_be_credited(town: Town) -> None:
    """A credit that would be of nothing is refused, and its tokens are left to be credited."""
    small = Customer(town, "small")
    small.use(input=1_000_000)
    small.invoice()
    with pytest.raises(InvalidArgument):
        credit(small, "few", Wanted(token_count=1_000))
    assert credit(small, "all", Wanted()).invoice.total == -3


def test_lago_5020__credits_at_once_give_no_more_than_the_line(town: Town) -> None:
    """Of credits that race for one line, no more are given than it has."""
    raced = Customer(town, "raced")
    raced.use(input=1_000_000)
    raced.invoice()

    def give(place: int) -> str:
        try:
            credit(raced, str(place), Wanted(amount=Decimal(2)))
        except Refused as error:
            return str(error.reason)
        return ""

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(give, range(4)))
    assert found == ["", *[BillingReason.CREDIT_TOO_HIGH] * 3]


def test_lago_api_5708__payment_that_is_told_twice_is_kept_once(town: Town) -> None:
    """A payment has the bank's name, and is kept once whoever tells it how often."""
    paid = Customer(town, "paid")
    paid.use(input=1_000_000)
    paid.invoice()
    told = [
        town.billing.payments.record(
            paid.number(1),
            payment_id="bank-1",
            amount=Decimal(2),
            currency="USD",
            receive_date=None,
            note="",
            doing=DOING,
        )
        for _ in range(2)
    ]
    assert [is_new for _, is_new in told] == [True, False]
    assert told[1][0].standing.paid == 2


def test_killbill_876__late_usage_is_billed_or_given_up_by_choice(town: Town) -> None:
    """What comes after the close is billed at once, or given up, and never asked for again."""
    chosen = Customer(town, "chosen")
    chosen.use(input=1_000_000)
    chosen.invoice()
    chosen.use(input=2_000_000)
    (billed,) = correct(chosen)
    assert (billed.kind, billed.total) == (
        DocumentKind.SUPPLEMENTARY_INVOICE,
        Decimal(6),
    )
    chosen.use(input=500_000)
    (given_up,) = correct(chosen, write_off=True)
    assert (given_up.kind, given_up.total) == (DocumentKind.WRITE_OFF, Decimal(0))
    assert correct(chosen) == ()
