"""Complaints 23 to 26: amounts that were rounded, and work that grows with what is billed."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from typing import Final

import psycopg
from sqlalchemy import event

from billing.documents.canonical import to_json
from tests.billing.town import Town, TownEvent
from tests.peers.customers import WAIT_SECONDS, Customer, ms, quantity

LINES: Final = 300


def test_lago_api_4642__total_is_the_sum_of_what_the_lines_say(town: Town) -> None:
    """Lines below a cent come to nothing or to a cent, never to less than nothing."""
    cents = Customer(town, "cents", prices=['input = "4999.999"', 'output = "5000"'])
    cents.use(input=1, output=1)
    issued = cents.invoice()
    assert [line.billed for line in issued.lines] == [Decimal("0.00"), Decimal("0.01")]
    assert issued.total == sum(line.billed for line in issued.lines)
    assert min(line.billed for line in issued.lines) >= 0


def test_lago_805__what_rounding_leaves_over_is_kept(town: Town) -> None:
    """Each line has its residue, so that nothing below a cent is forgotten."""
    residue = Customer(town, "residue", prices=['input = "0.1"', 'output = "0.3"'])
    residue.use(input=12_345, output=54_321)
    issued = residue.invoice()
    for line in issued.lines:
        assert line.exact == Decimal(line.token_count) * line.price.unit_price / 10**6
        assert line.exact == line.billed + line.residue
    assert issued.residue == sum(line.residue for line in issued.lines)
    assert issued.residue != 0


def test_lago_python_client_269__document_has_the_exact_amounts(town: Town) -> None:
    """A document writes amounts as digits in a string: as many as there are, and no float."""
    exact = Customer(town, "exact", prices=['input = "0.0123456789"'])
    exact.use(input=7)
    (line,) = json.loads(to_json(exact.invoice()), parse_float=_no_float)["lines"]
    assert (line["exact"], line["billed"]) == ("0.0000000864197523", "0.00")
    assert line["price"]["unit_price"] == "0.0123456789"


def _no_float(text: str) -> float:
    raise AssertionError(f"a float: {text}")


def test_flexprice_1727__price_of_any_digits_is_exact(town: Town) -> None:
    """Prices have as many decimals as they were written with, and products lose none of them."""
    price = "0.000000123456789012345678901"
    digits = Customer(town, "digits", prices=[f'input = "{price}"', 'output = "3"'])
    digits.use(input=987_654_321, output=1_000_000)
    line, _ = digits.invoice().lines
    assert Fraction(line.exact) == Fraction(price) * 987_654_321 / 10**6
    (row,) = town.ask(
        "SELECT exact, unit_price FROM invoice_lines WHERE book = 'digits' AND line = 1"
    )
    assert row == (line.exact, Decimal(price))


def test_psergio984_8__short_calls_are_rounded_once_and_together(town: Town) -> None:
    """A thousand calls of a token each cost what a call of a thousand tokens costs."""
    for name, events in (("short", [1] * 1_000), ("whole", [1_000])):
        customer = Customer(town, name, prices=['input = "15"'])
        town.record(*(customer.event(input=count) for count in events))
        assert customer.invoice().total == Decimal("0.02")


def test_openmeter_3737__invoice_has_as_many_lines_as_there_are_prices(town: Town) -> None:
    """No limit of somebody else's invoices cuts ours: 300 lines are kept, and read back."""
    names = [f"model-{number}" for number in range(LINES)]
    tables = [f'[models."{name}"]\nall = "1"' for name in names]
    wide = Customer(town, "wide", prices=['all = "1"', *tables])
    town.record(
        *(
            TownEvent(account="wide", end_ms=ms("2026-10-10"), model=name, classes={"input": 10**6})
            for name in names
        )
    )
    issued = wide.invoice()
    assert len(issued.lines) == issued.total == LINES
    assert town.billing.explaining.get_invoice(wide.number(1)) == issued
    assert town.ask("SELECT count(*) FROM invoice_lines WHERE book = 'wide'") == [(LINES,)]


def test_openmeter_4681__number_of_one_series_holds_up_no_other(town: Town) -> None:
    """A number is locked while its invoice is written: drafts and other series do not wait."""
    held, free = Customer(town, "held"), Customer(town, "free")
    for customer in (held, free):
        customer.use(input=1_000_000)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(town.database_url) as holder:
        holder.execute("INSERT INTO invoice_numbers VALUES ('HELD', 2026, 1)")
        assert held.preview().total == 3
        assert pool.submit(free.invoice).result(WAIT_SECONDS).total == 3
        holder.rollback()
    assert held.invoice().issue is not None


def test_lago_api_2967__statements_do_not_grow_with_lines(town: Town) -> None:
    """A preview asks the database as often for one price as for twenty."""
    few, many = Customer(town, "few"), Customer(town, "many")
    few.use(input=1)
    classes = ("input", "cache_read", "output", "reasoning")
    town.record(
        *(
            TownEvent(account="many", end_ms=ms("2026-10-10"), tier=tier, classes={name: 1})
            for tier in ("free", "medium", "high", "premium", "ultra")
            for name in classes
        )
    )
    few.preview()
    assert quantity(many.preview().lines) == 20
    assert statements(town, many.preview) == statements(town, few.preview) > 0


def statements(town: Town, act: Callable[[], object]) -> int:
    """Return how many statements an act sends."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1

    for engine in town.engines:
        event.listen(engine, "before_cursor_execute", count)
    try:
        act()
    finally:
        for engine in town.engines:
            event.remove(engine, "before_cursor_execute", count)
    return seen
