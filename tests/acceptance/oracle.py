"""Compares the invoices of a month with what its events cost, each priced on its own.

    python tests/acceptance/oracle.py --database-url URL --month 2026-10 \
        --books PATH --contracts PATH TRUTH...

Written against the data alone: the standard library and psycopg, nothing of the product. PATH is a
TOML file or a folder of them, and may be repeated; TRUTH is a file of JSON lines or a folder of
`*.jsonl`. Prints the money of each invoice and what became of the tokens; ends with 1 and names the
first difference when there is any.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql

from tests.acceptance.oracle_accounts import Account
from tests.acceptance.oracle_bills import (
    CLASSES,
    EXPONENTS,
    Bills,
    Event,
    Invoice,
    Line,
    LineKey,
    Period,
    Terms,
    Tokens,
    bill,
    period_ms,
    to_event,
)
from tests.acceptance.oracle_terms import read_books, read_contracts, to_ms, wall_time

_INVOICES = """
SELECT number, contract, account_id, currency, zone, period_start, period_end, line_count,
    total, residue
FROM invoices ORDER BY number
"""
_LINES = """
SELECT number, line, model, tier, mode, token_class, above, window_name, unit_price, price_from,
    quantity, exact, billed, residue
FROM invoice_lines ORDER BY number, line
"""


def main(arguments: list[str]) -> int:
    """Run the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare invoices with what the events cost.")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--month", required=True, metavar="2026-10")
    parser.add_argument("--books", required=True, action="append", type=Path, metavar="PATH")
    parser.add_argument("--contracts", required=True, action="append", type=Path, metavar="PATH")
    parser.add_argument("truth", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    with psycopg.connect(options.database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        terms = Terms(
            read_tree(connection),
            books=read_books(options.books),
            contracts=read_contracts(options.contracts),
        )
        invoices, faults = read_invoices(connection, month=options.month)
        counted = read_counted(connection, terms=terms, month=options.month)
    bills = bill(read_events(options.truth), terms=terms, month=options.month)
    sys.stdout.write(table(bills, invoices=invoices))
    sys.stdout.write(check_line(bills, invoices=invoices, counted=counted))
    found = [*faults, *differences(bills, invoices=invoices)]
    found += token_differences(bills.sent, counted=counted)
    if found:
        sys.stdout.write(f"{len(found)} differences, the first: {found[0]}\n")
    return 1 if found else 0


def read_events(paths: Iterable[Path]) -> Iterator[Event]:
    """Read truth files: what was about to be reported, a JSON object a line."""
    for path in paths:
        for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
            with file.open(encoding="utf-8") as lines:
                yield from map(to_event, map(json.loads, lines))


def read_tree(connection: psycopg.Connection) -> dict[str, Account]:
    """Read all accounts with their dated parents."""
    parents: dict[str, list[tuple[int, str | None]]] = defaultdict(list)
    for account, start, parent in connection.execute(
        "SELECT account_id, start_time, parent_id FROM account_parents ORDER BY 1, 2"
    ):
        parents[account].append((to_ms(start), parent))
    rows = connection.execute("SELECT account_id, handle FROM accounts")
    return {account: Account(handle, tuple(parents[account])) for account, handle in rows}


def read_invoices(
    connection: psycopg.Connection, *, month: str
) -> tuple[dict[Period, Invoice], list[str]]:
    """Read the invoices whose period is in a local month; also returns what is wrong in form."""
    lines: dict[str, dict[LineKey, Line]] = defaultdict(dict)
    faults = []
    for row in connection.execute(_LINES):
        number, line, model, tier, mode, name, above, window, unit, since, quantity, *money = row
        key = LineKey(model, tier, mode, name, above, window, Fraction(unit), to_ms(since))
        if key in lines[number]:
            faults.append(f"{number}: line {line} has the key of another one")
        lines[number][key] = Line(line, quantity, *map(Fraction, money))
    invoices: dict[Period, Invoice] = {}
    for row in connection.execute(_INVOICES):
        number, contract, account, currency, zone, start, end, line_count, *money = row
        if f"{start.astimezone(ZoneInfo(zone)):%Y-%m}" != month:
            continue
        period = Period(contract, to_ms(start))
        if period in invoices:
            faults.append(f"{number}: an invoice of {_name(period)} was there before")
        if line_count != len(lines[number]):
            faults.append(f"{number}: {len(lines[number])} lines, not {line_count}")
        invoices[period] = Invoice(
            account, currency, to_ms(end), lines[number], *map(Fraction, money)
        )
    return invoices, faults


def read_counted(connection: psycopg.Connection, *, terms: Terms, month: str) -> Tokens:
    """Add up the tokens in usage that are on the month's invoices, by account, tier and class."""
    names = sql.SQL(", ").join(
        sql.SQL("sum(u.{})::bigint").format(sql.Identifier(name)) for name in CLASSES
    )
    statement = sql.SQL(
        "SELECT u.account_id, u.interval_start, s.tier, {} "
        "FROM usage u JOIN skus s USING (sku_id) GROUP BY 1, 2, 3"
    ).format(names)
    periods = {contract: period_ms(contract, month=month) for contract in terms.contracts}
    counted: Tokens = Counter()
    for account, start, tier, *sums in connection.execute(statement):
        at_ms = to_ms(start)
        contract = terms.find_contract(account, at_ms=at_ms)
        if contract and periods[contract][0] <= at_ms < periods[contract][1]:
            for token_class, tokens in zip(CLASSES, sums, strict=True):
                counted[account, tier, token_class] += tokens
    return counted


def differences(bills: Bills, *, invoices: Mapping[Period, Invoice]) -> list[str]:
    """Name every difference between what was issued and what the events cost.

    An invoice that lacks a price must not be there; one that is empty may be.
    """
    found = []
    issued = {period: it for period, it in invoices.items() if it.lines or it.total}
    for period in sorted(bills.invoices.keys() | bills.held | issued.keys()):
        name = _name(period)
        if period in bills.held:
            found += [f"{name}: issued, though a price is missing"] if period in issued else []
        elif period not in issued:
            found.append(f"{name}: not issued")
        elif period not in bills.invoices:
            found.append(f"{name}: issued, though there was nothing to bill")
        else:
            pair = bills.invoices[period], issued[period]
            found += [f"{name}: {difference}" for difference in _invoice_differences(*pair)]
    return found


def token_differences(sent: Tokens, *, counted: Tokens) -> list[str]:
    """Name every difference between the tokens of the truth and those in usage."""
    return [
        f"{' '.join(key)}: {sent[key]} tokens sent, {counted[key]} counted"
        for key in sorted(sent.keys() | counted.keys())
        if sent[key] != counted[key]
    ]


def table(bills: Bills, *, invoices: Mapping[Period, Invoice]) -> str:
    """Lay out the money of each invoice; below, what has no price and what no contract covers."""
    lines = [f"{'contract':<24} {'account':<24} {'begin':<22}{'oracle':>20}{'invoice':>20}"]
    for period in sorted(bills.invoices.keys() | bills.held | invoices.keys()):
        own, issued = bills.invoices.get(period), invoices.get(period)
        account = next((it.account for it in (own, issued) if it), "")
        columns = ["held" if period in bills.held else _money([own] if own else ())]
        columns.append(_money([issued] if issued else ()))
        numbers = "".join(f"{column or '-':>20}" for column in columns)
        lines.append(f"{period.contract:<24} {account:<24} {_time(period.start_ms):<22}{numbers}")
    for (period, *key), tokens in sorted(bills.unpriced.items()):
        lines.append(
            f"{period.contract}: no price for {tokens} tokens of {' '.join(map(str, key))}"
        )
    uncovered = Counter(event.account for event in bills.uncovered)
    for account, count in sorted(uncovered.items()):
        lines.append(f"{account}: {count} events that no contract covers")
    return "\n".join(lines) + "\n"


def check_line(bills: Bills, *, invoices: Mapping[Period, Invoice], counted: Tokens) -> str:
    """Say in a line what became of the month's tokens and money; those held for a price apart."""
    due = [it for period, it in bills.invoices.items() if period not in bills.held]
    sent, in_usage = bills.sent.total(), counted.total()
    billed = _quantity(invoices.values())
    held = sent - _quantity(due)
    lost, doubled = (bills.sent - counted).total(), (counted - bills.sent).total()
    money, own_money = _money(invoices.values()), _money(due)
    return (
        f"sent {sent:,} {_sign(sent, in_usage)} counted {in_usage:,}"
        f" {_sign(in_usage, billed + held)} billed {billed:,}"
        + (f" + held {held:,}" if held else "")
        + f" tokens, lost {lost:,}, doubled {doubled:,},"
        f" money {money} {_sign(money, own_money)} the oracle's {own_money}\n"
    )


def _invoice_differences(own: Invoice, issued: Invoice) -> Iterator[str]:
    for key in sorted(own.lines.keys() | issued.lines.keys()):
        line, issued_line = own.lines.get(key), issued.lines.get(key)
        if line is None or issued_line is None:
            yield f"{_line(key)}: {'no such line' if line else 'a line that nothing was used for'}"
        else:
            yield from (f"{_line(key)}: {text}" for text in _fields(line, issued_line))
    yield from _fields(own._replace(lines={}), issued._replace(lines={}))


def _fields(own: Line | Invoice, issued: Line | Invoice) -> Iterator[str]:
    for name, value, issued_value in zip(own._fields, own, issued, strict=True):
        if value != issued_value:
            yield f"{name} {_text(issued_value)}, the oracle has {_text(value)}"


def _line(key: LineKey) -> str:
    return (
        f"{key.model} {key.tier} {key.mode} {key.token_class} above {key.above}"
        f" {key.window or 'no window'} at {_text(key.unit_price)} since {_time(key.price_start_ms)}"
    )


def _name(period: Period) -> str:
    return f"{period.contract} from {_time(period.start_ms)}"


def _time(at_ms: int) -> str:
    return f"{wall_time(at_ms, zone=ZoneInfo('UTC')):%Y-%m-%dT%H:%MZ}"


def _text(value: object) -> str:
    if isinstance(value, Fraction):
        return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"
    return str(value)


def _money(invoices: Iterable[Invoice]) -> str:
    """Return the sum by currency, with as many digits as it has coins for."""
    totals: dict[str, Fraction] = defaultdict(Fraction)
    for invoice in invoices:
        totals[invoice.currency] += invoice.total
    return " + ".join(
        f"{Decimal(_text(total)):,.{EXPONENTS.get(currency, 2)}f} {currency}"
        for currency, total in sorted(totals.items())
    )


def _quantity(invoices: Iterable[Invoice]) -> int:
    return sum(line.quantity for invoice in invoices for line in invoice.lines.values())


def _sign(one: object, other: object) -> str:
    return "=" if one == other else "≠"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
