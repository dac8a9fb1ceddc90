"""The proof: what was sent, counted and billed, and what an independent calculation charges.

Sent is read from the truth files, counted asked of the meter, billed added up from the lines of the
invoices. Money is compared with `tests/acceptance/oracle.py`, which reads truth files, terms and
database and shares no code with the product.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeAlias

from cli.connection import Client
from cli.demo.bills import Bill
from cli.demo.opening import BOOKS_FOLDER, CONTRACTS_FOLDER
from cli.demo.world import CUSTOMERS, MONTH, MOVE, find_payer, month_span
from cli.process import CommandError
from tokenworks.meter.v1.meter_service_pb2 import GROUP_BY_TIER, QueryUsageRequest
from tokenworks.meter.v1.usage_pb2 import TokenClass

# Tokens by customer, tier and class.
Tokens: TypeAlias = Counter[tuple[str, str, str]]

ORACLE: Final = Path(__file__).parents[2] / "tests" / "acceptance" / "oracle.py"
_MODULE: Final = "tests.acceptance.oracle"
_MONEY: Final = re.compile(
    r"\S+ +(?P<account>\S+) +\d{4}-\d\d-\d\dT\S+ +(?P<own>[\d,.]+) [A-Z]{3} .*"
)
_END: Final = b',"end_time_ms":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Requests and tokens as one side has them, under the customer who pays for them."""

    request_count: int
    tokens: Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The three sums and the two amounts; `faults` names every difference."""

    sent: Sums
    counted: Sums
    billed: Tokens
    money: Mapping[str, Decimal]
    oracle_money: Mapping[str, Decimal]
    faults: list[str]

    @property
    def lost(self) -> int:
        """Tokens that were sent and not counted."""
        return (self.sent.tokens - self.counted.tokens).total()

    @property
    def doubled(self) -> int:
        """Tokens that were counted and not sent."""
        return (self.counted.tokens - self.sent.tokens).total()


def demand_oracle() -> None:
    """Raise CommandError where the independent calculation is not, as in a wheel."""
    if not ORACLE.is_file():
        raise CommandError(
            f"the demo's check is a file of the source tree, and there is no {ORACLE}: run the demo"
            " from a checkout, with `make demo`"
        )


class Oracle:
    """The independent calculation, as a process that runs beside the demo."""

    def __init__(self, database: tuple[str, str], *, terms: Path, truth: Path) -> None:
        """Start it on a database: its URL, and the password, which stands in no command line."""
        url, password = database
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", _MODULE, "--database-url", url, "--month", MONTH),
                *("--books", str(terms / BOOKS_FOLDER)),
                *("--contracts", str(terms / CONTRACTS_FOLDER), str(truth)),
            ],
            cwd=ORACLE.parents[2],
            env={"PGPASSWORD": password, "PYTHONUTF8": "1", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def answer(self) -> tuple[str, bool]:
        """Wait for its end; returns what it printed, and whether it found no difference."""
        printed, _ = self._process.communicate()
        return printed, self._process.returncode == 0

    def stop(self) -> None:
        """End it if it runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def read_sent(truth: Path) -> Sums:
    """Add up truth files."""
    lines: Counter[tuple[str, bytes]] = Counter()
    for path in sorted(truth.glob("*.jsonl")):
        with path.open("rb") as file:
            lines.update(map(_who_and_what, file))
    tokens: Tokens = Counter()
    for (payer, what), count in lines.items():
        told = json.loads(what + b"}")
        for name, each in told["classes"].items():
            tokens[payer or find_payer(told["account"], at_ms=0), told["tier"], name] += (
                each * count
            )
    return Sums(request_count=lines.total(), tokens=tokens)


def read_counted(client: Client) -> Sums:
    """Ask the meter for each customer's October; a team that moved counts where it was."""
    request_count = 0
    tokens: Tokens = Counter()
    for customer in CUSTOMERS:
        request = QueryUsageRequest(account=customer.account, group_by=[GROUP_BY_TIER])
        begin, end = month_span(customer.zone)
        request.start_time.FromDatetime(begin)
        request.end_time.FromDatetime(end)
        for row in client.meter.QueryUsage(request).rows:
            request_count += row.request_count
            for each in row.tokens:
                name = TokenClass.Name(each.token_class).removeprefix("TOKEN_CLASS_").lower()
                tokens[customer.account, row.tier, name] += each.count
    return Sums(request_count=request_count, tokens=tokens)


def read_billed(bills: Iterable[Bill]) -> Tokens:
    """Add up the lines of invoices; an invoice is its contract's first account's."""
    tokens: Tokens = Counter()
    for bill in bills:
        for line in bill.lines:
            tokens[bill.account, line["tier"], line["token_class"]] += line["quantity"]
    return tokens


def read_oracle_money(printed: str) -> dict[str, Decimal]:
    """Return by account what the oracle charges, from the table that it printed."""
    money: dict[str, Decimal] = {}
    for row in filter(None, map(_MONEY.fullmatch, printed.splitlines())):
        account, own = row["account"], Decimal(row["own"].replace(",", ""))
        money[account] = money.get(account, Decimal(0)) + own
    return money


def judge(
    *, event_count: int, sent: Sums, counted: Sums, bills: list[Bill], oracle: Oracle
) -> Verdict:
    """Compare all that is to be equal; waits for the oracle."""
    printed, agrees = oracle.answer()
    billed = read_billed(bills)
    money = {bill.account: bill.amount for bill in bills}
    oracle_money = read_oracle_money(printed)
    faults = list(_token_faults("sent", sent.tokens, "counted", counted.tokens))
    faults += _token_faults("counted", counted.tokens, "billed", billed)
    if not event_count == sent.request_count == counted.request_count:
        faults.append(
            f"{event_count:,} requests were to be sent, {sent.request_count:,} are in the truth"
            f" files, {counted.request_count:,} are counted"
        )
    for account in sorted({*money, *oracle_money, *(it.account for it in CUSTOMERS)}):
        billed_money, own = money.get(account), oracle_money.get(account)
        if billed_money is None or billed_money != own:
            faults.append(f"{account}: billed {billed_money}, the oracle charges {own}")
    if not agrees:
        faults.append(f"the oracle found differences:\n{printed.strip()}")
    return Verdict(
        sent=sent,
        counted=counted,
        billed=billed,
        money=money,
        oracle_money=oracle_money,
        faults=faults,
    )


def to_tree(tokens: Tokens) -> dict[str, dict[str, dict[str, int]]]:
    """Return tokens as JSON has them, by account, tier and class; none of them is 0."""
    tree: dict[str, dict[str, dict[str, int]]] = {}
    for (account, tier, name), count in sorted(tokens.items()):
        if count:
            tree.setdefault(account, {}).setdefault(tier, {})[name] = count
    return tree


def _who_and_what(line: bytes) -> tuple[str, bytes]:
    """Return who pays for a line of truth and how it begins; many lines begin alike.

    Who pays is left empty where the account alone decides.
    """
    what, _, rest = line.partition(_END)
    if _MOVED in what:
        return find_payer(MOVE.account, at_ms=int(rest[: rest.index(b",")])), what
    return "", what


_MOVED: Final = json.dumps({"account": MOVE.account}, separators=(",", ":"))[1:-1].encode()


def _token_faults(name: str, one: Tokens, other_name: str, other: Tokens) -> Iterator[str]:
    for key in sorted({*one, *other}):
        if one[key] != other[key]:
            yield f"{' '.join(key)}: {one[key]:,} {name}, {other[key]:,} {other_name}"


def as_money(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    """Return amounts by account as JSON has them."""
    return {account: format(amount, "f") for account, amount in sorted(amounts.items())}
