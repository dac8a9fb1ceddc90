"""`tokenworks usage show|export`: what the tokens took stands beside them, where it is known."""

import csv
import io

import psycopg
import pytest

from cli.usage.energy import find_unit, sign_of, write_energy
from cli.usage.table import UsageLine, print_usage
from tests.cli.shell import Shell, shell_of
from tests.running_meter import RunningMeter

KWH_MJ = 3_600_000_000


@pytest.fixture
def shell(running_meter: RunningMeter, database_url: str) -> Shell:
    """A shell; acme has usage at two tiers, and energy is known of one of them."""
    shell = shell_of(running_meter)
    shell.record("--input", "5", "--output", "7", tier="high")
    shell.record("--input", "5", tier="free")
    shell.show("acme", requests=2)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO pool_intervals (pool, interval_start)"
            " SELECT DISTINCT 'h100', interval_start FROM usage"
        )
        connection.execute(
            "INSERT INTO energy_shares (pool, interval_start, boundary, account_id, sku_id, reason,"
            " revision, energy_mj) SELECT 'h100', interval_start, 'board', account_id, sku_id, '',"
            " 1, 1234567 FROM usage JOIN skus USING (sku_id) WHERE tier = 'high'"
        )
    return shell


def test_show__energy(shell: Shell) -> None:
    """The table has a column of energy, and a dash where none is known; so has the JSON."""
    shown = shell.run_process("usage", "show", "acme", "--since", "1h").stdout
    table = [line.split() for line in shown.splitlines() if line.strip(" ─")]
    assert table[1][-3:] == ["requests", "energy", "(kJ)"]
    assert [(row[1], row[-1]) for row in table[2:4]] == [("free", "-"), ("high", "1.235")]
    assert table[4][-1] == "1.235"
    rows = shell.run_json("usage", "show", "acme", "--since", "1h", "--by", "tier")["rows"]
    assert {row["tier"]: row["energy_mj"] for row in rows} == {"free": None, "high": 1_234_567}


def test_export__energy(shell: Shell) -> None:
    """The CSV has millijoules, and nothing where none are known."""
    text = shell.run_process("usage", "export", "acme", "--since", "1h").stdout
    rows = csv.DictReader(io.StringIO(text, newline=""))
    assert {row["tier"]: row["energy_mj"] for row in rows} == {"free": "", "high": "1234567"}


@pytest.mark.parametrize(
    ("energy_mj", "written"),
    [
        (0, "0.000 J"),
        (1, "0.001 J"),
        (999_999, "999.999 J"),
        (1_000_000, "1.000 kJ"),
        (KWH_MJ - 1, "3,600.000 kJ"),
        (KWH_MJ, "1.000 kWh"),
        (1_234_567 * KWH_MJ, "1,234.567 MWh"),
        (-KWH_MJ, "-1.000 kWh"),
    ],
)
def test_write_energy__units(energy_mj: int, written: str) -> None:
    """Energy is in the largest unit that it fills, with three decimals."""
    unit = find_unit(energy_mj)
    assert f"{write_energy(energy_mj, unit=unit)} {sign_of(unit)}" == written


def test_print_usage__no_energy(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no energy is known at all there is no column of it."""
    line = UsageLine(
        keys=("high",),
        tokens={"input": 5},
        request_count=1,
        unfinished_count=0,
        estimated_count=0,
        energy_mj=None,
    )
    print_usage(["tier"], [line])
    assert "energy" not in capsys.readouterr().out
