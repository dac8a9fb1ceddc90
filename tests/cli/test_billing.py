"""Prices, contracts, invoices and closing as commands, and what they print."""

import csv
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.counted import wait_until_counted
from tests.billing.town import book_toml, contract_toml
from tests.cli.shell import Shell
from tests.postgres import Cluster
from tests.running_meter import TOKENWORKS, RunningMeter, running_meter_on

OCTOBER = "2026-10-10T00:00:00Z"
NOVEMBER = "2026-11-01T08:00:00Z"


@pytest.fixture
def meter(cluster: Cluster, tmp_path: Path) -> Iterator[RunningMeter]:
    """A sandbox in October."""
    settings = {"sandbox_clock": OCTOBER}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=settings) as running,
    ):
        yield running


@pytest.fixture
def shell(meter: RunningMeter, tmp_path: Path) -> Shell:
    """Whoever may do everything, with accounts, a book, and a contract for acme."""
    shell = Shell(meter.target, meter.api_key)
    for account in ("acme", "other"):
        shell.run("accounts", "create", account, "--id", account)
    shell.run("prices", "import", str(write(tmp_path, "list.toml", book_toml())))
    shell.run("contracts", "set", str(write(tmp_path, "acme.toml", contract_toml())))
    return shell


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def use_and_end_month(shell: Shell, meter: RunningMeter) -> None:
    """Record an event for acme in October, and go on to November."""
    shell.record("--input", "1000000", "--output", "333333")
    wait_until_counted(meter.database_url)
    shell.run("billing", "clock", "--to", NOVEMBER)


def test_prices__imported_twice(shell: Shell, tmp_path: Path) -> None:
    """The first import says so, the second that nothing changed; a shipped book has a name."""
    path = write(tmp_path, "more.toml", book_toml(book="more"))
    assert shell.run("prices", "import", str(path)).stdout.startswith("imported more from")
    assert "nothing changed" in shell.run("prices", "import", str(path)).stdout
    assert shell.run_json("prices", "import", "keynote")["imported"]
    assert [it["book"] for it in shell.run_json("prices", "list")] == ["keynote", "list", "more"]
    assert "keynote" in shell.run("prices", "list").stdout


def test_prices__faults_name_file_and_line(shell: Shell, tmp_path: Path) -> None:
    """All faults of a file are told at once, each behind its file and line; exit code 2."""
    toml = book_toml("input = 3", 'output = "-1"', 'tier.gold = { all = "1" }')
    path = write(tmp_path, "bad.toml", toml)
    result = shell.run("prices", "import", str(path), code=2)
    lines = [line for line in result.stderr.splitlines() if str(path) in line]
    assert [line.split(f"{path}:")[1].split(":")[0] for line in lines] == ["8", "9", "10"]


def test_prices__unreadable(shell: Shell, tmp_path: Path) -> None:
    """A file that is not there, or no text, is a usage error."""
    shell.run("prices", "import", str(tmp_path / "none.toml"), code=2)
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe")
    shell.run("prices", "import", str(path), code=2)


def test_prices__explained(shell: Shell) -> None:
    """A key's price is written out factor by factor; a key without one ends with 3."""
    shell.run("prices", "import", "retail")
    key = "model=glm-5.1,tier=high,class=output,mode=batch,prompt=250_000,at=2026-10-12T12:00"
    shown = shell.run("prices", "show", "retail", "--explain", key).stdout
    assert "modes.batch" in shown
    assert "above[200000]" in shown
    explained = shell.run_json("prices", "show", "retail", "--explain", key)
    assert explained["priced"]
    missing = "model=none,tier=high,class=output"
    assert "no price" in shell.run("prices", "show", "retail", "--explain", missing, code=3).stderr
    for wrong in ("model=m", "model=m,tier=t,class=nothing", "model=m,tier=t,class=input,x=1"):
        shell.run("prices", "show", "retail", "--explain", wrong, code=2)


def test_prices__shown_and_compared(shell: Shell, tmp_path: Path) -> None:
    """A version is printed as its file; a diff names each place with both values."""
    assert shell.run("prices", "show", "list").stdout == book_toml()
    later = write(tmp_path, "later.toml", book_toml('all = "4"', start="2027-01-01T00:00:00"))
    shell.run("prices", "import", str(later))
    rows = shell.run_json("prices", "diff", "list@2026-11-01", "list@2027-02-01")
    assert {"place": "models.llama-4.all", "before": "3", "after": "4"} in rows
    assert "models.llama-4.all" in shell.run("prices", "diff", "list", str(later)).stdout
    assert shell.run("prices", "diff", "list", "list").stdout == "nothing changes\n"


def test_terms__say_what_they_change(shell: Shell, meter: RunningMeter, tmp_path: Path) -> None:
    """A dry run tells by contract and month, and keeps nothing; so does a month's usage twice."""
    shell.record("--input", "1000000")
    wait_until_counted(meter.database_url)
    dear = write(tmp_path, "dear.toml", book_toml('all = "4"', start="2026-10-01T00:00:00"))
    shown = shell.run("prices", "import", str(dear), "--dry-run").stdout
    for words in ("acme-2026", "2026-10", "3.00", "4.00", "+1.00 USD"):
        assert words in shown
    (effect,) = shell.run_json("prices", "import", str(dear), "--dry-run")
    assert (effect["after"], effect["closed"]) == ("4.00", False)
    half = write(tmp_path, "half.toml", contract_toml(extra='[[overrides]]\nfactor = "0.5"\n'))
    assert "-1.50 USD" in shell.run("contracts", "set", str(half), "--dry-run").stdout
    assert shell.run("prices", "show", "list").stdout == book_toml()
    diff = shell.run_json("prices", "diff", "list@2026-10-01", str(dear), "--on", "2026-10")
    assert [it["difference"] for it in (*diff["effects"], *diff["totals"])] == ["1.00", "1.00"]
    assert "nobody" in shell.run("prices", "diff", "list", "list", "--on", "2026-09").stdout
    imported = shell.run_json("prices", "import", str(dear), "--correct")
    assert (imported["effects"], imported["corrections"]) == ([effect], [])


def test_contracts__by_flags(shell: Shell) -> None:
    """Flags make the file that a contract is; it is listed and shown."""
    flags = (
        *("--contract", "by-flags", "--from", "2026-10-01", "--until", "2027-10-01"),
        *("--zone", "Pacific/Auckland", "--currency", "USD", "--book", "list"),
        *("--covers", "other", "--seller", "Nimbus", "--seller-address", "1 Way"),
        *("--buyer", 'O\'Neil & "Söhne" 株式会社', "--buyer-address", "2 Way", "--po", "77"),
        *("--series", "FL", "--terms-days", "14", "--price-by", "served"),
    )
    assert shell.run("contracts", "set", *flags).stdout.startswith("set by-flags from")
    assert "by-flags" in shell.run("contracts", "list").stdout
    shown = shell.run("contracts", "show", "by-flags").stdout
    assert 'po = "77"' in shown
    assert "terms_days = 14" in shown
    (told,) = shell.run_json("contracts", "list", "by-flags")
    assert told["buyer"] == 'O\'Neil & "Söhne" 株式会社'
    assert told["until"] == "2027-09-30T11:00:00Z"


def test_contracts__flags_that_do_not_fit(shell: Shell, tmp_path: Path) -> None:
    """A file and flags together, or flags that are too few, are usage errors."""
    path = write(tmp_path, "x.toml", contract_toml())
    shell.run("contracts", "set", str(path), "--po", "1", code=2)
    assert "--zone" in shell.run("contracts", "set", "--contract", "x", code=2).stderr


def test_contracts__refused(shell: Shell, tmp_path: Path) -> None:
    """A second contract for one account ends with 3, faults with 2 and their lines."""
    taken = write(tmp_path, "taken.toml", contract_toml("second"))
    assert "COVER_TAKEN" in shell.run("contracts", "set", str(taken), code=3).stderr
    bad = write(tmp_path, "bad.toml", contract_toml().replace("Europe/Berlin", "Mars/Base"))
    assert f"{bad}:4" in shell.run("contracts", "set", str(bad), code=2).stderr


def test_month__from_preview_to_explained_invoice(
    shell: Shell, meter: RunningMeter, tmp_path: Path
) -> None:
    """A month is previewed, closed, listed, shown in every form, and explained."""
    shell.run("billing", "close", "2026-10", code=3)
    use_and_end_month(shell, meter)
    assert "PREVIEW" in shell.run("invoices", "preview", "acme", "--month", "2026-10").stdout
    (draft,) = shell.run_json("invoices", "preview", "acme", "--month", "2026-10")
    preview = tmp_path / "preview.pdf"
    of_month = ("acme", "--month", "2026-10", "--format", "pdf")
    shell.run("invoices", "preview", *of_month, "--out", str(preview))
    assert preview.read_bytes().startswith(b"%PDF-1.7")
    dry = shell.run_json("billing", "close", "2026-10", "--early", "--dry-run")
    assert [it["outcome"] for it in dry["periods"]] == ["DRAFTED"]
    closed = shell.run_json("billing", "close", "2026-10", "--early", "--account", "acme")
    (period,) = closed["periods"]
    number = period["invoice"]["number"]
    assert (period["outcome"], number) == ("ISSUED", "NG-2026-000001")
    assert "issued before" in shell.run("billing", "close", "previous").stdout
    assert number in shell.run("invoices", "list").stdout
    (listed,) = shell.run_json("invoices", "list", "acme", "--month", "2026-10")
    assert listed["total"] == draft["total"] == "4.00"
    shown = shell.run("invoices", "show", number).stdout
    assert "ACME SA" in shown
    html = shell.run("invoices", "show", number, "--format", "html").stdout
    assert html.lower().startswith("<!doctype html")
    rows = list(
        csv.DictReader(
            io.StringIO(shell.run_process("invoices", "show", number, "--format", "csv").stdout)
        )
    )
    assert [row["billed"] for row in rows] == ["3.00", "1.00"]
    assert json.loads(shell.run("invoices", "show", number, "--json").stdout)["total"] == "4.00"
    paper = tmp_path / "invoice.pdf"
    shell.run("invoices", "show", number, "--format", "pdf", "--out", str(paper))
    assert paper.read_bytes().startswith(b"%PDF-1.7")
    nowhere = str(tmp_path / "none" / "invoice.pdf")
    shell.run("invoices", "show", number, "--format", "pdf", "--out", nowhere, code=1)
    explained = shell.run("invoices", "explain", number, "2").stdout
    assert "333,333 tokens × 3 / 1,000,000 = 0.999999 USD" in explained
    assert shell.run_json("invoices", "explain", number, "1")["closed"]
    assert "LINE_NOT_FOUND" in shell.run("invoices", "explain", number, "9", code=1).stderr


def test_show__pdf_on_a_terminal(shell: Shell) -> None:
    """A PDF is no text: a terminal is spared it, and the option that names a file is told."""
    for words in (("show", "NG-2026-000001"), ("preview", "acme")):
        (line,) = shell.run_in_terminal("invoices", *words, "--format", "pdf", columns=100, code=2)
        assert "--out" in line


def test_close__as_a_job_on_the_database(shell: Shell, meter: RunningMeter) -> None:
    """With a database URL the command is a job of its own: no API key, the same result."""
    use_and_end_month(shell, meter)
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("TOKENWORKS_")
    } | {"TOKENWORKS_DATABASE_URL": meter.database_url}

    def job(*words: str, code: int = 0) -> str:
        result = subprocess.run(
            [TOKENWORKS, "billing", "close", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stderr
        return result.stdout + result.stderr

    assert "MONTH_NOT_ENDED" in job("2026-12", code=3)
    assert "ACCOUNT_NOT_FOUND" in job("2026-10", "--account", "nobody", code=1)
    assert "NG-2026-000001" in job("previous", "--early", "--account", "/acme")
    assert "issued before" in job("2026-10")
    (listed,) = shell.run_json("invoices", "list")
    assert listed["sandbox"]


def test_close__holds_what_has_no_price(shell: Shell, meter: RunningMeter, tmp_path: Path) -> None:
    """What is held is named with its key, and who has no contract too; the exit code is 3."""
    thin = book_toml('input = "3"', book="thin")
    shell.run("prices", "import", str(write(tmp_path, "thin.toml", thin)))
    toml = contract_toml("acme-2026", book="thin")
    shell.run("contracts", "set", str(write(tmp_path, "acme.toml", toml)))
    shell.record("--input", "5", account="other")
    use_and_end_month(shell, meter)
    result = shell.run("billing", "close", "2026-10", "--early", code=3)
    assert "no price for 333,333 tokens of llama-4, tier high, output" in result.stdout
    assert "no contract bills the usage of: other" in result.stdout
    told = json.loads(shell.run("billing", "close", "2026-10", "--early", "--json", code=3).stdout)
    assert told["periods"][0]["unpriced"][0]["token_class"] == "output"


@pytest.mark.parametrize("month", ["2026-13", "October", "2026-1", "26-10"])
def test_close__of_no_month(shell: Shell, month: str) -> None:
    """What is no month is a usage error."""
    assert "2026-10" in shell.run("billing", "close", month, code=2).stderr
