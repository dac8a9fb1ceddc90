"""Contracts that are set to end in the past, on a real Postgres: nobody else is held up."""

from collections.abc import Iterator

import pytest

from billing.close_result import Outcome
from billing.periods import read_month
from tests.billing.test_closing import close, issued, ms, use
from tests.billing.town import Town, book_toml, contract_toml, town_on

OCTOBER, NOVEMBER = "2026-10", "2026-11"
END = "2026-11-01T00:00:00"
FEE = (
    '[[charges]]\nid = "fee"\ntext = "Support"\nquantity = "1"\nunit = "month"\nprice = "100"\n'
    'every = "month"\n'
)
# Small enough that no invoice is held as far above the last.
SMALL_FEE = FEE.replace('"100"', '"3"')


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in early December: acme and other with usage in October and November; book at 3."""
    with town_on(database_url, now_ms=ms("2026-12-10")) as town:
        for account in ("acme", "other"):
            town.add_account(account)
        town.import_book(book_toml())
        for account in ("acme", "other"):
            for at in ("2026-10-10", "2026-11-10"):
                use(town, account=account, at=at)
        yield town


@pytest.mark.parametrize("extra", ["", "zero = true\n", FEE])
def test_close__of_a_month_after_a_new_end(town: Town, extra: str) -> None:
    """A period behind its contract's new end is closed for nothing: no charge, nothing late."""
    town.set_contract(contract_toml("of-other", covers="other"))
    town.set_contract(contract_toml(extra=extra))
    close(town, OCTOBER)
    use(town, at="2026-10-12")
    town.set_contract(contract_toml(extra=extra, until=END))
    result = close(town, NOVEMBER)
    (nothing,) = [it.invoice for it in result.closed if it.outcome is Outcome.NO_USAGE]
    assert nothing is not None
    assert nothing.total == 0
    late = [it for it in result.closed if it.outcome is Outcome.LATE_AFTER_FINAL]
    assert [str(it.period.month) for it in late] == [OCTOBER]
    assert result.counts == {
        Outcome.NO_USAGE: 1,
        Outcome.ISSUED: 1,
        Outcome.LATE_AFTER_FINAL: 1,
    }
    assert town.ask("SELECT count(*) FROM invoices WHERE contract = 'acme-2026'") == [(1,)]
    assert town.ask("SELECT outcome FROM periods WHERE month = '2026-11-01' ORDER BY contract") == [
        ("no usage",),
        ("issued",),
    ]


def test_set_contract__to_end_before_a_month_that_was_billed(town: Town) -> None:
    """What a closed month has billed after a contract's new end is given back."""
    town.set_contract(contract_toml())
    for month in (OCTOBER, NOVEMBER):
        close(town, month)
    town.set_contract(contract_toml(until=END), correct=True)
    assert [total for _, total in issued(town)] == [3, 3, -3]


def test_close__of_a_month_that_the_next_version_begins_in(town: Town) -> None:
    """Of a month that was open when its contract was set to end before, nothing is billed twice."""
    town.set_contract(contract_toml(start="2026-09-01T00:00:00"))
    town.set_contract(contract_toml(start="2026-09-01T00:00:00", until="2026-10-20T00:00:00"))
    town.set_contract(contract_toml(start="2026-11-05T00:00:00", extra=SMALL_FEE))
    for at in ("2026-10-25", "2026-11-03"):
        use(town, at=at)
    assert _of_november(town) == [("open", "", True), ("open", "", False)]
    for month in ("2026-09", OCTOBER, NOVEMBER):
        close(town, month)
    assert _of_november(town) == [("closed", "no usage", True), ("closed", "issued", False)]
    assert [total for _, total in issued(town)] == [3, 6]
    use(town, at="2026-11-20")
    town.clock.now = ms("2027-01-05")
    close(town, "2026-12", early=True)
    assert [total for _, total in issued(town)] == [3, 6, 6]
    assert town.ask("SELECT quantity, billed FROM invoice_lines WHERE kind = 'adjustment'") == [
        (1_000_000, 3)
    ]


def test_close__of_a_month_that_was_opened_again(town: Town) -> None:
    """What a version used in a month that began in nobody's force is billed by the next one."""
    town.set_contract(contract_toml(start="2026-09-01T00:00:00"))
    town.set_contract(contract_toml(start="2026-09-01T00:00:00", until="2026-09-20T00:00:00"))
    for month in ("2026-09", OCTOBER):
        close(town, month)
    # Closed for nothing, October stays as it is, whatever begins within it.
    town.set_contract(contract_toml(start="2026-10-05T00:00:00"))
    reopen = town.billing.months.reopen
    reopen("acme-2026", read_month(OCTOBER), reason="looked at again", key_id="key_1")
    for month in (OCTOBER, NOVEMBER):
        close(town, month)
    assert [total for _, total in issued(town)] == [6]


def _of_november(town: Town) -> list[tuple[object, ...]]:
    """States and outcomes of acme's November, and which of its parts ends where the next begins."""
    return town.ask(
        "SELECT state, outcome, period_end = '2026-11-04T23:00Z' FROM periods"
        " WHERE month = '2026-11-01' AND contract = 'acme-2026' ORDER BY period_start"
    )
