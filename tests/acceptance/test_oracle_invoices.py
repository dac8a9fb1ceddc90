"""The oracle beside a database: it agrees where all is well, and finds every kind of falsehood."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance import oracle
from tests.acceptance.oracle_bills import CLASSES
from tests.postgres import Cluster

BOOK = """
book = "retail"
from = 2026-10-01T00:00:00
zone = "Europe/Berlin"
currency = "USD"
[models.glm]
input = "1.40"
output = "4.40"
[[models.glm.above]]
prompt = 200_000
input = "2.80"
[models.kimi]
output = "3.20"
"""
CONTRACT = """
contract = "acme-2026"
from = 2026-10-01T00:00:00
zone = "Europe/Berlin"
currency = "USD"
book = "retail"
covers = ["acme"]
[[overrides]]
models = ["glm"]
factor = "0.85"
"""
# 2026-10-07T20:00Z; the last one is of the month before, in no contract's time.
_PLACE = {"tier": "high", "mode": "online", "end_time_ms": 1_791_403_200_000}
EVENTS: list[dict[str, Any]] = [
    {**_PLACE, "account": "acme", "model": "glm", "classes": {"input": 900_000}},
    {**_PLACE, "account": "acme", "model": "glm", "classes": {"input": 100_000, "output": 7}},
    {**_PLACE, "account": "team", "model": "glm", "classes": {"input": 100_000, "output": 499_993}},
    {**_PLACE, "account": "team", "model": "kimi", "classes": {"output": 1_000_001}},
    {**_PLACE, "account": "team", "model": "kimi", "classes": {"output": 9}, "end_time_ms": 1},
]
# The views of docs/reference, as tables; 0.9 × 2.38 + 0.2 × 1.19 + 0.5 × 3.74 + 1.000001 × 3.20.
_TABLES = """
CREATE TABLE accounts (account_id text, handle text);
CREATE TABLE account_parents (account_id text, start_time timestamptz, parent_id text);
CREATE TABLE skus (sku_id int, model text, tier text);
CREATE TABLE usage (account_id text, interval_start timestamptz, sku_id int, {classes});
CREATE TABLE invoices (
    number text, contract text, account_id text, currency text, zone text,
    period_start timestamptz, period_end timestamptz, total numeric, residue numeric, line_count int
);
CREATE TABLE invoice_lines (
    number text, line int, model text, tier text, mode text, token_class text, above int,
    window_name text, price_from timestamptz, unit_price numeric, quantity bigint, exact numeric,
    billed numeric, residue numeric
);
INSERT INTO accounts VALUES ('acme', 'acme'), ('team', 'team');
INSERT INTO account_parents VALUES ('acme', '2026-01-01Z', NULL), ('team', '2026-01-01Z', 'acme');
INSERT INTO skus VALUES (1, 'glm', 'high'), (2, 'kimi', 'high');
INSERT INTO usage (account_id, interval_start, sku_id, input, output) VALUES
    ('acme', '2026-10-07T20:00Z', 1, 1000000, 7),
    ('team', '2026-10-07T20:00Z', 1, 100000, 499993),
    ('team', '2026-10-07T20:00Z', 2, 0, 1000001),
    ('team', '1970-01-01T00:00Z', 2, 0, 9);
INSERT INTO invoices VALUES ('NG-2026-000001', 'acme-2026', 'acme', 'USD', 'Europe/Berlin',
    '2026-09-30T22:00Z', '2026-10-31T23:00Z', 7.45, 0.0000032, 4);
INSERT INTO invoice_lines
SELECT 'NG-2026-000001', line, model, 'high', 'online', token_class, above, '', '2026-09-30T22:00Z',
    unit_price, quantity, exact, billed, exact - billed
FROM (VALUES
    (1, 'glm', 'input', 0, 1.19, 200000, 0.238, 0.24),
    (2, 'glm', 'input', 200000, 2.38, 900000, 2.142, 2.14),
    (3, 'glm', 'output', 0, 3.74, 500000, 1.87, 1.87),
    (4, 'kimi', 'output', 0, 3.2000, 1000001, 3.2000032, 3.20)
) AS written (line, model, token_class, above, unit_price, quantity, exact, billed);
"""
FALSEHOODS = {
    "quantity": "UPDATE invoice_lines SET quantity = quantity + 1 WHERE line = 1",
    "unit price": "UPDATE invoice_lines SET unit_price = 1.1900001 WHERE line = 1",
    "exact": "UPDATE invoice_lines SET exact = exact + 1e-30 WHERE line = 1",
    "billed": "UPDATE invoice_lines SET billed = 0.23 WHERE line = 1",
    "residue of a line": "UPDATE invoice_lines SET residue = -residue WHERE line = 1",
    "order": "UPDATE invoice_lines SET line = 5 - line",
    "model": "UPDATE invoice_lines SET model = 'kimi' WHERE line = 3",
    "tier": "UPDATE invoice_lines SET tier = 'free' WHERE line = 1",
    "mode": "UPDATE invoice_lines SET mode = 'batch' WHERE line = 1",
    "class": "UPDATE invoice_lines SET token_class = 'OUTPUT' WHERE line = 3",
    "band": "UPDATE invoice_lines SET above = 32000 WHERE line = 1",
    "window": "UPDATE invoice_lines SET window_name = 'night' WHERE line = 1",
    "version": "UPDATE invoice_lines SET price_from = '2026-10-02Z' WHERE line = 1",
    "line gone": "DELETE FROM invoice_lines WHERE line = 1",
    "line twice": "INSERT INTO invoice_lines SELECT * FROM invoice_lines WHERE line = 1",
    "line count": "UPDATE invoices SET line_count = 3",
    "total": "UPDATE invoices SET total = 7.46",
    "residue": "UPDATE invoices SET residue = 0",
    "currency": "UPDATE invoices SET currency = 'EUR'",
    "contract": "UPDATE invoices SET contract = 'acme-2027'",
    "account": "UPDATE invoices SET account_id = 'team'",
    "begin": "UPDATE invoices SET period_start = '2026-10-01Z'",
    "end": "UPDATE invoices SET period_end = '2026-11-01Z'",
    "invoice gone": "DELETE FROM invoices",
    "invoice twice": "INSERT INTO invoices SELECT * FROM invoices",
    "usage one token more": "UPDATE usage SET output = output + 1 WHERE sku_id = 2",
    "usage one token less": "UPDATE usage SET output = output - 1 WHERE sku_id = 2",
    "usage of another account": "UPDATE usage SET account_id = 'acme' WHERE sku_id = 2",
    "account elsewhere": "UPDATE account_parents SET parent_id = NULL",
}
AGREED = (
    "sent 2,600,001 = counted 2,600,001 = billed 2,600,001 tokens, lost 0, doubled 0,"
    " money 7.45 USD = the oracle's 7.45 USD"
)


@pytest.fixture
def billed(cluster: Cluster) -> Iterator[psycopg.Connection]:
    """A database with the accounts, the usage and the invoice of EVENTS."""
    classes = ", ".join(f"{name} bigint DEFAULT 0" for name in CLASSES)
    with (
        cluster.database(template="template0") as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        connection.execute(_TABLES.format(classes=classes))
        yield connection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the book, the contract and the truth of EVENTS."""
    for name, text in (("books/retail.toml", BOOK), ("contracts/acme.toml", CONTRACT)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text, "utf-8")
    lines = [json.dumps({**event, "request_id": f"r{it}"}) for it, event in enumerate(EVENTS)]
    (tmp_path / "truth.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


def test_main__agreement(
    billed: psycopg.Connection, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the invoice is what the events cost, the status is 0 and a line says all of it."""
    assert _check(billed, folder) == 0
    printed = capsys.readouterr().out
    assert AGREED in printed
    assert "acme-2026 acme 2026-09-30T22:00Z 7.45 USD 7.45 USD" in " ".join(printed.split())


@pytest.mark.parametrize("statement", FALSEHOODS.values(), ids=FALSEHOODS.keys())
def test_main__false_database(
    billed: psycopg.Connection,
    folder: Path,
    statement: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each way to falsify an invoice, or the usage it is made of, is found and named."""
    billed.execute(statement)
    assert _check(billed, folder) == 1
    assert "differences, the first: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "written", "false"),
    [
        ("truth.jsonl", "1000001", "1000002"),
        ("truth.jsonl", '"high"', '"free"'),
        ("truth.jsonl", '"online"', '"batch"'),
        ("truth.jsonl", '"glm"', '"kimi"'),
        ("truth.jsonl", "1791403200000", "1793487600000"),
        ("books/retail.toml", '"3.20"', '"3.21"'),
        ("books/retail.toml", "2026-10-01T00:00:00", "2026-10-01T00:15:00"),
        ("contracts/acme.toml", '"0.85"', '"0.84"'),
        ("contracts/acme.toml", '"Europe/Berlin"', '"Europe/London"'),
    ],
)
def test_main__false_files(
    billed: psycopg.Connection, folder: Path, file: str, written: str, false: str
) -> None:
    """Each file counts: one that is changed is found."""
    text = (folder / file).read_text("utf-8")
    assert written in text
    (folder / file).write_text(text.replace(written, false, 1), "utf-8")
    assert _check(billed, folder) == 1


def test_main__held(
    billed: psycopg.Connection, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An invoice that lacks a price must not be there; its tokens are told apart."""
    book = folder / "books/retail.toml"
    book.write_text(BOOK.split("[models.kimi]", maxsplit=1)[0], "utf-8")
    assert _check(billed, folder) == 1
    assert "issued, though a price is missing" in capsys.readouterr().out
    billed.execute("DELETE FROM invoices")
    assert _check(billed, folder) == 0
    printed = capsys.readouterr().out
    assert "acme-2026: no price for 1000001 tokens of kimi high online output" in printed
    assert "= billed 0 + held 2,600,001 tokens" in printed


def test_main__other_months(billed: psycopg.Connection, folder: Path) -> None:
    """Invoices of other months are none of this month's business, and empty ones no difference."""
    billed.execute(
        "INSERT INTO invoices SELECT 'NG-2026-000002', contract, account_id, currency, zone,"
        " period_end, '2026-11-30T23:00Z', 1, 1, 0 FROM invoices"
    )
    billed.execute(
        "INSERT INTO invoices SELECT 'NG-2026-000003', 'other', account_id, currency, zone,"
        " period_start, period_end, 0, 0, 0 FROM invoices WHERE line_count > 0"
    )
    assert _check(billed, folder) == 0


def _check(connection: psycopg.Connection, folder: Path) -> int:
    info = connection.info
    url = f"postgresql://{info.user}:{info.password}@{info.host}:{info.port}/{info.dbname}"
    arguments = ["--database-url", url, "--month", "2026-10", "--books", str(folder / "books")]
    arguments += ["--contracts", str(folder / "contracts/acme.toml"), str(folder / "truth.jsonl")]
    return oracle.main(arguments)
