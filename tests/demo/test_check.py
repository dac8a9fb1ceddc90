"""The demo's own check: sums of truth files, and what counts as a difference."""

import json
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from cli.demo.bills import Bill
from cli.demo.check import Oracle, Sums, Tokens, judge, read_oracle_money, read_sent, to_tree
from cli.demo.story import check_line
from cli.demo.traffic import Traffic
from cli.demo.world import CUSTOMERS, END, MOVE, SERVERS, TEAMS, to_ms

KEY = ("berlin", "high", "output")
PRINTED = """\
contract             account            begin                      oracle         invoice
auckland-2026        auckland           2026-09-30T11:00Z    3,916.49 USD    3,916.49 USD
berlin-2026          berlin             2026-09-30T22:00Z   12,269.83 USD               -
research-2026        research           2026-10-01T07:00Z            held               -
sent 2 = counted 2 = billed 2 tokens, lost 0, doubled 0, money 1.00 USD = the oracle's 1.00 USD
"""


class Answer:
    """An oracle that has ended."""

    def __init__(self, money: Mapping[str, str], *, agrees: bool = True) -> None:
        self._money = money
        self._agrees = agrees

    def answer(self) -> tuple[str, bool]:
        """A table with this money by account."""
        rows = [
            f"c {it} 2026-10-01T00:00Z {money} USD 1 USD\n" for it, money in self._money.items()
        ]
        return "".join(rows), self._agrees


def _bill(account: str, *, quantity: int = 7, total: str = "1.00") -> Bill:
    line = {"line": 1, "tier": "high", "token_class": "output", "quantity": quantity}
    lines = [line] if account == "berlin" else []
    return Bill(number="N", account=account, currency="USD", total=total, lines=lines)


def _case(**changes: object) -> dict[str, object]:
    accounts = [customer.account for customer in CUSTOMERS]
    case: dict[str, object] = {
        "event_count": 3,
        "sent": Sums(request_count=3, tokens=Counter({KEY: 7})),
        "counted": Sums(request_count=3, tokens=Counter({KEY: 7})),
        "bills": [_bill(account) for account in accounts],
        "oracle": Answer(dict.fromkeys(accounts, "1.00")),
    }
    return case | changes


def test_judge__all_agrees() -> None:
    """Where everything is equal there is no fault, and the line says so."""
    verdict = judge(**_case())  # type: ignore[arg-type]
    assert verdict.faults == []
    assert check_line(verdict) == (
        "sent = counted = billed: 7 tokens; lost 0, doubled 0; money = oracle's: 4.00 USD"
    )


@pytest.mark.parametrize(
    ("changes", "lost", "doubled"),
    [
        ({"event_count": 4}, 0, 0),
        ({"counted": Sums(request_count=3, tokens=Counter({KEY: 6}))}, 1, 0),
        ({"counted": Sums(request_count=3, tokens=Counter({KEY: 8}))}, 0, 1),
        ({"counted": Sums(request_count=2, tokens=Counter({KEY: 7}))}, 0, 0),
        ({"counted": Sums(request_count=3, tokens=Counter({("x", *KEY[1:]): 7}))}, 7, 7),
        ({"bills": [_bill(it.account, quantity=8) for it in CUSTOMERS]}, 0, 0),
        ({"bills": [_bill(it.account, total="1.01") for it in CUSTOMERS]}, 0, 0),
        ({"bills": [_bill(it.account) for it in CUSTOMERS[:-1]]}, 0, 0),
        ({"oracle": Answer({it.account: "1.00" for it in CUSTOMERS}, agrees=False)}, 0, 0),
        ({"oracle": Answer({it.account: "1.00" for it in CUSTOMERS[1:]})}, 0, 0),
        ({"oracle": Answer({})}, 0, 0),
    ],
)
def test_judge__any_difference(changes: dict[str, object], lost: int, doubled: int) -> None:
    """Each difference is a fault, however small, and alone is enough."""
    verdict = judge(**_case(**changes))  # type: ignore[arg-type]
    assert verdict.faults
    assert (verdict.lost, verdict.doubled) == (lost, doubled)


def test_oracle_money__from_its_table() -> None:
    """The oracle's own money is read, and what it holds back is none."""
    found = read_oracle_money(PRINTED)
    assert found == {"auckland": Decimal("3916.49"), "berlin": Decimal("12269.83")}


def test_sent__adds_up_truth_files(tmp_path: Path) -> None:
    """Sums of truth files are those of their lines, each under the customer who pays for it."""
    wanted: Tokens = Counter()
    count = 0
    payers = {team.account: team.parent or team.account for team in TEAMS}
    for index in range(len(SERVERS)):
        traffic = Traffic(event_count=4_000, seed=1, server_index=index)
        lines: list[str] = []
        for end_ms, shape in traffic.take(until_ms=to_ms(END)):
            lines.append(f'{shape.truth}{end_ms},"request_id":"{index}-{len(lines)}"}}\n')
            told = json.loads(lines[-1])
            payer = payers[told["account"]]
            if told["account"] == MOVE.account and told["end_time_ms"] >= to_ms(MOVE.time):
                payer = MOVE.parent
            for name, tokens in told["classes"].items():
                wanted[payer, told["tier"], name] += tokens
        count += len(lines)
        (tmp_path / f"server-{index}.jsonl").write_text("".join(lines), "utf-8")
    assert read_sent(tmp_path) == Sums(request_count=count, tokens=wanted)
    assert count == 4_000


def test_tree__by_account_tier_and_class() -> None:
    """JSON has tokens by account, tier and class, and none that are 0."""
    tokens: Tokens = Counter({("b", "high", "output"): 2, ("a", "free", "input"): 0})
    tokens["b", "high", "input"] = 1
    assert to_tree(tokens) == {"b": {"high": {"input": 1, "output": 2}}}


def test_oracle__is_in_the_checkout(tmp_path: Path) -> None:
    """The oracle is found, and says with its exit code that it could not do its work."""
    (tmp_path / "books").mkdir()
    (tmp_path / "contracts").mkdir()
    oracle = Oracle(("postgresql://nobody@127.0.0.1:1/none", "x"), terms=tmp_path, truth=tmp_path)
    try:
        printed, agrees = oracle.answer()
    finally:
        oracle.stop()
    assert not agrees
    assert "127.0.0.1" in printed
