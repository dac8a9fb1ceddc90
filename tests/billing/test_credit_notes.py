"""Credit notes and voids on a real Postgres: once, whole, and never above what was billed."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from functools import partial

import pytest

from billing.crediting import Wanted
from billing.errors import BillingReason
from billing.invoicing import DocumentKind, Origin
from billing.issued import DocumentState
from billing.periods import Month
from meter.domain.errors import MeterError, NotFound, Refused
from tests.billing.invoices import START_MS
from tests.billing.issued_town import (
    NOVEMBER_MS,
    SOLD,
    Client,
    an_invoice,
    issue,
    new_client,
    statements,
)
from tests.billing.town import Town, town_on
from tests.postgres import Cluster


@pytest.fixture(scope="module")
def town(cluster: Cluster) -> Iterator[Town]:
    """A town in November that the tests share; each has a contract of its own."""
    with cluster.database() as url, town_on(url, now_ms=NOVEMBER_MS) as town:
        town.add_account("acme")
        yield town


@pytest.fixture
def client(town: Town) -> Client:
    """A contract with its invoice."""
    return new_client(town)


def refusal(error: pytest.ExceptionInfo[MeterError]) -> str:
    """Return why something was refused."""
    return str(error.value.reason)


def test_credit__is_a_document_of_its_own(client: Client) -> None:
    """A credit is a credit note in its own series, with the invoice's number, tax and reason."""
    note, is_new = client.credit(Wanted(token_count=250_000))
    assert (note.number, is_new) == (client.note(1), True)
    assert (note.invoice.kind, note.invoice.refers_to) == (DocumentKind.CREDIT_NOTE, client.invoice)
    assert (note.invoice.net, note.invoice.total) == (Decimal("-1.00"), Decimal("-1.19"))
    (row,) = client.ask("SELECT state, credited, paid, net, total", "AND kind = 'invoice'")
    assert row == ("issued", Decimal("1.19"), 0, Decimal("5.90"), Decimal("7.02"))
    (terms,) = client.town.ask(
        f"SELECT terms_version FROM issued_invoices WHERE number = '{note.number}'"
    )
    assert terms == (7,)


def test_credit__the_same_again(client: Client) -> None:
    """A credit of the same name is given once, whoever sends it how often."""
    first, _ = client.credit(Wanted(amount=Decimal("0.50")))
    again, is_new = client.credit(Wanted(amount=Decimal("0.5")))
    assert (again.number, is_new) == (first.number, False)
    assert len(client.numbers()) == 2


@pytest.mark.parametrize(
    ("wanted", "line", "reason"),
    [
        (Wanted(amount=Decimal("0.51")), 2, "slow"),
        (Wanted(token_count=1), 2, "slow"),
        (Wanted(), 2, "slow"),
        (Wanted(amount=Decimal("0.50")), 1, "slow"),
        (Wanted(amount=Decimal("0.50")), 2, "late"),
    ],
)
def test_credit__another_of_its_name(
    client: Client, wanted: Wanted, line: int, reason: str
) -> None:
    """A name stands for one credit: another line, part or reason under it is a conflict."""
    client.credit(Wanted(amount=Decimal("0.50")))
    with pytest.raises(Refused) as error:
        client.credit(wanted, line=line, reason=reason)
    assert refusal(error) == BillingReason.CREDIT_CONFLICT
    assert len(client.numbers()) == 2


def test_credit__above_what_credits_have_left(client: Client) -> None:
    """Credits of one line never come to more than the line, whatever they are given by."""
    client.credit(Wanted(amount=Decimal("1.00")), credit_id="a")
    client.credit(Wanted(token_count=500_000), credit_id="b")
    with pytest.raises(Refused) as error:
        client.credit(Wanted(amount=Decimal("1.01")), credit_id="c")
    assert refusal(error) == BillingReason.CREDIT_TOO_HIGH
    rest, _ = client.credit(Wanted(), credit_id="d")
    assert rest.invoice.net == Decimal("-1.00")
    assert client.numbers()[1:] == [client.note(it) for it in (1, 2, 3)]


def test_credit__what_cannot_be_credited(client: Client) -> None:
    """Credit notes and void invoices are not credited, and what is not there is said so."""
    note, _ = client.credit(Wanted(), line=1)
    client.void()
    wanted = Wanted(amount=Decimal("0.10"))
    found = []
    for number, line in ((note.number, 1), (client.invoice, 2), ("NG-2026-000009", 1)):
        with pytest.raises((Refused, NotFound)) as error:
            client.credit(wanted, number=number, line=line, credit_id="x")
        found.append(refusal(error))
    assert found == [
        BillingReason.KIND_REFUSED,
        BillingReason.INVOICE_VOID,
        BillingReason.INVOICE_NOT_FOUND,
    ]


def test_void__takes_back_all_that_is_left(client: Client) -> None:
    """A void invoice and its credit notes come to 0, and name each other."""
    client.credit(Wanted(amount=Decimal("1.90")), line=1)
    document, note = client.void()
    assert document.standing.state is DocumentState.VOID
    assert (document.standing.voided_by, note.invoice.refers_to) == (note.number, client.invoice)
    assert [it.amount for it in note.invoice.credits] == [Decimal("-4.00")]
    assert client.ask("SELECT sum(net)") == [(0,)]


def test_void__mirrors_the_taxes_of_the_invoice(client: Client) -> None:
    """Without credits before, the credit note is the invoice with the other sign, tax and all."""
    _, note = client.void()
    assert note.invoice.total == Decimal("-7.02")
    assert client.ask("SELECT sum(total), sum(tax), sum(net)") == [(0, 0, 0)]


def test_void__opens_the_period(client: Client) -> None:
    """The period is open again as if it had never been closed: the next close issues anew."""
    client.void()
    (row,) = client.town.ask(
        "SELECT state, outcome, close_time, cut_id, settled_cut_id, settled_terms"
        f" FROM billing_periods WHERE contract = '{client.series}'"
    )
    assert row == ("open", "", None, None, None, None)


def test_void__has_the_periods_looked_at_whose_adjustments_it_bore(client: Client) -> None:
    """What a void invoice billed for an earlier month is not billed any more: that is open too."""
    invoice = an_invoice(SOLD[:1], version=client.version)
    (line,) = invoice.lines
    origin = Origin(month=Month(2026, 10), start_ms=START_MS, number=client.invoice, line=1)
    later = replace(invoice.span, start_ms=invoice.span.end_ms, end_ms=NOVEMBER_MS + 3_600_000)
    number = issue(client.town, replace(invoice, span=later, lines=(replace(line, origin=origin),)))
    client.void(number)
    rows = client.town.ask(
        "SELECT state, settled_cut_id, settled_terms FROM billing_periods"
        f" WHERE contract = '{client.series}' ORDER BY period_start"
    )
    assert rows == [("closed", None, None), ("open", None, None)]


def test_void__again(client: Client) -> None:
    """Taking back what was taken back changes nothing and names the first one's credit note."""
    first, again = client.void(), client.void()
    assert again == first
    assert len(client.numbers()) == 2
    with pytest.raises(Refused) as error:
        client.void(first[1].number)
    assert refusal(error) == BillingReason.KIND_REFUSED


def test_void__of_what_was_credited_whole(client: Client) -> None:
    """An invoice of which nothing is left can be void too: its credit note is one of 0."""
    for line in (1, 2):
        client.credit(Wanted(), line=line, credit_id=f"c-{line}")
    _, note = client.void()
    assert not note.invoice.total
    assert not note.invoice.credits


def test_changes__are_in_the_audit_log(client: Client) -> None:
    """Who credited and who took back is written down, in the transaction that did it."""
    client.credit(Wanted(token_count=250_000))
    client.void()
    rows = client.town.ask(
        "SELECT action, subject, key_id, detail->>'credit_note' FROM audit_log"
        f" WHERE subject = '{client.invoice}' ORDER BY entry_id"
    )
    assert rows == [
        ("invoice.credit", client.invoice, "key_1", client.note(1)),
        ("invoice.void", client.invoice, "key_1", client.note(2)),
    ]


def test_credit__two_at_once(client: Client) -> None:
    """Of credits of one line that are given at once, no more are given than it has."""

    def give(place: int) -> str:
        try:
            client.credit(Wanted(amount=Decimal("1.50")), credit_id=f"c-{place}")
        except Refused as error:
            return str(error.reason)
        return ""

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(give, range(4)))
    assert found == ["", "", *[BillingReason.CREDIT_TOO_HIGH] * 2]
    assert client.numbers()[1:] == [client.note(1), client.note(2)]


def test_credit__one_name_at_once(client: Client) -> None:
    """The same credit that is sent several times at once is given once, and each is told so."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: client.credit(Wanted()), range(4)))
    assert {note.number for note, _ in found} == {client.note(1)}
    assert sum(is_new for _, is_new in found) == 1


def test_void__beside_a_credit(client: Client) -> None:
    """A credit and a void at once: whichever is first, all comes to 0 and nothing to less."""

    def give() -> str:
        try:
            client.credit(Wanted(amount=Decimal("1.50")))
        except Refused as error:
            return str(error.reason)
        return ""

    with ThreadPoolExecutor(2) as pool:
        giving = pool.submit(give)
        pool.submit(client.void).result()
        assert giving.result() in {"", BillingReason.INVOICE_VOID}
    assert client.ask("SELECT sum(net)") == [(0,)]


@pytest.mark.parametrize("is_void", [False, True])
def test_changes__killed_at_every_statement(client: Client, *, is_void: bool) -> None:
    """Stopped before any statement, all of it is there or nothing, and it goes on when repeated."""
    table = "invoice_voids" if is_void else "invoice_credits"
    question = (
        f"SELECT (SELECT count(*) FROM {table} WHERE number = '{client.invoice}'),"
        f" (SELECT count(*) FROM audit_log WHERE subject = '{client.invoice}')"
    )
    for stop_at in itertools.count(1):
        work = client.void if is_void else partial(client.credit, Wanted())
        seen = statements(client.town, work, stop_at=stop_at)
        count = len(client.numbers()) - 1
        assert client.town.ask(question) == [(count, count)]
        if seen < stop_at:
            break
    assert client.numbers() == [client.invoice, client.note(1)]
