"""The page of text: what is on it, how wide it is, and that its columns stand in line."""

import re
from itertools import takewhile

import pytest
from hypothesis import assume, given

from billing.documents.cells import width_of
from billing.documents.format import (
    PREVIEW,
    SANDBOX,
    group_count,
    group_money,
    group_price,
)
from billing.documents.text import WIDTH_MAX, WIDTH_MIN, to_text
from billing.invoicing import Invoice
from tests.billing.documents.gallery import SAMPLES
from tests.billing.documents.strategies import invoices

AMOUNT_WIDTH_MAX = 18
# Controls, separators of lines, and what turns the direction of writing.
PEN_MOVERS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@given(invoices())
def test_to_text__is_a_page(invoice: Invoice) -> None:
    """Whatever an invoice says, no row is wider than 100 cells or moves the pen."""
    rows = to_text(invoice).decode().split("\n")
    assert rows.pop() == ""
    assert max(map(width_of, rows)) <= WIDTH_MAX
    assert not [row for row in rows if PEN_MOVERS.search(row)]


@given(invoices())
def test_to_text__has_every_amount(invoice: Invoice) -> None:
    """Each line's amount and tokens are on the page, and the total."""
    amounts = [
        group_money(it, invoice.currency)
        for it in (invoice.total, *(line.billed for line in invoice.lines))
    ]
    assume(max(map(len, amounts)) <= AMOUNT_WIDTH_MAX)
    text = to_text(invoice).decode()
    words = text.split()
    assert all(amount in words for amount in amounts)
    assert all(group_count(line.token_count) in words for line in invoice.lines)


@pytest.mark.parametrize("name", SAMPLES)
def test_to_text__stands_in_line(name: str) -> None:
    """Rules, heads, lines, subtotals and the total end in the same cell."""
    invoice = SAMPLES[name]()
    rows = to_text(invoice).decode().splitlines()
    rule = next(row for row in rows if row.startswith("─"))
    assert WIDTH_MIN <= width_of(rule) <= WIDTH_MAX
    numbered = [row for row in rows if row.strip().partition(" ")[0].isdecimal()]
    amounts = [group_money(line.billed, invoice.currency) for line in invoice.lines]
    lines = [row for row in numbered if any(row.endswith(f" {it}") for it in amounts)]
    assert len(lines) == len(invoice.lines)
    subtotals = [row for row in rows if row.lstrip().startswith("subtotal")]
    total = next(row for row in rows if row.startswith("Total"))
    assert {width_of(row) for row in (rule, *lines, *subtotals, total)} == {width_of(rule)}


def test_to_text__puts_points_below_each_other() -> None:
    """Prices with two to six decimals have their points in one column."""
    invoice = SAMPLES["month"]()
    rows = to_text(invoice).decode().splitlines()
    prices = [group_price(it.price.unit_price, invoice.currency) for it in invoice.lines]
    assert len(set(map(len, prices))) > 1
    places = {
        width_of(row[: row.rindex(f" {price} ")]) + 1 + price.index(".")
        for line, price in zip(invoice.lines, prices, strict=True)
        for row in rows
        if row.split()[:2] == [str(line.line), line.tier]
    }
    assert len(places) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("month", []),
        ("preview", [PREVIEW]),
        ("sandbox", [SANDBOX]),
        ("sandbox_preview", [SANDBOX, PREVIEW]),
    ],
)
def test_to_text__begins_with_what_it_is(name: str, expected: list[str]) -> None:
    """A sandbox and a preview are loud about it, between rules, before anything else."""
    rows = to_text(SAMPLES[name]()).decode().splitlines()
    banner = takewhile(lambda row: not row.startswith("━"), rows[1:] if expected else [])
    assert rows[0].startswith("━") is bool(expected)
    assert [row for row in banner if row in {PREVIEW, SANDBOX}] == expected


def test_to_text__of_a_preview() -> None:
    """A preview says until when it counted, what holds the invoice, and which keys those are."""
    text = " ".join(to_text(SAMPLES["preview"]()).decode().split())
    assert "Counted until 14 October 2026, 09:31 (Europe/Berlin)." in text
    assert "3 keys have no price: this account’s invoice is held until they have one." in text
    assert "Preview no number" in text
    assert "Total so far USD" in text
    key = "high · batch · output · prompts of ≥1M tokens"
    assert f"glm-6-preview {key} 12,405,113 tokens since 3 October 2026, 10:15" in text


def test_to_text__of_nothing() -> None:
    """A month without usage says so, and comes to 0.00."""
    text = " ".join(to_text(SAMPLES["no_lines"]()).decode().split())
    assert "Nothing was used in this period." in text
    assert " Total USD 0.00 " in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("taken_back", "Total USD -17.28 "),
        ("yen", "Total JPY 1,265,267 "),
        ("dinar", "Total BHD 3,165.105 "),
        ("all_free", "Total USD 0.00 "),
    ],
)
def test_to_text__of_currencies(name: str, expected: str) -> None:
    """The total has as many decimals as its currency, and a sign where it is a loss."""
    assert expected in " ".join(to_text(SAMPLES[name]()).decode().split())
