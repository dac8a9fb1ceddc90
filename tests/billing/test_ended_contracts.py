"""Contracts that are set to end in the past, on a real Postgres: nobody else is held up."""

from collections.abc import Iterator

import pytest

from billing.close_result import Outcome
from tests.billing.test_closing import close, issued, ms, use
from tests.billing.town import Town, book_toml, contract_toml, town_on

OCTOBER, NOVEMBER = "2026-10", "2026-11"
END = "2026-11-01T00:00:00"
FEE = (
    '[[charges]]\nid = "fee"\ntext = "Support"\nquantity = "1"\nunit = "month"\nprice = "100"\n'
    'every = "month"\n'
)


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
