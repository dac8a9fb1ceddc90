"""`tokenworks billing clock --to TIME --close`: months go by and are closed on the way."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from cli.main import tokenworks
from cli.process import Exit
from tests.billing.terms import PARTIES
from tests.cli.shell import Shell, shell_of
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.producing import beat
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import wait_until
from tokenworks.meter.v1 import usage_pb2

BOOK = """
format = 1
book = "list"
from = 2026-01-01T00:00:00
zone = "UTC"
currency = "USD"
[models."llama-4"]
all = "3"
[models.m]
all = "3"
"""
CONTRACT = """
format = 1
contract = "{name}"
from = {start}
zone = "{zone}"
currency = "USD"
book = "list"
covers = ["/{covers}"]
seller = "nimbus"
buyer = "acme"
"""
DOLLAR = "333334"
# The tests' own Postgres does without what makes it survive a lost disk.
UNSAFE = "disk"


@contextlib.contextmanager
def sandbox_at(begin: str, *, cluster: Cluster, folder: Path) -> Iterator[RunningMeter]:
    """A sandbox that begins at an instant."""
    settings = {"sandbox_clock": begin}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        yield running


def set_terms(shell: Shell, folder: Path, *contracts: str) -> None:
    """Import the book, and set contracts."""
    for number, text in enumerate((BOOK, *(each + PARTIES for each in contracts))):
        file = folder / f"terms-{number}.toml"
        file.write_text(text, "utf-8")
        verb = ("contracts", "set") if number else ("prices", "import")
        shell.run(*verb, str(file))


def live(shell: Shell, to: str) -> list[tuple[str, str, str, str]]:
    """Let time go by, with its closes; return when what was closed, and what came of it."""
    told = shell.run_json("billing", "clock", "--to", to, "--close")
    return [(it["time"], it["month"], it["contract"], it["outcome"]) for it in told["closed"]]


def test_clock__closes_on_the_way(cluster: Cluster, tmp_path: Path) -> None:
    """Each month is closed three days after its end in its own zone; what is held is told once."""
    with sandbox_at("2026-10-31T00:00:00Z", cluster=cluster, folder=tmp_path) as meter:
        shell = shell_of(meter)
        east = CONTRACT.format(
            name="east", start="2026-10-01T00:00:00", zone="Pacific/Kiritimati", covers="other"
        )
        berlin = CONTRACT.format(
            name="berlin", start="2026-10-01T00:00:00", zone="Europe/Berlin", covers="acme"
        )
        set_terms(shell, tmp_path, east, berlin)
        shell.record("--input", DOLLAR)
        unpriced = ("--account", "other", "--model", "unknown", "--tier", "high", "--input", "5")
        shell.run("usage", "record", *unpriced)
        said = shell.run("billing", "clock", "--to", "2026-11-04", "--close").stdout.splitlines()
        assert said[:2] == [
            "2026-11-03 10:00  2026-10  east  held unpriced  0.00 USD",
            "2026-11-03 23:00  2026-10  berlin  issued  NIMBUS-2026-000001  1.00 USD",
        ]
        assert [line.split()[0] for line in said[2:]] == ["now", "clock", "from", "edges", "cuts"]
        # Closed already, and not told again; between two milliseconds no clock ever stands.
        assert live(shell, "2026-11-04T00:00:00.0005") == [
            ("2026-11-04T00:00:00Z", "2026-10", "east", "held_unpriced")
        ]
        back = shell.run("billing", "clock", "--to", "2026-11-01", "--close", code=Exit.REFUSED)
        assert "goes forward only" in back.stderr
        assert "needs --to" in shell.run("billing", "clock", "--close", code=Exit.USAGE).stderr


def test_clock__waits_for_who_reported(cluster: Cluster, tmp_path: Path) -> None:
    """A month waits for a producer with a backlog to the fifth day, and then says for whom."""
    with sandbox_at("2026-10-31T00:00:00Z", cluster=cluster, folder=tmp_path) as meter:
        shell, session = shell_of(meter), Session(meter)
        berlin = CONTRACT.format(
            name="berlin", start="2026-10-01T00:00:00", zone="UTC", covers="acme"
        )
        set_terms(shell, tmp_path, berlin)
        for name, words in (("late", ()), ("phone", ("--edge",))):
            shell.run("producers", "register", name, *words)
            report_with_backlog(session, name, account=find_account(shell, "acme"))
        told = shell.run_json("billing", "clock", "--to", "2026-11-06", "--close")["closed"]
        (closed,) = told
        assert (closed["time"], closed["outcome"]) == ("2026-11-06T00:00:00Z", "issued")
        assert "late" in closed["exception"]
        assert "phone" not in closed["exception"]


def find_account(shell: Shell, path: str) -> str:
    """Return the id of an account."""
    return str(shell.run_json("accounts", "show", path)["account"])


def report_with_backlog(session: Session, name: str, *, account: str) -> None:
    """Report an event by a stream that announces more than it sends, and then is cut off."""
    end_ms = int(datetime(2026, 10, 30, tzinfo=UTC).timestamp() * 1000)
    tokens = {usage_pb2.TOKEN_CLASS_INPUT: 333_334}
    session.exchange(opening(name), rows(1, event(account, end_ms=end_ms, tokens=tokens)), beat(3))
    found = "SELECT 1 FROM producers WHERE producer = %s AND announced_sequence = 3"
    with psycopg.connect(session.meter.database_url, autocommit=True) as connection:
        wait_until(lambda: connection.execute(found, (name,)).fetchone() is not None)


@pytest.mark.stacks
@pytest.mark.timeout(400)
def test_clock__a_year(cluster: Cluster, tmp_path: Path) -> None:
    """A year is lived with late events in each month: what was billed is what was counted."""
    with sandbox_at("2026-01-01T00:00:00Z", cluster=cluster, folder=tmp_path) as meter:
        shell = shell_of(meter)
        contracts = [
            CONTRACT.format(name=name, start="2026-01-01T00:00:00", zone=zone, covers=covers)
            for name, zone, covers in (
                ("berlin", "Europe/Berlin", "acme"),
                ("honolulu", "Pacific/Honolulu", "other"),
            )
        ]
        set_terms(shell, tmp_path, *contracts)
        closed: list[dict[str, Any]] = []
        for number in range(1, 13):
            closed += drive(shell, f"2026-{number:02}-20")
            # Of this month, and of the last days of the month before: after its close.
            shell.record("--input", str(1_000_000 * number), "--end-time", "1d")
            shell.record("--input", "777", "--end-time", "1d", account="other")
            if number > 1:
                shell.record("--input", "333333", "--end-time", "22d")
                shell.record("--input", "1", "--end-time", "22d", account="other")
        closed += drive(shell, "2027-01-20")
        assert [it["month"] for it in closed if it["contract"] == "berlin"] == [
            f"2026-{number:02}" for number in range(1, 13)
        ]
        tokens = {"berlin": 78_000_000 + 11 * 333_333, "honolulu": 12 * 777 + 11}
        for contract, count in tokens.items():
            issued = [it for it in closed if it["contract"] == contract and it["number"]]
            billed = sum(Decimal(it["total"]) for it in issued)
            # Each month rounds once for all of its usage, whenever that came.
            assert abs(billed - Decimal(3 * count) / 1_000_000) <= Decimal("0.06"), contract
        lines = shell.run_json("invoices", "show", closed[-2]["number"])
        assert lines
        assert billed_tokens(meter, "berlin") == tokens["berlin"]
        assert failed_checks(meter) <= {UNSAFE}
        entries = shell.run_json("audit", "list", "--action", "invoice.issue", "--limit", "1000")
        assert entries


def drive(shell: Shell, to: str) -> list[dict[str, Any]]:
    """Let time go by, with its closes; return what was closed."""
    told = shell.run_json("billing", "clock", "--to", to, "--close")["closed"]
    assert isinstance(told, list)
    return told


def failed_checks(meter: RunningMeter) -> set[str]:
    """Return what doctor finds wrong when it adds all up again."""
    environment = {"TOKENWORKS_DATABASE_URL": meter.database_url}
    page = CliRunner().invoke(tokenworks, ["doctor", "--audit", "--json"], env=environment)
    return {it["check"] for it in json.loads(page.stdout)["checks"] if it["mark"] == "fail"}


def billed_tokens(meter: RunningMeter, contract: str) -> int:
    """Return the tokens of all lines of usage and adjustments of a contract's documents."""
    question = (
        "SELECT sum(l.quantity) FROM invoice_lines l JOIN invoices i USING (number)"
        " WHERE i.contract = %s AND l.kind IN ('usage', 'adjustment')"
    )
    with psycopg.connect(meter.database_url, autocommit=True) as connection:
        row = connection.execute(question, (contract,)).fetchone()
    assert row is not None
    return int(row[0])
