"""A bill that is proved: replayed from the journal, and its events listed and exported."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from cli.main import tokenworks
from tests.acceptance.counted import wait_until_counted
from tests.billing.town import book_toml, contract_toml
from tests.cli.shell import Shell
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on

OCTOBER = "2026-10-10T00:00:00Z"
NUMBER = "NG-2026-000001"


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A sandbox in November whose October is closed: two events of acme, one of them odd."""
    folder = tmp_path_factory.mktemp("proof")
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings={"sandbox_clock": OCTOBER}) as running,
    ):
        shell = Shell(running.target, running.api_key)
        shell.run("accounts", "create", "acme", "--id", "acme")
        for name, toml in (("prices import", book_toml()), ("contracts set", contract_toml())):
            path = folder / "terms.toml"
            path.write_text(toml, "utf-8")
            shell.run(*name.split(), str(path))
        shell.record("--input", "1000000", "--output", "333333")
        shell.record("--input", "7", "--request-id", "=cmd()")
        wait_until_counted(url)
        shell.run("billing", "clock", "--to", "2026-11-01T08:00:00Z")
        shell.run("billing", "close", "2026-10", "--early")
        yield running


@pytest.fixture
def shell(meter: RunningMeter) -> Shell:
    """Whoever may do everything."""
    return Shell(meter.target, meter.api_key)


def replay(meter: RunningMeter, *words: str, code: int) -> Result:
    """Replay as a job on the meter's database."""
    environment = {"TOKENWORKS_DATABASE_URL": meter.database_url}
    result = CliRunner().invoke(tokenworks, ["billing", "replay", *words], env=environment)
    assert result.exit_code == code, result.output
    return result


def test_replay__of_a_month(meter: RunningMeter) -> None:
    """A month that nobody has touched comes out the same; one without documents says so."""
    assert replay(meter, "2026-10", code=0).stdout == (
        "2026-10: 1 of 1 documents come out the same, byte for byte, from 2 events\n"
    )
    assert replay(meter, "2026-09", code=0).stdout == "2026-09: no documents\n"
    found = json.loads(replay(meter, "2026-10", "--json", code=0).stdout)
    assert (found["documents"], found["different"], found["findings"]) == (1, [], [])
    replay(meter, "October", code=2)
    # As a scheduled job says it; the sandbox's clock stands in November.
    assert replay(meter, "previous", code=0).stdout.startswith("2026-10: 1 of 1 documents")


def test_replay__of_changed_usage(meter: RunningMeter) -> None:
    """A row of usage that was changed by hand is named, and the exit code is 1."""
    change = "UPDATE usage SET input = %s WHERE input < 10"
    with psycopg.connect(meter.database_url, autocommit=True) as connection:
        connection.execute(change, (8,))
        try:
            told = replay(meter, "2026-10", code=1)
            found = json.loads(replay(meter, "2026-10", "--json", code=1).stdout)
        finally:
            connection.execute(change, (7,))
    says = "usage: 2026-10-10T00:00:00Z acme, llama-4, high, input: 7 by the journal, 8 by usage"
    assert told.stdout.startswith(says)
    assert "1 of 1 documents come out the same" in told.stdout
    assert "1 things are not as they were" in told.stderr
    (finding,) = found["findings"]
    assert (finding["kind"], finding["facts"]["usage"]) == ("usage", 8)


def test_explain__lists_events(shell: Shell) -> None:
    """The events of a line are told one by one, as text and as JSON."""
    told = shell.run("invoices", "explain", NUMBER, "1", "--events")
    assert [line.split()[1:3] for line in told.stdout.splitlines()] == [
        ["2026-10-10T00:00:00Z", "1,000,000"],
        ["2026-10-10T00:00:00Z", "7"],
    ]
    assert "2 events, 1,000,007 tokens" in told.stderr
    lines = shell.run("invoices", "explain", NUMBER, "1", "--events", "--json").stdout
    assert [json.loads(it)["tokens"] for it in lines.splitlines()] == [1_000_000, 7]
    assert (
        "LINE_NOT_FOUND"
        in shell.run(*("invoices", "explain", NUMBER, "9", "--events"), code=1).stderr
    )


def test_explain__exports_events(shell: Shell, tmp_path: Path) -> None:
    """CSV and Parquet have the same rows; what a spreadsheet would run is made harmless in CSV."""
    files = [tmp_path / "events.csv", tmp_path / "events.parquet"]
    for path in files:
        shell.run("invoices", "explain", NUMBER, "1", "--events", "--out", str(path))
    rows = list(csv.DictReader(files[0].read_text("utf-8").splitlines()))
    columns = parquet.read_table(files[1]).to_pylist()
    assert [int(it["tokens"]) for it in rows] == [it["tokens"] for it in columns] == [1_000_000, 7]
    assert [it["request_id"] for it in rows] == ["", "'=cmd()"]
    assert [it["request_id"] for it in columns] == ["", "=cmd()"]
    assert list(rows[0]) == list(columns[0])
    assert sorted(it.name for it in tmp_path.iterdir()) == ["events.csv", "events.parquet"]


def test_explain__where_events_cannot_be_written(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another form, a folder that is not there, and Parquet without its extra are each told."""
    explain = ("invoices", "explain", NUMBER, "1")
    shell.run(*explain, "--out", str(tmp_path / "events.csv"), code=2)
    told = shell.run(*explain, "--events", "--out", str(tmp_path / "events.xlsx"), code=2)
    assert "name it .csv or .parquet" in told.stderr
    nowhere = str(tmp_path / "none" / "events.csv")
    assert "cannot be written" in shell.run(*explain, "--events", "--out", nowhere, code=1).stderr
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    told = shell.run(*explain, "--events", "--out", str(tmp_path / "events.parquet"), code=1)
    assert "pip install 'tokenworks[parquet]'" in told.stderr
    assert not list(tmp_path.iterdir())
