"""The page about correcting invoices: its commands run one after the other, its numbers are so."""

import re
import shlex
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from billing.crediting import TakenOff, Wanted, credit_line
from billing.errors import BillingReason
from billing.money import write_money
from billing.price_book import ModelPrices
from meter.domain.errors import InvalidArgument
from tests.acceptance.counted import wait_until_counted
from tests.billing.invoices import INPUT, USD, Sold, book, make_invoice, prices
from tests.billing.town import book_toml, contract_toml
from tests.cli.shell import Shell
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on

PAGE: Final = (
    Path(__file__).resolve().parents[2] / "docs/operating/correcting-invoices.md"
).read_text("utf-8")
BLOCK: Final = re.compile(r"^```sh\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIME: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?")
TAX: Final = '[tax]\ncategory = "S"\nrate = "19"\n'
# What happens before a command: tokens that came late.
LATE: Final = {"offline": "500000", "letter": "200000"}


@pytest.fixture
def meter(cluster: Cluster, tmp_path: Path) -> Iterator[RunningMeter]:
    """A sandbox in October."""
    settings = {"sandbox_clock": "2026-10-10T00:00:00Z"}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=settings) as running,
    ):
        yield running


@pytest.fixture
def shell(meter: RunningMeter, tmp_path: Path) -> Shell:
    """Whoever may do everything, after the close of the page's October."""
    shell = Shell(meter.target, meter.api_key)
    shell.run("accounts", "create", "acme", "--id", "acme")
    for verb, name, toml in (
        (("prices", "import"), "list.toml", book_toml()),
        (("contracts", "set"), "acme.toml", contract_toml(extra=TAX)),
    ):
        (tmp_path / name).write_text(toml, "utf-8")
        shell.run(*verb, str(tmp_path / name))
    shell.record("--input", "4000000", "--output", "1000000")
    wait_until_counted(meter.database_url)
    shell.run("billing", "clock", "--to", "2026-11-05T08:00:00Z")
    closed = shell.run_json("billing", "close", "2026-10", "--account", "acme")
    assert closed["periods"][0]["invoice"]["total"] == "17.85"
    return shell


def shape(text: str) -> str:
    """Return what was printed without times, blanks between words and drawn lines."""
    lines = (TIME.sub("TIME", " ".join(it.replace("─", " ").split())) for it in text.splitlines())
    return "\n".join(line for line in lines if line)


@pytest.mark.stacks
def test_commands__do_what_the_page_says(shell: Shell, meter: RunningMeter) -> None:
    """Each command of the page, in order, prints what stands below it."""
    found = BLOCK.findall(PAGE)
    assert len(found) == 7
    for line, expected in found:
        for word, tokens in LATE.items():
            if word in line:
                shell.record("--input", tokens, "--end-time", "2026-10-12T12:00:00Z")
                wait_until_counted(meter.database_url)
        words = shlex.split(line)
        assert words[0] == "tokenworks"
        assert shape(shell.run(*words[1:]).stdout) == shape(expected), line


def test_credits__are_rounded_as_the_page_says() -> None:
    """The table of parts is what the rule gives, refusals included."""
    rows = re.findall(
        r"^\| ([\d,]+) tokens \|(?:[^|]*\|){2} (\d\.\d\d) \| ([^|]*) \|$", PAGE, re.MULTILINE
    )
    assert len(rows) == 5
    table = ModelPrices(table=prices(all="3"), tiers={})
    sold = [Sold("llama-4", "high", INPUT, 4_000_000)]
    invoice = make_invoice(sold, books=(book({"llama-4": table}, currency=USD),))
    taken: list[TakenOff] = []
    for tokens, rounded, told in rows:
        wanted = Wanted(token_count=int(tokens.replace(",", "")))
        before = sum((it.amount for it in taken), Decimal(0))
        if told.startswith("refused"):
            with pytest.raises(InvalidArgument):
                credit_line(invoice, 1, wanted=wanted, taken=taken)
            assert Decimal(rounded) == before
            continue
        line = credit_line(invoice, 1, wanted=wanted, taken=taken)
        assert write_money(-line.amount, USD) == told
        assert before - line.amount == Decimal(rounded)
        taken.append(TakenOff(line=1, token_count=line.token_count, amount=-line.amount))


def test_reasons__are_there() -> None:
    """Each reason that the page explains is one that billing refuses with."""
    table = PAGE.split("## When it is refused")[1]
    named = set(re.findall(r"`([A-Z_]+)`", table))
    assert named <= {it.value for it in BillingReason}
    assert len(named) == 10
