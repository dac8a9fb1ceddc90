"""Where power is not known there is no ratio: it is absent, and neither 0 nor infinite."""

import math

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.shell import Shell, to_iso
from tests.efficiency.plant import NOON_MS, Plant
from tests.wire.energy_caller import EDGE_MS
from tests.wire.talk import read_http
from tokenworks.meter.v1 import energy_service_pb2 as pb

HALF_MJ = 630_000_000
VIEW = """
SELECT energy_mj, valid_energy_mj, output_tokens, valid_output_tokens FROM efficiency_hourly
WHERE pool = %s AND boundary = 'board' AND reason = ''
"""


@pytest.fixture(scope="module")
def unlucky(plant: Plant) -> Plant:
    """Tokens without energy, energy without tokens, and a pool of which half is seen."""
    plant.serve({"output": 500}, pool="dark")
    plant.draw(HALF_MJ, pool="heater")
    plant.serve({"output": 700}, pool="half-seen")
    plant.draw(HALF_MJ, pool="half-seen")
    return plant


def test_ratio__of_usage_without_energy(unlucky: Plant) -> None:
    """Tokens are there, their energy is not, and nothing is to be divided."""
    answer = unlucky.ask("POOL", pool="dark")
    (row,) = answer.rows
    assert row.output_tokens == 500
    assert not row.HasField("energy_mj")
    assert not row.HasField("valid_energy_mj")
    assert (row.attributed_output_tokens, row.valid_output_tokens) == (0, 0)
    assert list(answer.pools) == []


def test_ratio__of_energy_without_usage(unlucky: Plant) -> None:
    """Energy is there, and is nobody's: there is no row to make a ratio of."""
    answer = unlucky.ask("POOL", pool="heater")
    assert [row for row in answer.rows if row.HasField("energy_mj")] == []
    (pool,) = answer.pools
    assert [(it.reason, it.energy_mj) for it in pool.unattributed] == [
        (pb.UNATTRIBUTED_REASON_NO_TOKENS, HALF_MJ)
    ]


def test_ratio__where_half_of_the_boards_are_seen(unlucky: Plant) -> None:
    """What is measured is shared out and told; a ratio of it would be twice too good."""
    answer = unlucky.ask("POOL", pool="half-seen")
    (row,) = answer.rows
    assert row.energy_mj == HALF_MJ
    assert not row.HasField("valid_energy_mj")
    assert (row.valid_output_tokens, row.valid_total_tokens) == (0, 0)
    (pool,) = answer.pools
    assert (pool.interval_count, pool.valid_interval_count) == (1, 0)


@pytest.mark.parametrize(
    ("pool", "row"),
    [("dark", (None, None, 500, 0)), ("half-seen", (HALF_MJ, None, 700, 0))],
)
def test_view__has_null(unlucky: Plant, pool: str, row: tuple[int | None, ...]) -> None:
    """In SQL what is not known is NULL, and so is each ratio of it."""
    unlucky.ask(pool=pool)
    with psycopg.connect(unlucky.meter.database_url) as connection:
        assert connection.execute(VIEW, (pool,)).fetchall() == [row]


def test_show__has_no_figure(unlucky: Plant) -> None:
    """The command shows tokens and no ratio."""
    unlucky.ask(pool="dark")
    span = ("--since", to_iso(NOON_MS), "--until", to_iso(NOON_MS + EDGE_MS))
    shell = Shell(unlucky.meter.target, unlucky.meter.api_key)
    shown = shell.run_process("energy", "show", *span, "--pool", "dark")
    (line,) = (line.split() for line in shown.stdout.splitlines() if line.split()[:1] == ["high"])
    assert "500" in line
    assert not {"0", "0.0", "inf", "nan", "∞"} & set(map(str.lower, line))


def test_metrics__are_numbers(unlucky: Plant) -> None:
    """No series of the meter is infinite, or no number at all."""
    _, page = read_http(unlucky.meter, "/metrics")
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            assert math.isfinite(sample.value), sample
