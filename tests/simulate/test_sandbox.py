"""A fleet that reports to a sandbox: its trace is laid onto the sandbox's clock."""

import json
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.running_meter import TOKENWORKS, running_meter_on
from tests.simulate.fake_meter import read_truth

# 2026-10-05T12:00:00Z.
NOW_MS = 1_791_201_600_000
TOTAL = (
    "SELECT sum(request_count)::int, sum(input + cache_read + output + reasoning)::int FROM usage"
)


@pytest.mark.parametrize("speed", ["0", "50"])
def test_simulate__on_a_driven_clock(database_url: str, tmp_path: Path, speed: str) -> None:
    """The last request ends at the sandbox's now, nothing is set aside, and all is counted."""
    settings = {"sandbox_clock": "2026-10-05T12:00:00Z"}
    out = tmp_path / "out"
    command = ["simulate", "--servers", "2", "--requests", "300", "--speed", speed, "--json"]
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as meter:
        done = subprocess.run(
            [TOKENWORKS, *command, "--out", out],
            env=meter.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        moved = subprocess.run(
            [TOKENWORKS, "billing", "clock", "--to", "2026-10-06", "--json"],
            env=meter.environment,
            capture_output=True,
            text=True,
            check=True,
        )
    servers = json.loads(done.stdout)["servers"]
    assert [sum(each[name] for each in servers) for name in ("sent", "set_aside")] == [300, 0]
    assert "SANDBOX" in done.stderr
    truth = read_truth(out)
    assert max(event["end_time_ms"] for event in truth) == NOW_MS
    # The midnight's cut has waited for counting.
    assert json.loads(moved.stdout)["cuts"] == 1
    tokens = sum(sum(event["classes"].values()) for event in truth)
    with psycopg.connect(database_url) as connection:
        assert connection.execute(TOTAL).fetchone() == (300, tokens)
