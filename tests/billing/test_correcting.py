"""Closed months on a real Postgres: late usage, voids and write-offs, and what each comes to."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import pytest

from billing.app import make_auditing
from billing.close_result import Outcome
from billing.crediting import Wanted
from billing.errors import BillingReason
from billing.invoicing import DocumentKind, Invoice
from billing.periods import Month
from meter.domain.errors import NotFound, Refused
from meter.store.totals import UsageTotals
from tests.billing.issued_town import doing, statements
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on
from tests.postgres import Cluster

OCTOBER: Final = Month(2026, 10)
NOVEMBER: Final = Month(2026, 11)
TAX: Final = '[tax]\ncategory = "S"\nrate = "19"\n'
_SERIES: Final = itertools.count(1)


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Client:
    """An account with a contract of its own; all costs 3 dollars a million, and 19 % tax."""

    town: Town
    name: str

    @property
    def first(self) -> str:
        """Return the number of its first invoice."""
        return f"{self.name.upper()}-2026-000001"

    def use(self, *, at: str = "2026-10-10", event_id: int = 0, **classes: int) -> None:
        """Record and count an event of llama-4."""
        self.town.record(
            TownEvent(
                account=self.name,
                end_ms=ms(at),
                classes=classes or {"input": 1_000_000},
                event_id=event_id,
            )
        )

    def close(self, month: Month = OCTOBER) -> Outcome:
        """Close a month, whenever it is."""
        result = self.town.billing.closing.close_month(month, account_id=self.name, early=True)
        (closed,) = result.closed
        return closed.outcome

    def correct(
        self, *, write_off: bool = False, dry_run: bool = False, month: Month = OCTOBER
    ) -> Sequence[Invoice]:
        """Correct a closed month."""
        return self.town.billing.correcting.correct(
            self.name,
            month,
            reason="it came late",
            key_id="key_1",
            write_off=write_off,
            dry_run=dry_run,
        )

    def void(self, number: str = "") -> None:
        """Take an invoice back."""
        self.town.billing.credit_notes.void(
            number or self.first, reason="wrong", doing=doing(self.town)
        )

    def documents(self) -> list[tuple[object, ...]]:
        """Return number, kind and sum without tax of all documents, as they were issued."""
        return self.town.ask(
            "SELECT number, kind, net FROM invoices"
            f" WHERE contract = '{self.name}' ORDER BY series, number"
        )

    def net(self) -> Decimal:
        """Return what all documents come to, without tax."""
        ((net,),) = self.town.ask(f"SELECT sum(net) FROM invoices WHERE contract = '{self.name}'")
        assert isinstance(net, Decimal)
        return net


@pytest.fixture(scope="module")
def town(cluster: Cluster) -> Iterator[Town]:
    """A town in December that the tests share; each has a contract of its own."""
    with cluster.database() as url, town_on(url, now_ms=ms("2026-12-10")) as town:
        town.import_book(book_toml())
        town.import_book(book_toml(book="dear"))
        yield town


def new_client(town: Town, *, until: str = "", book: str = "list") -> Client:
    """Return a client that nobody else knows."""
    client = Client(town, f"m{next(_SERIES)}")
    town.add_account(client.name)
    town.set_contract(
        contract_toml(
            client.name,
            covers=client.name,
            series=client.name.upper(),
            until=until,
            book=book,
            extra=TAX,
        )
    )
    return client


@pytest.fixture
def client(town: Town) -> Client:
    """A client that has used a million tokens in October, and was billed 3.00."""
    client = new_client(town)
    client.use()
    assert client.close() is Outcome.ISSUED
    return client


def test_correct__bills_what_came_late(client: Client) -> None:
    """Late usage becomes a supplementary invoice that names the line; again, there is none."""
    client.use(input=500_000)
    (made,) = client.correct()
    assert (made.kind, made.refers_to) == (DocumentKind.SUPPLEMENTARY_INVOICE, client.first)
    (line,) = made.lines
    assert line.origin is not None
    assert (line.token_count, line.billed) == (500_000, Decimal("1.50"))
    assert (line.origin.number, line.origin.line) == (client.first, 1)
    assert (made.net, made.total) == (Decimal("1.50"), Decimal("1.79"))
    assert client.correct() == ()
    assert client.close(NOVEMBER) is Outcome.NO_USAGE


def test_correct__credits_what_was_taken_back(client: Client) -> None:
    """A voided event becomes a credit note over its tokens at the price they were billed at."""
    client.use(input=2_000_000, event_id=7)
    client.correct()
    client.town.correct(7)
    (made,) = client.correct()
    assert (made.kind, made.net) == (DocumentKind.CREDIT_NOTE, Decimal("-6.00"))
    assert made.refers_to == client.first
    assert client.net() == Decimal("3.00")


def test_correct__dry_run_leaves_no_trace(client: Client) -> None:
    """A dry run says what would be issued, and issues, cuts and settles nothing."""
    client.use(input=500_000)
    before = client.town.ask("SELECT count(*) FROM cuts")
    (draft,) = client.correct(dry_run=True)
    assert (draft.issue, draft.net) == (None, Decimal("1.50"))
    assert client.town.ask("SELECT count(*) FROM cuts") == before
    (made,) = client.correct()
    assert made.net == Decimal("1.50")


def test_correct__what_rounds_to_nothing_waits(client: Client) -> None:
    """Tokens that come to less than half a cent are no document; with the next they are billed."""
    client.use(input=1_000)
    assert client.correct() == ()
    client.use(input=1_000)
    (made,) = client.correct()
    assert made.net == Decimal("0.01")


def test_write_off__bills_nothing_ever(client: Client) -> None:
    """What is written off comes to 0, stands in the books, and is billed by no later document."""
    client.use(input=500_000)
    (made,) = client.correct(write_off=True)
    assert (made.kind, made.total, made.refers_to) == (
        DocumentKind.WRITE_OFF,
        Decimal("0.00"),
        client.first,
    )
    assert [it.billed for it in made.lines] == [Decimal("1.50")]
    assert [it.amount for it in made.credits] == [Decimal("-1.50")]
    assert made.issue is not None
    assert made.issue.series == f"{client.name.upper()}-W"
    assert client.correct() == ()
    assert client.close(NOVEMBER) is Outcome.NO_USAGE
    rows = client.town.ask(
        "SELECT action, detail->>'written_off' FROM audit_log"
        f" WHERE subject = '{made.issue.number}' AND action <> 'invoice.issue'"
    )
    assert rows == [("invoice.write_off", "1.50")]


def test_correct__a_month_that_is_not_closed(town: Town) -> None:
    """An open month is billed by its close; a month without a period is not there."""
    client = new_client(town)
    client.use()
    with pytest.raises(Refused) as error:
        client.correct()
    assert error.value.reason is BillingReason.PERIOD_OPEN
    client.close()
    client.void()
    with pytest.raises(Refused):
        client.correct()
    with pytest.raises(NotFound) as unknown:
        client.correct(month=Month(2026, 5))
    assert unknown.value.reason is BillingReason.PERIOD_NOT_FOUND


def test_correct__what_has_no_price(town: Town) -> None:
    """Late usage without a price is refused, and billed once it has one."""
    client = new_client(town)
    client.use()
    client.close()
    late = TownEvent(
        account=client.name, end_ms=ms("2026-10-11"), classes={"input": 5}, model="unknown"
    )
    town.record(late)
    with pytest.raises(Refused) as error:
        client.correct()
    assert error.value.reason is BillingReason.USAGE_UNPRICED


def test_correct__after_the_final_invoice(town: Town) -> None:
    """What comes late once a contract has ended is billed on demand, and then nothing is left."""
    client = new_client(town, until="2026-11-01T00:00:00")
    client.use()
    client.close()
    client.use(input=500_000)
    (made,) = client.correct()
    assert (made.kind, made.net) == (DocumentKind.SUPPLEMENTARY_INVOICE, Decimal("1.50"))
    assert client.close() is Outcome.ALREADY_ISSUED


def test_void__is_issued_again_by_all_usage_now(client: Client) -> None:
    """A void invoice and its credit note are 0; the next close bills what there is, and says so."""
    client.use(input=500_000)
    client.void()
    assert client.close() is Outcome.ISSUED
    name = client.name.upper()
    assert client.documents() == [
        (f"{name}-2026-000001", "invoice", Decimal("3.00")),
        (f"{name}-2026-000002", "invoice", Decimal("4.50")),
        (f"{name}-C-2026-000001", "credit_note", Decimal("-3.00")),
    ]
    (links,) = client.town.ask(
        "SELECT a.voided_by, b.replaces, c.refers_to FROM invoices a, invoices b, invoices c"
        f" WHERE a.number = '{client.first}' AND b.number = '{name}-2026-000002'"
        f" AND c.number = '{name}-C-2026-000001'"
    )
    assert links == (f"{name}-C-2026-000001", client.first, client.first)


def test_void__of_the_replacement(client: Client) -> None:
    """What stands for a void invoice can be void too, and so on: one chain, one sum."""
    for serial in (1, 2):
        client.void(f"{client.name.upper()}-2026-{serial:06}")
        assert client.close() is Outcome.ISSUED
    assert client.net() == Decimal("3.00")
    rows = client.town.ask(
        "SELECT replaces FROM invoices"
        f" WHERE contract = '{client.name}' AND kind = 'invoice' ORDER BY number"
    )
    assert [it for (it,) in rows] == [
        None,
        client.first,
        f"{client.name.upper()}-2026-000002",
    ]


def test_void__with_a_later_invoice(client: Client) -> None:
    """Adjustments that a later invoice bore are still billed there: all comes to what was used."""
    client.use(input=500_000)
    client.use(at="2026-11-10")
    client.close(NOVEMBER)
    client.void()
    client.close()
    assert client.net() == Decimal("7.50")
    client.void(f"{client.name.upper()}-2026-000002")
    client.close(NOVEMBER)
    assert client.net() == Decimal("7.50")


def test_credit__is_not_clawed_back_by_late_usage(client: Client) -> None:
    """A credit is a concession: late usage is billed as if there were none."""
    client.town.billing.credit_notes.credit(
        client.first,
        line=1,
        wanted=Wanted(amount=Decimal("1.00")),
        reason="slow",
        credit_id=client.name,
        doing=doing(client.town),
    )
    assert client.correct() == ()
    client.use(input=500_000)
    (made,) = client.correct()
    assert made.net == Decimal("1.50")


def test_correct__several_at_once(client: Client) -> None:
    """Corrections of one month at once bill the difference once, and a close beside them too."""
    client.use(input=500_000)
    client.use(at="2026-11-10")
    with ThreadPoolExecutor(4) as pool:
        correcting = [pool.submit(client.correct) for _ in range(3)]
        pool.submit(client.close, NOVEMBER).result()
        found = [made for it in correcting for made in it.result()]
    assert len(found) <= 1
    assert client.net() == Decimal("7.50")


def test_correct__killed_at_every_statement(client: Client) -> None:
    """Stopped before any statement, the difference is billed whole or not at all, and once."""
    client.use(input=500_000)
    for stop_at in itertools.count(1):
        seen = statements(client.town, client.correct, stop_at=stop_at)
        assert client.net() in {Decimal("3.00"), Decimal("4.50")}
        if seen < stop_at:
            break
    name = client.name.upper()
    assert [number for number, *_ in client.documents()] == [client.first, f"{name}-2026-000002"]


def test_terms__that_change_what_was_billed(town: Town) -> None:
    """Prices that are taken in although a month was billed by others issue the difference once."""
    client = new_client(town, book="dear")
    client.use()
    client.close()
    cheap = book_toml('all = "2"', book="dear", start="2026-10-02T00:00:00")
    taken = town.import_book(cheap, correct=True)
    (made,) = taken.corrections
    assert (made.kind, made.net) == (DocumentKind.CREDIT_NOTE, Decimal("-1.00"))
    assert made.refers_to == client.first
    assert sorted(it.token_count for it in made.lines) == [-1_000_000, 1_000_000]
    assert client.correct() == ()
    assert client.close(NOVEMBER) is Outcome.NO_USAGE


def test_void__of_what_was_credited_and_corrected(client: Client) -> None:
    """After credits, corrections, write-offs and voids all is billed once; the audit is clean."""
    town = client.town
    client.use(input=500_000)
    client.correct()
    client.use(input=200_000)
    client.correct(write_off=True)
    town.billing.credit_notes.credit(
        client.first,
        line=1,
        wanted=Wanted(token_count=100_000),
        reason="slow",
        credit_id=f"{client.name}-slow",
        doing=doing(town),
    )
    for serial in (1, 2):
        client.void(f"{client.name.upper()}-2026-{serial:06}")
    assert client.close() is Outcome.ISSUED
    assert client.net() == Decimal("4.50")
    assert client.correct() == ()
    auditing = make_auditing(town.host, usage=UsageTotals(town.engine))
    found = auditing.audit(start_ms=ms("2026-01-01"), end_ms=ms("2027-01-01"))
    assert (found.fault_count, found.faults) == (0, [])
