"""The life of a month on a real Postgres: collected, waited for, held, carried, opened again."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest

from billing.close_result import Closed, CloseResult, Outcome
from billing.closing import CloseOrder
from billing.collecting import Stage
from billing.errors import BillingReason
from billing.months import PeriodsWanted
from billing.period_closing import PeriodClosing
from billing.periods import read_month
from meter.domain.errors import Refused
from meter.reporters import Reporter
from tests.billing.test_closing import issued, ms, outcomes, use
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on

OCTOBER, NOVEMBER, DECEMBER = "2026-10", "2026-11", "2026-12"
HOUR_MS = 3_600_000
END_MS = ms("2026-10-31T23:00")


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in early December: acme with a contract from October, other without; book at 3."""
    with town_on(database_url, now_ms=ms("2026-12-10")) as town:
        for account in ("acme", "other"):
            town.add_account(account)
        town.import_book(book_toml())
        yield town


def close(town: Town, month: str | None = OCTOBER, *, early: bool = False) -> CloseResult:
    """Close a month, or all that is due."""
    wanted = None if month is None else read_month(month)
    return town.billing.closing.close(CloseOrder(month=wanted, early=early))


def only(result: CloseResult) -> Closed:
    """Return the one period of a close."""
    (closed,) = result.closed
    return closed


class Waiting:
    """Reporters of whom some are waited for."""

    def __init__(self, *names: str) -> None:
        self.reporters = [Reporter("acme", name) for name in names]

    def waited_for(
        self, account_ids: object, *, start_ms: int, end_ms: int
    ) -> dict[str, list[Reporter]]:
        """Return them for acme."""
        del account_ids, start_ms, end_ms
        return {"acme": self.reporters} if self.reporters else {}


def wait_for(closer: PeriodClosing, *names: str) -> None:
    """Have a close wait for producers of acme."""
    closer.reporters = Waiting(*names)


def test_collect__from_the_end_to_the_third_day(town: Town) -> None:
    """For 72 hours after its end usage is collected; then the month is due."""
    town.clock.now = END_MS + 72 * HOUR_MS - 1
    town.set_contract(contract_toml())
    use(town)
    waits = only(close(town))
    assert (waits.outcome, waits.due_ms) == (Outcome.COLLECTING, END_MS + 120 * HOUR_MS)
    assert town.ask("SELECT count(*) FROM cuts") == [(0,)]
    town.clock.now += 1
    assert only(close(town)).outcome is Outcome.ISSUED


@pytest.mark.parametrize(("hours", "outcome"), [(0, Outcome.ISSUED), (120, Outcome.COLLECTING)])
def test_collect__as_the_contract_says(town: Town, hours: int, outcome: Outcome) -> None:
    """A contract may collect for none to 120 hours."""
    town.clock.now = END_MS + 100 * HOUR_MS
    town.set_contract(contract_toml(extra=f"[closing]\ncollect_hours = {hours}\n"))
    use(town)
    assert only(close(town)).outcome is outcome


def test_collect__waits_for_who_reported(town: Town) -> None:
    """After 72 hours it waits for who has reported and was not heard, by name, until day 5."""
    town.clock.now = END_MS + 120 * HOUR_MS - 1
    town.set_contract(contract_toml())
    use(town)
    wait_for(town.billing.closing.closer, "vllm-1", "vllm-2")
    waits = only(close(town))
    assert waits.outcome is Outcome.COLLECTING
    assert waits.waits_for == ("acme/vllm-1", "acme/vllm-2")
    wait_for(town.billing.closing.closer)
    assert only(close(town)).outcome is Outcome.ISSUED


def test_collect__day_five_closes_without_them(town: Town) -> None:
    """On the fifth day it is closed without them; row, answer and audit log say without whom."""
    town.clock.now = END_MS + 120 * HOUR_MS
    town.set_contract(contract_toml())
    use(town)
    wait_for(town.billing.closing.closer, "vllm-1")
    done = only(close(town))
    assert (done.outcome, done.exception) == (Outcome.ISSUED, "without acme/vllm-1")
    assert town.ask("SELECT exception FROM periods WHERE state = 'closed'") == [
        ("without acme/vllm-1",)
    ]
    (entry,) = town.ask(
        "SELECT detail->'exceptions'->>'acme-2026' FROM audit_log WHERE action = 'period.close'"
    )
    assert entry == ("without acme/vllm-1",)


def test_close__early(town: Town) -> None:
    """What has ended is closed early, and by whom is kept; what has not ended is not."""
    town.clock.now = END_MS
    town.set_contract(contract_toml())
    use(town)
    wait_for(town.billing.closing.closer, "vllm-1")
    done = only(close(town, early=True))
    assert done.outcome is Outcome.ISSUED
    assert done.exception == "early, by job; without acme/vllm-1"
    with pytest.raises(Refused):
        close(town, NOVEMBER, early=True)


def test_close__all_that_is_due(town: Town) -> None:
    """Every month that is due is closed, the earliest first; what has not ended stays open."""
    town.set_contract(contract_toml())
    use(town)
    use(town, at="2026-11-10")
    result = close(town, None)
    assert result.counts == {Outcome.ISSUED: 2}
    assert [str(it.period.month) for it in result.closed if it.invoice] == [OCTOBER, NOVEMBER]
    again = close(town, None)
    assert (again.cut_id, again.closed) == (None, ())


def test_close__carries_what_is_below_the_minimum(town: Town) -> None:
    """Less than the minimum is carried into the next invoice, which bears both months."""
    town.set_contract(contract_toml(extra='minimum = "5.00"\n'))
    use(town)
    assert only(close(town)).outcome is Outcome.CARRIED
    assert issued(town) == []
    use(town, at="2026-11-10")
    done = only(close(town, NOVEMBER))
    assert done.outcome is Outcome.ISSUED
    assert issued(town) == [("NG-2026-000001", Decimal(6))]
    assert done.invoice is not None
    assert [None if it.origin is None else str(it.origin.month) for it in done.invoice.lines] == [
        None,
        OCTOBER,
    ]
    assert only(close(town)).outcome is Outcome.CARRIED


def test_close__carries_nothing_past_the_end(town: Town) -> None:
    """The last period of a contract is billed, however little it comes to."""
    toml = contract_toml(extra='minimum = "5.00"\n', until="2026-11-01T00:00:00")
    town.set_contract(toml)
    use(town)
    assert only(close(town)).outcome is Outcome.ISSUED


@pytest.mark.parametrize("zero", [False, True])
def test_close__what_comes_to_nothing(town: Town, *, zero: bool) -> None:
    """What comes to nothing takes a number only where the contract asks for such documents."""
    town.import_book(book_toml('all = "0"', book="free"))
    extra = "zero = true\n" if zero else ""
    town.set_contract(contract_toml(book="free", extra=extra))
    use(town)
    done = only(close(town))
    assert done.outcome is (Outcome.ISSUED if zero else Outcome.ZERO)
    assert len(issued(town)) == zero
    (settled,) = town.ask("SELECT settled_cut_id FROM billing_periods WHERE state = 'closed'")
    assert settled == (1,)


def test_close__what_a_later_rounding_may_need_is_not_forgotten(town: Town) -> None:
    """What rounds to nothing is closed for nothing, and billed once more comes to a cent."""
    town.set_contract(contract_toml())
    use(town, input=1_000)
    assert only(close(town)).outcome is Outcome.ZERO
    use(town, input=1_000)
    use(town, at="2026-11-10")
    close(town, NOVEMBER)
    assert issued(town) == [("NG-2026-000001", Decimal("3.01"))]


def test_close__usage_after_the_final_invoice(town: Town) -> None:
    """What comes after a contract's final invoice is named by each close, and billed by none."""
    town.set_contract(contract_toml(until="2026-11-01T00:00:00"))
    use(town)
    close(town)
    assert close(town, None).closed == ()
    use(town)
    for _ in range(2):
        late = only(close(town, None))
        assert late.outcome is Outcome.LATE_AFTER_FINAL
        assert late.invoice is not None
        assert late.invoice.total == 3
    assert len(issued(town)) == 1


def test_close__late_usage_that_is_not_counted_yet(town: Town) -> None:
    """With nothing to close, what was recorded a moment ago is waited for all the same."""
    town.set_contract(contract_toml(until="2026-11-01T00:00:00"))
    use(town)
    close(town)
    town.record(
        TownEvent(account="acme", end_ms=ms("2026-10-10"), classes={"input": 1_000_000}),
        count=False,
    )
    closing = replace(town.billing.closing, pause=lambda _: town.count())
    late = only(closing.close(CloseOrder(month=None)))
    assert late.outcome is Outcome.LATE_AFTER_FINAL


def test_reopen__what_has_no_document(town: Town) -> None:
    """A month that was closed for nothing is opened again, logged, and closed as any other."""
    town.set_contract(contract_toml())
    assert only(close(town)).outcome is Outcome.NO_USAGE
    reopen = town.billing.months.reopen
    for _ in range(2):
        (told,) = reopen("acme-2026", read_month(OCTOBER), reason="late", key_id="key_1")
        assert told.stage is Stage.DUE
    assert town.ask(
        "SELECT key_id, subject, detail->>'reason' FROM audit_log WHERE action = 'period.reopen'"
    ) == [("key_1", "acme-2026", "late")]
    use(town)
    assert only(close(town)).outcome is Outcome.ISSUED


def test_reopen__an_issued_month(town: Town) -> None:
    """What was billed is not opened again: the document is named."""
    town.set_contract(contract_toml())
    use(town)
    close(town)
    with pytest.raises(Refused, match="NG-2026-000001") as error:
        town.billing.months.reopen("acme-2026", read_month(OCTOBER), reason="r", key_id="k")
    assert error.value.reason is BillingReason.PERIOD_ISSUED
    assert only(close(town)).outcome is Outcome.ALREADY_ISSUED


def test_periods__where_each_stands(town: Town) -> None:
    """Periods are listed by contract and time, in pages, with their documents and states."""
    town.set_contract(contract_toml())
    town.set_contract(contract_toml("west", covers="other", series="W"))
    use(town)
    close(town)
    months = town.billing.months
    found = []
    page = months.list_periods(PeriodsWanted(), after=None, limit=4)
    assert page.more
    found = [(it.stored.contract, str(it.stored.month), it.stage, it.number) for it in page.periods]
    assert found == [
        ("acme-2026", OCTOBER, Stage.CLOSED, "NG-2026-000001"),
        ("acme-2026", NOVEMBER, Stage.DUE, ""),
        ("acme-2026", DECEMBER, Stage.OPEN, ""),
        ("west", OCTOBER, Stage.CLOSED, ""),
    ]
    assert months.counts(PeriodsWanted()) == {
        Stage.CLOSED: 2,
        Stage.DUE: 2,
        Stage.OPEN: 2,
    }
    due = months.list_periods(PeriodsWanted(contract="west", stage=Stage.DUE), after=None, limit=4)
    assert [str(it.stored.month) for it in due.periods] == [NOVEMBER]


def test_close__of_a_customer_that_changes_its_zone(town: Town) -> None:
    """From Berlin to Los Angeles, each hour is billed once, by three periods of two months."""
    town.clock.now = ms("2026-10-20")
    town.set_contract(contract_toml())
    town.set_contract(contract_toml(start="2026-10-31T16:00:00", zone="America/Los_Angeles"))
    town.clock.now = ms("2026-12-10")
    for at in ("2026-10-31T22:59", "2026-10-31T23:00", "2026-11-01T06:59", "2026-11-01T07:00"):
        use(town, at=at)
    result = close(town)
    assert outcomes(result) == {"acme-2026": Outcome.ISSUED}
    assert only(close(town, NOVEMBER)).outcome is Outcome.ISSUED
    assert [total for _, total in issued(town)] == [3, 6, 3]


def test_close__progress(town: Town) -> None:
    """Whoever waits is told how many periods are looked after."""
    town.set_contract(contract_toml())
    use(town)
    told: list[int] = []
    town.billing.closing.close(CloseOrder(month=read_month(OCTOBER)), on_progress=told.append)
    assert told == [1]


def test_close__terms_that_move_all_the_time(town: Town) -> None:
    """Terms that changed since they were read are read again."""
    town.set_contract(contract_toml())
    use(town)
    closing = town.billing.closing
    look = PeriodClosing.look
    looks = 0

    class Moving(PeriodClosing):
        def look(self) -> object:  # type: ignore[override]
            nonlocal looks
            found = look(self)
            looks += 1
            if looks in (1, 4):
                town.import_book(book_toml(book=f"more-{looks}"))
            return found

    closer = closing.closer
    moving = Moving(
        **{name: getattr(closer, name) for name in PeriodClosing.__slots__ if name[0] != "_"}
    )
    result = replace(closing, closer=moving).close(CloseOrder(month=read_month(OCTOBER)))
    assert only(result).outcome is Outcome.ISSUED


def test_lay_out__months_between_invoices_of_before_there_were_periods(town: Town) -> None:
    """A month that an older version closed without an invoice is open: what is late is billed."""
    town.set_contract(contract_toml())
    use(town)
    use(town, at="2026-12-05")
    for month in (OCTOBER, NOVEMBER):
        close(town, month)
    town.clock.now = ms("2027-01-10")
    close(town, DECEMBER)
    # As a migration leaves it: with what documents were issued for, and no edition of the zones.
    town.ask("DELETE FROM billing_periods WHERE outcome <> 'issued' RETURNING 1")
    town.ask("UPDATE billing_periods SET tzdata = '' RETURNING 1")
    use(town, at="2026-11-20")
    assert [(str(it.period.month), it.outcome) for it in close(town, None).closed] == [
        (NOVEMBER, Outcome.ISSUED)
    ]
    months = town.ask("SELECT to_char(month, 'MM'), state FROM periods ORDER BY month")
    assert months == [("10", "closed"), ("11", "closed"), ("12", "closed"), ("01", "open")]
