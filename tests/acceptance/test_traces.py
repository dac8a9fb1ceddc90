"""The proof: an hour of real traffic, a killed meter, and every token counted once."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from cli.simulate.trace import generated_trace
from tests.acceptance import azure, checker
from tests.acceptance.counted import wait_until, wait_until_counted
from tests.running_meter import RunningMeter

TOKENWORKS = Path(sys.executable).parent / "tokenworks"
SERVERS = 4
# Replays the hour in twenty seconds: long enough that the kill hits in the middle.
SPEED = 180
REPLAY_SECONDS_MAX = 150
WAIT_SECONDS_MAX = 60
SEED = 1

_WAITING = """
SELECT count(*) > 0 FROM pg_locks
WHERE NOT granted AND relation = %s::regclass
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ONE_TOKEN_MORE = """
UPDATE usage SET output = output + %s WHERE (account_id, interval_start, sku_id, band) =
    (SELECT account_id, interval_start, sku_id, band FROM usage ORDER BY 1, 2, 3, 4 LIMIT 1)
"""


@pytest.mark.stacks
@pytest.mark.timeout(400)
def test_replay__killed_meter(running_meter: RunningMeter, tmp_path: Path) -> None:
    """Resent batches and a kill -9 in mid-commit change nothing: truth = journal = usage."""
    truth = tmp_path / "truth"
    with _replay(running_meter, truth=truth) as replay:
        wait_until(
            lambda: _count_lines(truth) > azure.REQUESTS // 3,
            seconds_max=WAIT_SECONDS_MAX,
            what="a third of the requests is reported",
        )
        _kill_in_mid_commit(running_meter, truth=truth)
        running_meter.restart()
        answer = _answer(replay)

    servers = answer["servers"]
    assert len(servers) == SERVERS
    assert sum(server["sent"] for server in servers) == azure.REQUESTS
    for server in servers:
        assert server["acknowledged"] == server["sent"]
        assert server["dropped"] == server["set_aside"] == 0
        assert server["streams"] >= 2, "the kill broke every stream"
    assert sum(server["resent_batches"] for server in servers) >= 1
    assert sum(server["repeated_batches"] for server in servers) >= 1, "none was in flight"

    wait_until_counted(running_meter.database_url)
    assert _sums_of_truth(truth) == _sums_of_traces()
    assert _check(running_meter, truth) == 0
    _assert_checker_fails_on_falsehoods(running_meter, truth)


@contextmanager
def _replay(meter: RunningMeter, *, truth: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the fleet beside the block, on the Azure traces or one of their shape and size."""
    files = azure.files()
    traces = [word for file in files for word in ("--trace", str(file))]
    if not files:
        traces = ["--requests", str(azure.REQUESTS)]
    options = [
        *("--server", meter.target, "--api-key", meter.api_key, "--json"),
        *("--servers", str(SERVERS), "--speed", str(SPEED), "--seed", str(SEED)),
        *("--resend", "1", "--out", str(truth)),
    ]
    process = subprocess.Popen(
        [TOKENWORKS, "simulate", *options, *traces],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _answer(replay: subprocess.Popen[str]) -> Any:  # noqa: ANN401 - JSON
    printed, errors = replay.communicate(timeout=REPLAY_SECONDS_MAX)
    assert replay.returncode == 0, f"{printed}\n{errors}"
    return json.loads(printed)


def _kill_in_mid_commit(meter: RunningMeter, *, truth: Path) -> None:
    """Kill the meter while it moves the watermark of usage and, beside that, writes a segment."""
    with psycopg.connect(meter.database_url) as connection:
        # From here on these tables can be read and their rows be locked, but nothing be written:
        # usage gets its sums and not its watermark, producers are locked and get no segment.
        for table in ("counting", "journal"):
            connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier(table)))
            wait_until(
                partial(_query, connection, _WAITING, table),
                seconds_max=WAIT_SECONDS_MAX,
                what=f"the meter is about to write to {table}",
            )
        recorded = _query(connection, "SELECT coalesce(sum(event_count), 0) FROM journal")
        meter.kill()
        assert 0 < recorded < _count_lines(truth) < azure.REQUESTS, "not in the middle"
        connection.rollback()


def _query(connection: psycopg.Connection, statement: LiteralString, *values: str) -> Any:  # noqa: ANN401
    row = connection.execute(statement, values).fetchone()
    assert row is not None
    return row[0]


def _assert_checker_fails_on_falsehoods(meter: RunningMeter, truth: Path) -> None:
    """One token, one line and one segment: each alone is found in all this data."""
    with psycopg.connect(meter.database_url, autocommit=True) as connection:
        connection.execute(_ONE_TOKEN_MORE, (1,))
        assert _check(meter, truth) == 1
        connection.execute(_ONE_TOKEN_MORE, (-1,))
        assert _check(meter, truth) == 0

        file = min(truth.glob("*.jsonl"))
        text = file.read_text("utf-8")
        file.write_text(text.replace('"input": ', '"input": 1', 1), "utf-8")
        assert _check(meter, truth) == 1
        file.write_text(text, "utf-8")
        assert _check(meter, truth) == 0

        deleted = connection.execute("DELETE FROM journal WHERE (shard, position) = (0, 2)")
        assert deleted.rowcount == 1
        assert _check(meter, truth) == 1


def _check(meter: RunningMeter, truth: Path) -> int:
    return checker.main(["--database-url", meter.database_url, str(truth)])


def _count_lines(truth: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in truth.glob("*.jsonl"))


def _sums_of_truth(truth: Path) -> tuple[int, int, int]:
    """Requests, prompt tokens and generated tokens of the truth files."""
    requests = 0
    tokens: Counter[str] = Counter()
    for path in truth.glob("*.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            requests += 1
            tokens.update(json.loads(line)["classes"])
    prompt = tokens.pop("input") + tokens.pop("cache_read")
    return requests, prompt, tokens.total()


def _sums_of_traces() -> tuple[int, int, int]:
    """The same three of the traces that were replayed."""
    if azure.files():
        return azure.REQUESTS, azure.CONTEXT_TOKENS, azure.GENERATED_TOKENS
    trace = generated_trace(request_count=azure.REQUESTS, seed=SEED)
    prompt = sum(arrival.context_count for arrival in trace)
    return len(trace), prompt, sum(arrival.generated_count for arrival in trace)
