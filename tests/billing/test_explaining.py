"""A line of any kind, back to what it was made of: intervals, events, lines of before."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from billing.closing import CloseOrder
from billing.crediting import Wanted
from billing.documents.explanation import explanation_to_json, explanation_to_text
from billing.explanation import Explanation
from billing.invoicing import ChargeLine, CreditLine, InvoiceLine
from billing.issued import Doing
from billing.periods import Month, read_month
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on

OCTOBER, NOVEMBER = read_month("2026-10"), read_month("2026-11")
CHARGE = """
[[charges]]
id = "support"
text = "Support"
quantity = "1"
unit = "month"
price = "500"
every = "month"
"""


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def an_event(number: int, *, month: int = 10, minute: int = 7, count: int = 1_000_000) -> TownEvent:
    """Return an event of acme whose id is its number."""
    return TownEvent(
        account="acme",
        end_ms=ms(f"2026-{month:02}-10T12:{minute:02}"),
        classes={"input": count},
        event_id=number,
        request_id=f"request-{number}",
    )


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in early December whose October is closed: two events, and a charge."""
    with town_on(database_url, now_ms=ms("2026-11-08")) as town:
        town.add_account("acme")
        town.import_book(book_toml('input = "3"'))
        town.set_contract(contract_toml(extra=CHARGE))
        town.record(an_event(1), an_event(2, minute=22))
        close(town, OCTOBER)
        town.clock.now = ms("2026-12-08")
        yield town


def close(town: Town, month: Month) -> None:
    """Close a month at once."""
    town.billing.closing.close(CloseOrder(month=month, early=True))


def explain(town: Town, number: int, line: int) -> Explanation:
    """Explain a line, and see that both of its lists come to it."""
    found = town.billing.explaining.explain_line(f"NG-2026-{number:06}", line)
    assert found.is_closed
    # Both forms can be made of whatever there is.
    assert explanation_to_json(found).endswith(b"\n")
    return found


def events(town: Town, number: int, line: int) -> list[tuple[int, str, int]]:
    """Return position, request and tokens of the events behind a line."""
    found = town.billing.explaining.line_events(f"NG-2026-{number:06}", line)
    return [(it.position, it.request_id, it.token_count) for it in found]


def test_explain__of_usage(town: Town) -> None:
    """A line of usage is all that its period has, event by event."""
    found = explain(town, 1, 1)
    assert [it.token_count for it in found.intervals] == [1_000_000, 1_000_000]
    assert (found.before, found.after_cut_id) == ((), 0)
    assert events(town, 1, 1) == [(1, "request-1", 1_000_000), (1, "request-2", 1_000_000)]


def test_explain__of_an_adjustment(town: Town) -> None:
    """What came late is explained by what came late, not by all that its month has."""
    town.record(an_event(3, minute=22, count=7), an_event(4, month=11))
    town.correct(1)
    close(town, NOVEMBER)
    found = explain(town, 2, 2)
    assert isinstance(found.line, InvoiceLine)
    assert found.line.origin is not None
    assert [it.token_count for it in found.intervals] == [-1_000_000, 7]
    assert found.after_cut_id == 1
    assert events(town, 2, 2) == [(2, "request-3", 7), (3, "request-1", -1_000_000)]
    text = explanation_to_text(found).decode()
    assert "for 2026-10" in text
    assert "2 intervals: -999,993 tokens, as billed" in text


def test_explain__of_prices_that_moved(town: Town) -> None:
    """A line that takes a price back is all that was billed by it; the new price's is all usage."""
    town.record(an_event(4, month=11))
    town.import_book(book_toml('input = "2"', start="2026-10-05T00:00:00"), correct=True)
    close(town, NOVEMBER)
    rows = town.ask(
        "SELECT number, line FROM issued_lines WHERE kind = 'adjustment' ORDER BY quantity"
    )
    back, again = (town.billing.explaining.explain_line(str(it[0]), int(str(it[1]))) for it in rows)
    assert back.is_closed
    assert again.is_closed
    assert ([it.line for it in back.before], back.intervals) == ([1], ())
    assert "less 2,000,000 billed before" in explanation_to_text(back).decode()
    assert [it.token_count for it in again.intervals] == [1_000_000, 1_000_000]
    assert (again.before, again.after_cut_id) == ((), 0)


def test_explain__of_a_charge_and_a_credit(town: Town) -> None:
    """A charge is what the contract says; a credit is money off a line, and no usage."""
    charge = explain(town, 1, 2)
    assert isinstance(charge.line, ChargeLine)
    assert "1 month × 500 = 500 USD" in explanation_to_text(charge).decode()
    assert events(town, 1, 2) == []
    note, _ = town.billing.credit_notes.credit(
        "NG-2026-000001",
        line=1,
        wanted=Wanted(token_count=500_000),
        reason="a test",
        credit_id="credit-1",
        doing=Doing(key_id="key_1", now_ms=town.clock.now),
    )
    credit = town.billing.explaining.explain_line(note.number, 1)
    assert isinstance(credit.line, CreditLine)
    assert credit.is_closed
    text = explanation_to_text(credit).decode()
    assert "Taken off line 1 of NG-2026-000001" in text
    assert "for 500,000 tokens of it" in text
    assert explanation_to_json(credit)


def test_events__leave_out_other_bands(database_url: str) -> None:
    """Where long prompts have a price of their own, a line's events are those of its band alone."""
    with town_on(database_url, now_ms=ms("2026-11-08")) as town:
        town.add_account("acme")
        above = 'above = [{ prompt = 200_000, input = "9" }]'
        town.import_book(book_toml('input = "3"', above))
        town.set_contract(contract_toml())
        town.record(an_event(1, count=100), an_event(2, count=300_000))
        close(town, OCTOBER)
        assert events(town, 1, 1) == [(1, "request-1", 100)]
        assert events(town, 1, 2) == [(1, "request-2", 300_000)]
        explain(town, 1, 1)
        explain(town, 1, 2)
