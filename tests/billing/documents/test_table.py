"""The CSV: a row for each line, numbers that add up, and names that no spreadsheet runs."""

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given

from billing.documents.table import COLUMNS, harmless, to_csv
from billing.invoicing import Invoice
from billing.money import add_up
from tests.billing.documents.gallery import SAMPLES
from tests.billing.documents.strategies import invoices, names

Rows = list[dict[str, str]]


@given(invoices())
def test_to_csv__has_every_line(invoice: Invoice) -> None:
    """Each line is a row with its exact numbers, each key without a price one with no amount."""
    rows = _read(invoice)
    is_usage = [row["line_kind"] in {"usage", "adjustment"} for row in rows]
    priced = [row for row, is_one in zip(rows, is_usage, strict=True) if is_one]
    assert [
        (
            int(row["line"]),
            int(row["quantity"]),
            Decimal(row["unit_price"]),
            Decimal(row["exact"]),
            Decimal(row["billed"]),
            Decimal(row["residue"]),
        )
        for row in priced
    ] == [
        (it.line, it.token_count, it.price.unit_price, it.exact, it.billed, it.residue)
        for it in invoice.lines
    ]
    others = len(invoice.charges) + len(invoice.credits)
    numbers = [it.line for it in invoice.charges] + [it.line for it in invoice.credits]
    assert [int(row["line"]) for row in rows[len(priced) :][:others]] == numbers
    unpriced = rows[len(priced) + others :]
    assert [(row["priced"], int(row["quantity"]), row["billed"]) for row in unpriced] == [
        ("false", it.token_count, "") for it in invoice.unpriced
    ]


@given(invoices())
def test_to_csv__adds_up(invoice: Invoice) -> None:
    """The billed amounts of the rows are the net total, and their residues its residue."""
    rows = [row for row in _read(invoice) if row["priced"] == "true"]
    assert add_up(Decimal(row["billed"]) for row in rows) == invoice.net
    assert add_up(Decimal(row["residue"]) for row in rows) == invoice.residue


@given(invoices())
def test_to_csv__has_nothing_to_run(invoice: Invoice) -> None:
    """No text begins as a formula does, and taking one apostrophe off gives the name."""
    for row, line in zip(_read(invoice), invoice.lines, strict=False):
        for name in ("seller", "buyer", "po", "model", "tier", "number"):
            assert not row[name].lstrip(" ").startswith(tuple("=+-@\t\r\n"))
        assert row["model"].removeprefix("'") == line.model


def test_to_csv__of_all_kinds_of_lines() -> None:
    """Usage, adjustments, charges and credits say what they are, and what they are for."""
    heads = ("line_kind", "group", "origin_month", "origin_number", "origin_line", "tax_rate")
    rows = {row["line"]: tuple(row[it] for it in heads) for row in _read(SAMPLES["whole"]())}
    assert rows["1"] == ("usage", "research", "", "", "", "19")
    assert rows["9"] == ("adjustment", "", "2026-09", "NG-2026-000031", "5", "19")
    assert rows["12"] == ("charge", "", "", "", "", "19")
    (credit, _) = _read(SAMPLES["credit_note"]())
    assert tuple(credit[it] for it in heads) == ("credit", "", "", "NG-2026-000042", "4", "19")
    assert (credit["kind"], credit["refers_to"]) == ("credit_note", "NG-2026-000042")


@given(names)
def test_harmless__can_be_undone(name: str) -> None:
    """Taking one leading apostrophe off gives every name back, also one that has its own."""
    for text in (name, f"'{name}", f"={name}"):
        assert harmless(text).removeprefix("'") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("glm-5.1", "glm-5.1"),
        ("=1+1", "'=1+1"),
        ("+49 30", "'+49 30"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("  =1", "'  =1"),
        ("＝１", "'＝１"),  # noqa: RUF001
        ("'quoted", "''quoted"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_harmless__of_formulas(text: str, expected: str) -> None:
    """What a spreadsheet would run gets an apostrophe, what it would show stays as it is."""
    assert harmless(text) == expected


def test_to_csv__keeps_losses_numbers() -> None:
    """A minus before a number is one, and gets no apostrophe."""
    row = _read(SAMPLES["taken_back"]())[0]
    assert (row["quantity"], row["exact"], row["billed"]) == ("-12345678", "-17.2839492", "-17.28")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("month", {("invoice", "false", "NG-2026-000042", "2026-11-01", "2026-12-01")}),
        ("sandbox", {("invoice", "true", "NG-2026-000042", "2026-11-01", "2026-12-01")}),
        ("preview", {("preview", "false", "", "", "")}),
    ],
)
def test_to_csv__says_what_it_is(name: str, expected: set[tuple[str, ...]]) -> None:
    """Each row says of which document it is, and whether a real month stands behind it."""
    rows = _read(SAMPLES[name]())
    heads = ("kind", "sandbox", "number", "issue_date", "due_date")
    assert {tuple(row[it] for it in heads) for row in rows} == expected


def test_to_csv__is_rfc_4180() -> None:
    """Rows end with CR LF; a comma, a quote or a line break in a name is quoted."""
    text = to_csv(SAMPLES["month"]()).decode()
    assert text.startswith(",".join(COLUMNS) + "\r\n")
    assert text.count("\r\n") == text.count("\n") == 18
    assert to_csv(SAMPLES["no_lines"]()).decode() == ",".join(COLUMNS) + "\r\n"


def _read(invoice: Invoice) -> Rows:
    return list(csv.DictReader(io.StringIO(to_csv(invoice).decode(), newline=""), strict=True))
