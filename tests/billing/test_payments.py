"""Payments on a real Postgres: each once, never above what is left, and only for what is owed."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from billing.crediting import Wanted
from billing.errors import BillingReason
from billing.issued import DocumentState, IssuedDocument
from meter.domain.errors import InvalidArgument, MeterError, NotFound, Refused
from tests.billing.issued_town import NOVEMBER_MS, Client, doing, new_client, statements
from tests.billing.town import Town, town_on
from tests.postgres import Cluster

RECEIVED = date(2026, 11, 20)


@pytest.fixture(scope="module")
def town(cluster: Cluster) -> Iterator[Town]:
    """A town in November that the tests share; each has a contract of its own."""
    with cluster.database() as url, town_on(url, now_ms=NOVEMBER_MS) as town:
        town.add_account("acme")
        yield town


@pytest.fixture
def client(town: Town) -> Client:
    """A contract with an invoice of 7.02."""
    return new_client(town)


def pay(client: Client, amount: str, **other: Any) -> tuple[IssuedDocument, bool]:  # noqa: ANN401
    """Record a payment, of the twentieth and in dollars unless told."""
    asked: dict[str, Any] = {"payment_id": "p-1", "currency": "USD", "note": ""}
    asked |= {"receive_date": RECEIVED} | other
    asked["payment_id"] = f"{client.series}-{asked['payment_id']}"
    number = asked.pop("number", client.invoice)
    return client.town.billing.payments.record(
        number, amount=Decimal(amount), doing=doing(client.town), **asked
    )


def refusal(error: pytest.ExceptionInfo[MeterError]) -> str:
    """Return why something was refused."""
    return str(error.value.reason)


def test_payment__of_all(client: Client) -> None:
    """An invoice is paid once payments come to all of it, and not before."""
    document, is_new = pay(client, "5.00")
    assert (document.standing.state, is_new) == (DocumentState.ISSUED, True)
    document, _ = pay(client, "2.02", payment_id="p-2")
    assert (document.standing.state, document.standing.paid) == (
        DocumentState.PAID,
        Decimal("7.02"),
    )
    rows = client.town.ask(
        "SELECT amount, receive_date, key_id FROM invoice_payments"
        f" WHERE number = '{client.invoice}' ORDER BY payment_id"
    )
    assert rows == [
        (Decimal("5.00"), RECEIVED, "key_1"),
        (Decimal("2.02"), RECEIVED, "key_1"),
    ]


def test_payment__of_what_credits_have_left(client: Client) -> None:
    """What was credited need not be paid, and cannot be."""
    client.credit(Wanted())
    with pytest.raises(Refused) as error:
        pay(client, "2.27")
    assert refusal(error) == BillingReason.PAYMENT_TOO_HIGH
    document, _ = pay(client, "2.26")
    assert document.standing.state is DocumentState.PAID


def test_payment__twice(client: Client) -> None:
    """The same payment that is told twice is kept once; without a date it is the same too."""
    assert pay(client, "5.00")[1]
    for receive_date in (RECEIVED, None):
        document, is_new = pay(client, "5", receive_date=receive_date)
        assert (is_new, document.standing.paid) == (False, Decimal("5.00"))


def test_payment__without_a_date_is_of_today(client: Client) -> None:
    """Who names no date means today, where the contract is."""
    pay(client, "5.00", receive_date=None)
    rows = client.town.ask(
        f"SELECT receive_date FROM invoice_payments WHERE number = '{client.invoice}'"
    )
    assert rows == [(date(2026, 11, 4),)]


@pytest.mark.parametrize(
    "other", [{"amount": "5.01"}, {"receive_date": date(2026, 11, 21)}, {"note": "x"}]
)
def test_payment__another_of_its_name(client: Client, other: dict[str, Any]) -> None:
    """A name stands for one payment: another amount, date or note under it is a conflict."""
    pay(client, "5.00")
    with pytest.raises(Refused) as error:
        pay(client, **({"amount": "5.00"} | other))
    assert refusal(error) == BillingReason.PAYMENT_CONFLICT


@pytest.mark.parametrize("amount", ["7.03", "1000000"])
def test_payment__above_the_total(client: Client, amount: str) -> None:
    """More than the invoice is not taken; nothing of it is kept."""
    with pytest.raises(Refused) as error:
        pay(client, amount)
    assert refusal(error) == BillingReason.PAYMENT_TOO_HIGH
    assert client.ask("SELECT paid") == [(0,)]


@pytest.mark.parametrize(
    ("amount", "currency"), [("1.00", "EUR"), ("0", "USD"), ("-1", "USD"), ("0.001", "USD")]
)
def test_payment__of_no_money(client: Client, amount: str, currency: str) -> None:
    """Another currency, nothing, less than nothing, and parts of a cent are errors."""
    with pytest.raises(InvalidArgument):
        pay(client, amount, currency=currency)


def test_payment__for_what_nobody_owes(client: Client) -> None:
    """Credit notes and void invoices are not paid, and what is not there is said so."""
    _, note = client.void()
    found = []
    for number in (note.number, client.invoice, "NG-2026-000009"):
        with pytest.raises((Refused, NotFound)) as error:
            pay(client, "0.01", number=number)
        found.append(refusal(error))
    assert found == [
        BillingReason.KIND_REFUSED,
        BillingReason.INVOICE_VOID,
        BillingReason.INVOICE_NOT_FOUND,
    ]


def test_void__of_what_was_paid(client: Client) -> None:
    """An invoice that money came in for is not taken back; its lines can be credited."""
    pay(client, "1.00")
    with pytest.raises(Refused) as error:
        client.void()
    assert refusal(error) == BillingReason.INVOICE_PAID
    client.credit(Wanted())
    assert client.ask("SELECT state", "AND kind = 'invoice'") == [("issued",)]


def test_payment__many_at_once(client: Client) -> None:
    """Of payments that are told at once no more are kept than the invoice comes to."""

    def tell(place: int) -> str:
        try:
            pay(client, "3.00", payment_id=f"p-{place}")
        except Refused as error:
            return str(error.reason)
        return ""

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(tell, range(4)))
    assert found == ["", "", *[BillingReason.PAYMENT_TOO_HIGH] * 2]


def test_payment__of_one_name_for_two_contracts_at_once(town: Town) -> None:
    """A payment that is told for two invoices at once is kept for one, and the other refused."""
    clients = [new_client(town) for _ in range(4)]

    def tell(client: Client) -> str:
        try:
            town.billing.payments.record(
                client.invoice,
                payment_id="of one name",
                amount=Decimal(1),
                currency="USD",
                receive_date=RECEIVED,
                note="",
                doing=doing(town),
            )
        except Refused as error:
            return str(error.reason)
        return ""

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(tell, clients))
    assert found == ["", *[BillingReason.PAYMENT_CONFLICT] * 3]


def test_payment__killed_at_every_statement(client: Client) -> None:
    """Stopped before any statement, payment and audit entry are both there, or neither."""
    question = (
        f"SELECT (SELECT count(*) FROM payments WHERE number = '{client.invoice}'),"
        f" (SELECT count(*) FROM audit_log WHERE subject = '{client.invoice}'"
        " AND action = 'payment.record')"
    )
    for stop_at in itertools.count(1):
        seen = statements(client.town, partial(pay, client, "7.02"), stop_at=stop_at)
        (counts,) = client.town.ask(question)
        assert counts in {(0, 0), (1, 1)}
        if seen < stop_at:
            break
    assert client.ask("SELECT state, paid") == [("paid", Decimal("7.02"))]
