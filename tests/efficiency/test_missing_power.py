"""Where power is not known there is no ratio: it is absent, and neither 0 nor infinite."""

import json
import math

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.shell import Shell, to_iso
from tests.efficiency.noon import BOARD_MJ
from tests.efficiency.plant import NOON_MS, Plant
from tests.wire.energy_caller import EDGE_MS
from tests.wire.talk import read_http
from tokenworks.meter.v1 import energy_service_pb2 as pb

SHOWN = ("--since", to_iso(NOON_MS), "--until", to_iso(NOON_MS + EDGE_MS))
VIEW = """
SELECT energy_mj, valid_energy_mj, output_tokens, valid_output_tokens FROM efficiency_hourly
WHERE pool = %s AND boundary = 'board' AND reason = ''
"""


def test_ratio__of_usage_without_energy(plant: Plant) -> None:
    """Tokens are there, their energy is not, and nothing is to be divided."""
    answer = plant.ask("POOL", pool="dark")
    (row,) = answer.rows
    assert row.output_tokens == 500
    assert not row.HasField("energy_mj")
    assert not row.HasField("valid_energy_mj")
    assert (row.attributed_output_tokens, row.valid_output_tokens) == (0, 0)
    assert list(answer.pools) == []


def test_ratio__of_energy_without_usage(plant: Plant) -> None:
    """Energy is there, and is nobody's: there is no row to make a ratio of."""
    answer = plant.ask("POOL", pool="heater")
    assert [row for row in answer.rows if row.HasField("energy_mj")] == []
    (pool,) = answer.pools
    assert [(it.reason, it.energy_mj) for it in pool.unattributed] == [
        (pb.UNATTRIBUTED_REASON_NO_TOKENS, BOARD_MJ)
    ]


def test_ratio__where_half_of_the_boards_are_seen(plant: Plant) -> None:
    """What is measured is shared out and told; a ratio of it would be twice too good."""
    answer = plant.ask("POOL", pool="half-seen")
    (row,) = answer.rows
    assert row.energy_mj == BOARD_MJ
    assert not row.HasField("valid_energy_mj")
    assert (row.valid_output_tokens, row.valid_total_tokens) == (0, 0)
    (pool,) = answer.pools
    assert (pool.interval_count, pool.valid_interval_count) == (1, 0)


@pytest.mark.parametrize("pool", ["late", "dead"])
def test_ratio__where_half_of_the_time_is_seen(plant: Plant, pool: str) -> None:
    """Boards that came late, or died, give no ratio, though nobody said how many there are."""
    answer = plant.ask("POOL", pool=pool)
    (row,) = answer.rows
    assert row.energy_mj == {"late": 2 * BOARD_MJ // 3, "dead": 2 * BOARD_MJ}[pool]
    assert not row.HasField("valid_energy_mj")
    assert row.valid_output_tokens == 0
    (sums,) = answer.pools
    assert (sums.interval_count, sums.valid_interval_count) == (1, 0)


@pytest.mark.parametrize(
    ("pool", "row"),
    [("dark", (None, None, 500, 0)), ("half-seen", (BOARD_MJ, None, 700, 0))],
)
def test_view__has_null(plant: Plant, pool: str, row: tuple[int | None, ...]) -> None:
    """In SQL what is not known is NULL, and so is each ratio of it."""
    with psycopg.connect(plant.meter.database_url) as connection:
        assert connection.execute(VIEW, (pool,)).fetchall() == [row]


def test_show__has_no_figure(plant: Plant) -> None:
    """The command shows tokens and no ratio."""
    shell = Shell(plant.meter.target, plant.meter.api_key)
    shown = shell.run_process("energy", "show", *SHOWN, "--pool", "dark")
    (line,) = (line.split() for line in shown.stdout.splitlines() if line.split()[:1] == ["high"])
    assert "500" in line
    assert not {"0", "0.0", "inf", "nan", "∞"} & set(map(str.lower, line))


@pytest.mark.parametrize(
    ("pool", "known"),
    [
        ("dark", set()),
        ("half-seen", {"energy_mj"}),
        ("gemini", {"energy_mj", "valid_energy_mj", "output_tokens_per_joule"}),
    ],
)
def test_show__has_null_in_json(plant: Plant, pool: str, known: set[str]) -> None:
    """In JSON what is not known is null, and never a number that is none."""
    shell = Shell(plant.meter.target, plant.meter.api_key)
    shown = shell.run("energy", "show", *SHOWN, "--pool", pool, "--json")
    (row,) = json.loads(shown.stdout, parse_constant=_refuse)["rows"]
    names = ("energy_mj", "valid_energy_mj", "output_tokens_per_joule")
    assert {name for name in names if row[name] is not None} == known


def _refuse(number: str) -> None:
    raise AssertionError(number)


def test_metrics__are_numbers(plant: Plant) -> None:
    """No series of the meter is infinite, or no number at all."""
    _, page = read_http(plant.meter, "/metrics")
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            assert math.isfinite(sample.value), sample
