"""What a correction does to money: all of it before the close, none of it to what was issued."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.close_result import Outcome
from billing.invoicing import Invoice
from billing.periods import read_month
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on

OCTOBER = read_month("2026-10")
TABLES = ("invoices", "invoice_lines")


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in early November: acme with a contract, other without; prices by class and band."""
    with town_on(database_url, now_ms=ms("2026-11-05")) as town:
        town.add_account("acme")
        town.add_account("other")
        town.import_book(book_toml('input = "3.33"', 'output = "7.77"'))
        town.set_contract(contract_toml())
        yield town


def an_event(number: int, *, account: str = "acme", day: int = 10, **classes: int) -> TownEvent:
    """Return an event of October whose id is its number."""
    return TownEvent(
        account=account,
        end_ms=ms(f"2026-10-{day:02}T12:07"),
        classes=classes or {"input": 123_457, "output": 7_919 * number},
        event_id=number,
    )


def preview(town: Town) -> Invoice:
    """Return acme's invoice of October as it would be now, whenever that is."""
    (found,) = town.billing.closing.preview("acme", OCTOBER)
    return replace(found, counted_until_ms=0)


def test_preview__equals_that_without_the_event(town: Town) -> None:
    """A voided event is in no line and no cent; a replaced one is in those of its replacement."""
    town.record(an_event(1), an_event(2))
    without = preview(town)
    town.record(an_event(3), an_event(4, cache_read=5))
    assert preview(town) != without
    for number in (3, 4):
        town.correct(number)
    assert preview(town) == without
    town.correct(1, after=an_event(9, day=11))
    town.correct(2, after=an_event(8, account="other"))
    replaced = preview(town)
    assert [(it.token_class.name, it.token_count) for it in replaced.lines] == [
        ("INPUT", 123_457),
        ("OUTPUT", 7_919 * 9),
    ]


def test_close__of_a_void_event_without_a_price(town: Town) -> None:
    """What no price is known for holds the invoice until it is voided: then it was never used."""
    town.record(an_event(1, input=1_000_000), an_event(2, reasoning=5))
    result = town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=False)
    assert result.closed[0].outcome is Outcome.HELD_UNPRICED
    town.correct(2)
    result = town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=False)
    assert result.closed[0].outcome is Outcome.ISSUED
    assert town.ask("SELECT total FROM invoices") == [(Decimal("3.33"),)]


def test_close__of_nothing_but_void_events(town: Town) -> None:
    """Who has nothing but voided events has used nothing, and needs no contract."""
    town.record(an_event(1), an_event(2, account="other"))
    for number in (1, 2):
        town.correct(number)
    result = town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=False)
    assert [it.outcome for it in result.closed] == [Outcome.NO_USAGE]
    assert result.uncovered == ()


def test_issued__stays_as_it_is(town: Town) -> None:
    """A correction after the close changes no byte of the invoice, and its lines still add up."""
    town.record(an_event(1), an_event(2))
    town.correct(2, after=an_event(2, day=12, input=11, output=12))
    result = town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=False)
    (number,) = [it.number for it in result.closed]
    assert number is not None
    before = [town.ask(f"SELECT t::text FROM {table} t ORDER BY 1") for table in TABLES]
    town.correct(1)
    town.correct(2, after=an_event(2, day=13, input=1_000_000))
    after = [town.ask(f"SELECT t::text FROM {table} t ORDER BY 1") for table in TABLES]
    assert after == before
    again = town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=False)
    assert [it.outcome for it in again.closed] == [Outcome.ALREADY_ISSUED]
    cuts = town.ask("SELECT cut_id, sum(input)::int FROM usage GROUP BY 1 ORDER BY 1")
    assert cuts == [(1, 123_468), (2, 1_000_000 - 123_468)]


def test_explain__with_what_was_taken_back(town: Town) -> None:
    """A line is explained by its events' segments, and by those that take some of them back."""
    town.record(an_event(1), an_event(2), an_event(3, account="other"))
    town.correct(1)
    town.correct(3, after=an_event(3))
    town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=False)
    ((number,),) = town.ask("SELECT number FROM invoices")
    explanation = town.billing.explaining.explain_line(str(number), 2)
    assert explanation.is_closed
    assert [(it.position, it.event_count, it.token_count) for it in explanation.segments] == [
        (1, 2, 7_919 * 3),
        (2, 1, -7_919),
        (3, 1, 7_919 * 3),
    ]


def test_close__of_void_events_before_a_contract(town: Town) -> None:
    """What was voided needs no contract, though the account has usage under one later."""
    town.set_contract(
        contract_toml("later", covers="other", series="LT", start="2026-10-15T00:00:00")
    )
    town.record(an_event(1, account="other", day=10), an_event(2, account="other", day=20))
    assert town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=True).uncovered == (
        "other",
    )
    town.correct(1)
    result = town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=True)
    assert result.uncovered == ()


def test_moved__from_an_issued_month_is_on_both_bills(town: Town) -> None:
    """An invoiced event that is moved into the next month is billed and taken back there."""
    town.record(an_event(1), an_event(2))
    town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=False)
    issued = [town.ask(f"SELECT * FROM {table}") for table in TABLES]
    town.correct(2, after=replace(an_event(2), end_ms=ms("2026-11-02T12:00")))
    (october,) = town.billing.closing.preview("acme", OCTOBER)
    (november,) = town.billing.closing.preview("acme", read_month("2026-11"))
    both = [[it.token_count for it in each.lines] for each in (october, november)]
    assert both == [[123_457, 7_919], [123_457, 2 * 7_919, -123_457, -2 * 7_919]]
    assert [it.origin is not None for it in november.lines] == [False, False, True, True]
    assert november.net == 0
    result = town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=False)
    assert result.closed[0].outcome is Outcome.ALREADY_ISSUED
    assert [town.ask(f"SELECT * FROM {table}") for table in TABLES] == issued
