"""The invoice by exact fractions."""

from fractions import Fraction

from tests.faults import bills
from tests.faults.plant import BOOK

EVENT = {
    "account": "acme",
    "tier": "medium",
    "model": "m",
    "mode": "online",
    "end_time_ms": 1_790_000_000_000,
    "classes": {"input": 500_000, "output": 0},
}
MONTH = bills.month_of(1_790_000_000_000)
KEY = bills.LineKey("m", "medium", "online", "input")
LINE = {
    "model": "m",
    "tier": "medium",
    "mode": "online",
    "token_class": "input",
    "quantity": 500_000,
    "exact": "1.585",
    "billed": "1.59",
}


def test_bill__rounds_half_up_once() -> None:
    """Half a million tokens at 3.17 per million cost 1.585, which is billed as 1.59."""
    lines = bills.bill([EVENT], prices=bills.read_prices(BOOK), month=MONTH)
    assert lines == {KEY: bills.Line(500_000, Fraction("1.585"), Fraction("1.59"))}


def test_bill__other_month() -> None:
    """What ended in another month is not billed."""
    assert not bills.bill([EVENT], prices=bills.read_prices(BOOK), month="2000-01")


def test_difference__none() -> None:
    """A preview that agrees has no difference."""
    expected = bills.bill([EVENT], prices=bills.read_prices(BOOK), month=MONTH)
    assert bills.find_difference(expected, {"lines": [LINE], "total": "1.59"}) is None


def test_difference__one_token() -> None:
    """A single token too many is named with its line."""
    expected = bills.bill([EVENT], prices=bills.read_prices(BOOK), month=MONTH)
    wrong = {"lines": [LINE | {"quantity": 500_001}], "total": "1.59"}
    difference = bills.find_difference(expected, wrong)
    assert difference is not None
    assert "m medium online input" in difference


def test_difference__total() -> None:
    """A total that is not the sum of its lines is a difference."""
    expected = bills.bill([EVENT], prices=bills.read_prices(BOOK), month=MONTH)
    assert bills.find_difference(expected, {"lines": [LINE], "total": "1.58"}) is not None
