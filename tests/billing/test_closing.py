"""Closing a month on a real Postgres: once, whole, in order, and never because of another."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy import event

from billing.close_result import CloseResult, Outcome
from billing.errors import BillingReason
from billing.periods import read_month
from meter.domain.errors import MeterError, NotFound, Refused, Unavailable
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on
from tests.meter.store.recording import wait_for_lock

OCTOBER = "2026-10"


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in early November: acme with a team and a contract, other without; book at 3."""
    with town_on(database_url, now_ms=ms("2026-11-05")) as town:
        town.add_account("acme")
        town.add_account("team", moves=((0, "acme"),))
        town.add_account("other")
        town.import_book(book_toml())
        town.set_contract(contract_toml())
        yield town


def use(town: Town, *, account: str = "acme", at: str = "2026-10-10", **classes: int) -> None:
    """Record and count one event of llama-4."""
    town.record(TownEvent(account=account, end_ms=ms(at), classes=classes or {"input": 1_000_000}))


def close(
    town: Town, month: str = OCTOBER, *, account: str | None = None, early: bool = False
) -> CloseResult:
    """Close a month."""
    return town.billing.closing.close_month(read_month(month), account_id=account, early=early)


def outcomes(result: CloseResult) -> dict[str, Outcome]:
    """Return what became of each contract."""
    return {it.period.version.contract: it.outcome for it in result.closed}


def issued(town: Town) -> list[tuple[object, ...]]:
    """Return numbers and totals of all invoices."""
    return town.ask("SELECT number, total FROM invoices ORDER BY series, number")


def test_close__issues_what_was_used(town: Town) -> None:
    """The contract's subtree is billed at the book's price, with a number, and the rows say so."""
    use(town, input=1_000_000, output=500_000)
    use(town, account="team", input=2_000_000)
    result = close(town)
    assert outcomes(result) == {"acme-2026": Outcome.ISSUED}
    assert issued(town) == [("NG-2026-000001", Decimal("10.50"))]
    lines = town.ask("SELECT token_class, quantity, billed FROM invoice_lines ORDER BY line")
    assert lines == [("input", 3_000_000, Decimal(9)), ("output", 500_000, Decimal("1.50"))]


def test_close__twice_is_a_no_op(town: Town) -> None:
    """A second close issues nothing and takes no cut; the first one's number is named."""
    use(town)
    first = close(town)
    second = close(town)
    assert first.cut_id is not None
    assert second.cut_id is None
    assert outcomes(second) == {"acme-2026": Outcome.ALREADY_ISSUED}
    assert second.closed[0].number == "NG-2026-000001"
    assert len(issued(town)) == 1


def test_close__dry_run_leaves_no_trace(town: Town) -> None:
    """A dry run says what would be issued, and neither cuts nor takes a number."""
    use(town)
    result = town.billing.closing.close_month(read_month(OCTOBER), account_id=None, dry_run=True)
    assert outcomes(result) == {"acme-2026": Outcome.DRAFTED}
    assert town.ask("SELECT count(*) FROM cuts") == [(0,)]
    assert town.ask("SELECT count(*) FROM invoice_numbers") == [(0,)]
    assert issued(town) == []


def test_close__the_future(town: Town) -> None:
    """A month that has not ended under any contract is refused."""
    use(town)
    for month in ("2026-11", "2027-01"):
        with pytest.raises(Refused) as error:
            close(town, month)
        assert error.value.reason is BillingReason.MONTH_NOT_ENDED


def test_close__ends_where_the_contract_is(town: Town) -> None:
    """A month ends in each contract's own zone: Berlin's is closed, Los Angeles' is not yet."""
    town.set_contract(
        contract_toml("west", covers="other", zone="America/Los_Angeles", series="LA")
    )
    use(town)
    use(town, account="other")
    town.clock.now = ms("2026-11-01T06:59")
    first = close(town, early=True)
    assert outcomes(first) == {"acme-2026": Outcome.ISSUED, "west": Outcome.NOT_ENDED}
    town.clock.now = ms("2026-11-01T07:00")
    second = close(town, early=True)
    assert outcomes(second) == {"acme-2026": Outcome.ALREADY_ISSUED, "west": Outcome.ISSUED}


def test_close__edges_of_the_month(town: Town) -> None:
    """The first moment of Berlin's October is October's, the first of its November is not."""
    for at in ("2026-09-30T21:59:59", "2026-10-31T23:00:00"):
        use(town, at=at, input=7)
    for at in ("2026-09-30T22:00:00", "2026-10-31T22:59:59"):
        use(town, at=at, input=1_000_000)
    (closed,) = close(town).closed
    assert closed.invoice is not None
    assert closed.invoice.total == 6


def test_close__unpriced_holds_one_and_not_the_others(town: Town) -> None:
    """A used key without a price holds its invoice, named; others go on; a price frees it."""
    town.import_book(book_toml('input = "3"', book="thin"))
    town.set_contract(contract_toml("thin", covers="other", book="thin", series="TH"))
    use(town)
    use(town, account="other", input=5_000_000, output=6)
    result = close(town)
    assert outcomes(result) == {"acme-2026": Outcome.ISSUED, "thin": Outcome.HELD_UNPRICED}
    held = next(it for it in result.closed if it.outcome is Outcome.HELD_UNPRICED)
    assert held.invoice is not None
    assert [(it.token_class.name, it.token_count) for it in held.invoice.unpriced] == [
        ("OUTPUT", 6)
    ]
    town.set_contract(contract_toml("thin", covers="other", book="list", series="TH"))
    assert outcomes(close(town))["thin"] is Outcome.ISSUED


def test_close__out_of_order(town: Town) -> None:
    """A month waits for an earlier one of its contract that has usage and no invoice."""
    town.set_contract(contract_toml(start="2026-09-01T00:00:00"))
    use(town, at="2026-09-10")
    use(town)
    result = close(town)
    assert outcomes(result) == {"acme-2026": Outcome.HELD_EARLIER}
    assert str(result.closed[0].earlier) == "2026-09"
    close(town, "2026-09")
    assert outcomes(close(town)) == {"acme-2026": Outcome.ISSUED}


def test_close__parts_of_a_month(town: Town) -> None:
    """Two versions share a month: both are closed, and one that is held does not hold the other."""
    town.import_book(book_toml('input = "3"', book="thin"))
    town.set_contract(contract_toml(book="thin"))
    town.set_contract(contract_toml(start="2026-10-15T00:00:00"))
    use(town, at="2026-10-10", output=1)
    use(town, at="2026-10-20")
    result = close(town)
    assert [it.outcome for it in result.closed] == [Outcome.HELD_UNPRICED, Outcome.ISSUED]


def test_close__nothing_used(town: Town) -> None:
    """Without usage there is no invoice and no number; the month is closed, and that once."""
    result = close(town)
    assert outcomes(result) == {"acme-2026": Outcome.NO_USAGE}
    assert issued(town) == []
    assert outcomes(close(town)) == {"acme-2026": Outcome.NO_USAGE}
    assert town.ask("SELECT count(*) FROM cuts") == [(1,)]
    assert town.ask("SELECT count(*) FROM invoice_numbers") == [(0,)]


def test_close__names_who_is_not_covered(town: Town) -> None:
    """Usage that no contract bills is named, so that nobody is forgotten."""
    use(town)
    use(town, account="other")
    assert close(town).uncovered == ("other",)


def test_close__of_one_account(town: Town) -> None:
    """Only the contract that bills the account is closed; an account without one is refused."""
    town.set_contract(contract_toml("aside", covers="other", series="AS"))
    use(town)
    use(town, account="other")
    assert outcomes(close(town, account="team")) == {"acme-2026": Outcome.ISSUED}
    town.add_account("stray")
    with pytest.raises(NotFound) as error:
        close(town, account="stray")
    assert error.value.reason is BillingReason.ACCOUNT_NOT_COVERED


def test_close__waits_for_counting(town: Town) -> None:
    """What is recorded and not counted is waited for, and never left out in silence."""
    use(town)
    event = TownEvent(account="acme", end_ms=ms("2026-10-11"), classes={"input": 1_000_000})
    town.record(event, count=False)

    def pause(_: float) -> None:
        town.clock.now += 1_000

    closing = replace(town.billing.closing, pause=pause)
    with pytest.raises(Unavailable):
        closing.close_month(read_month(OCTOBER), account_id=None, dry_run=False)
    assert issued(town) == []
    town.count()
    close(town)
    assert issued(town) == [("NG-2026-000001", Decimal(6))]


def test_close__late_usage_is_not_in_a_cut_that_was_taken(town: Town) -> None:
    """What is counted after the close changes no issued invoice, and carries a later cut."""
    use(town)
    result = close(town)
    use(town)
    assert result.cut_id is not None
    (line,) = town.ask("SELECT quantity FROM invoice_lines")
    assert line == (1_000_000,)
    (row,) = town.ask(f"SELECT sum(input)::bigint FROM usage WHERE cut_id <= {result.cut_id}")
    assert row == (1_000_000,)


def test_close__two_jobs_at_once(town: Town) -> None:
    """Of closes that run side by side one issues each invoice; numbers have no gaps."""
    for name in ("a", "b", "c"):
        town.add_account(name)
        town.set_contract(contract_toml(f"of-{name}", covers=name))
        use(town, account=name)
    use(town)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: close(town), range(4)))
    done = [it.outcome for result in results for it in result.closed]
    assert done.count(Outcome.ISSUED) == 4
    assert set(done) == {Outcome.ISSUED, Outcome.ALREADY_ISSUED}
    assert [number for number, _ in issued(town)] == [f"NG-2026-{it:06}" for it in (1, 2, 3, 4)]


_HALF_DONE = """
SELECT count(*) FROM issued_invoices i
WHERE line_count <> (SELECT count(*) FROM issued_lines l WHERE l.number = i.number)
"""


def test_close__waits_for_a_change_under_way(town: Town) -> None:
    """Terms that are being changed are waited for: no invoice slips in beside the change."""
    use(town)
    with psycopg.connect(town.database_url) as change, ThreadPoolExecutor(1) as pool:
        change.execute("UPDATE terms SET version = version + 1")
        closing = pool.submit(close, town)
        wait_for_lock(town.database_url)
        assert issued(town) == []
        change.commit()
        assert outcomes(closing.result()) == {"acme-2026": Outcome.ISSUED}


class _Stop(Exception):
    """Stands for a process that is killed."""


def _statements(town: Town, *, stop_at: int | None) -> int:
    """Close October, stopped before the n-th statement or commit; return how many there were."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == stop_at:
            raise _Stop

    moments = ("before_cursor_execute", "commit")
    for engine, moment in itertools.product(town.engines, moments):
        event.listen(engine, moment, count)
    try:
        close(town)
    except _Stop:
        pass
    finally:
        for engine, moment in itertools.product(town.engines, moments):
            event.remove(engine, moment, count)
    return seen


def test_close__killed_at_every_statement(town: Town) -> None:
    """Stopped before any of its statements, a close leaves nothing half done, and goes on later."""
    for name in ("a", "b"):
        town.add_account(name)
        town.set_contract(contract_toml(f"of-{name}", covers=name))
    for name in ("acme", "a", "b"):
        use(town, account=name)
    for stop_at in itertools.count(1):
        seen = _statements(town, stop_at=stop_at)
        numbers = [number for number, _ in issued(town)]
        assert numbers == [f"NG-2026-{it:06}" for it in range(1, len(numbers) + 1)]
        assert town.ask(_HALF_DONE) == [(0,)]
        if seen < stop_at:
            break
    assert [amount for _, amount in issued(town)] == [Decimal(3)] * 3


@pytest.mark.parametrize("role", ["tokenworks_billing", "tokenworks_reader"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE issued_invoices SET total = 0",
        "DELETE FROM issued_invoices",
        "UPDATE issued_lines SET billed = 0",
        "DELETE FROM issued_lines",
        "UPDATE price_books SET toml = ''",
        "DELETE FROM contracts",
    ],
)
def test_issued__never_changes(town: Town, role: str, statement: str) -> None:
    """No role of the product can change or delete what was issued, or the terms it is made of."""
    use(town)
    close(town)
    with psycopg.connect(town.database_url) as connection:
        connection.execute(f"SET ROLE {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_preview__is_what_the_close_issues(town: Town) -> None:
    """The preview of an ended month and its invoice are the same lines and total."""
    use(town, input=333_333, output=1)
    (preview,) = town.billing.closing.preview("team", read_month(OCTOBER))
    (closed,) = close(town).closed
    assert closed.invoice is not None
    assert preview.lines == closed.invoice.lines
    assert preview.total == closed.invoice.total
    assert preview.issue is None


def test_preview__of_this_month(town: Town) -> None:
    """Without a month it is the one that it is now where the contract is."""
    use(town, at="2026-11-02")
    (preview,) = town.billing.closing.preview("acme", None)
    assert str(preview.month) == "2026-11"
    assert preview.total == 3


def test_explain__down_to_the_journal(town: Town) -> None:
    """A line's intervals and segments each add up to its tokens, and name where they are."""
    use(town, at="2026-10-10T10:00", input=500_000, output=100_000)
    use(town, at="2026-10-10T10:20", input=700_000)
    use(town, at="2026-11-10", input=100)
    use(town, account="other", input=100)
    close(town)
    use(town, at="2026-10-10T10:20", input=9)
    found = town.billing.explaining.explain_line("NG-2026-000001", 1)
    assert found.is_closed
    assert [it.token_count for it in found.intervals] == [500_000, 700_000]
    assert [(it.position, it.token_count) for it in found.segments] == [
        *((1, 500_000), (2, 700_000))
    ]


def test_explain__what_is_not_there(town: Town) -> None:
    """An invoice or a line that does not exist is said to be unknown."""
    use(town)
    close(town)
    explain = town.billing.explaining.explain_line
    errors: list[MeterError] = []
    for number, line in (("NG-2026-000009", 1), ("NG-2026-000001", 2)):
        with pytest.raises(NotFound) as error:
            explain(number, line)
        errors.append(error.value)
    assert [it.reason for it in errors] == [
        BillingReason.INVOICE_NOT_FOUND,
        BillingReason.LINE_NOT_FOUND,
    ]
