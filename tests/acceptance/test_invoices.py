"""The proof of the second half: an hour of real traffic, billed by both shipped books.

The fleet writes down what it is about to report; the oracle prices each of those events by the
files that were imported, and finds its lines and totals in the database.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from billing.shipped import read_shipped
from tests.acceptance import azure, oracle
from tests.acceptance.counted import wait_until_counted
from tests.billing.town import contract_toml
from tests.cli.shell import Shell
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on

# A Saturday evening in Los Angeles, where the retail book has its windows.
NOW = "2026-10-17T04:30:00Z"
AFTERWARDS = "2026-11-02T00:00:00Z"
MODELS = "glm-5.1,kimi-k2.6,lora/glm-5.1/acme,glm-5.1-fp8"
REQUESTS = 4_000
_ONE_CENT_MORE = """
UPDATE issued_lines SET billed = billed + 0.01, residue = residue - 0.01
WHERE (number, line) = (SELECT number, line FROM issued_lines ORDER BY 1, 2 LIMIT 1)
"""


@pytest.fixture
def meter(cluster: Cluster, tmp_path: Path) -> Iterator[RunningMeter]:
    """A sandbox in mid-October."""
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings={"sandbox_clock": NOW}) as running,
    ):
        yield running


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("book", ["keynote", pytest.param("retail", marks=pytest.mark.stacks)])
def test_traces__billed_as_the_oracle_does(
    meter: RunningMeter, tmp_path: Path, book: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both traces under one book: the oracle's lines and money, and one cent more is seen."""
    shell = Shell(meter.target, meter.api_key)
    files = _write_terms(tmp_path, book=book)
    _report(shell, tmp_path / "truth")
    wait_until_counted(meter.database_url)
    shell.run("prices", "import", str(files["book"]))
    for name in ("north", "south"):
        shell.run("contracts", "set", str(files[name]))
    shell.run("billing", "clock", "--to", AFTERWARDS)
    closed = shell.run_json("billing", "close", "2026-10", "--early")
    assert [it["outcome"] for it in closed["periods"]] == ["ISSUED", "ISSUED"]

    assert _ask_oracle(meter, tmp_path, files) == 0
    assert "lost 0, doubled 0" in capsys.readouterr().out
    with psycopg.connect(meter.database_url, autocommit=True) as connection:
        connection.execute(_ONE_CENT_MORE)
    assert _ask_oracle(meter, tmp_path, files) == 1


def _write_terms(folder: Path, *, book: str) -> dict[str, Path]:
    """Write the shipped book and a contract for each of the fleet's companies."""
    contracts = {
        name: contract_toml(name, covers="", book=book, zone=zone, series=name.upper()).replace(
            '"id:"', f'"/sim-{name}"'
        )
        for name, zone in (("north", "America/Los_Angeles"), ("south", "Pacific/Auckland"))
    }
    files = {"book": folder / "books" / f"{book}.toml"}
    files |= {name: folder / "contracts" / f"{name}.toml" for name in contracts}
    for file, text in zip(files.values(), (read_shipped(book), *contracts.values()), strict=True):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
    return files


def _report(shell: Shell, truth: Path) -> None:
    """Let a fleet report the Azure traces, or a smaller one of their shape."""
    traces = [word for file in azure.files() for word in ("--trace", str(file))]
    printed = shell.run_process(
        *("simulate", "--json", "--out", str(truth), "--models", MODELS, "--resend", "1"),
        *(traces or ["--requests", str(REQUESTS)]),
    ).stdout
    servers = json.loads(printed)["servers"]
    sent = sum(server["sent"] for server in servers)
    assert sent == (azure.REQUESTS if traces else REQUESTS)
    assert sum(server["acknowledged"] for server in servers) == sent


def _ask_oracle(meter: RunningMeter, folder: Path, files: dict[str, Path]) -> int:
    return oracle.main(
        [
            *("--database-url", meter.database_url, "--month", "2026-10"),
            *("--books", str(files["book"].parent), "--contracts", str(files["north"].parent)),
            str(folder / "truth"),
        ]
    )
