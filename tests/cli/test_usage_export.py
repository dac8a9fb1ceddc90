"""`tokenworks usage export`: the real command against a real meter."""

import csv
import io
import json
from collections import Counter

import pytest

from cli.process import Exit
from cli.usage.query import TOKEN_CLASSES
from meter.domain.limits import QUERY_ROWS_MAX
from tests.cli.shell import Shell, shell_of, to_iso
from tests.running_meter import RunningMeter
from tokenworks.client import Meter
from tokenworks.client.clock import time_ns

INTERVAL_MS = 900_000
TIERS = ("free", "medium", "high", "premium", "ultra")


@pytest.fixture
def shell(running_meter: RunningMeter) -> Shell:
    """A shell; there are acme, acme/team and other."""
    return shell_of(running_meter)


def test_export__is_csv(shell: Shell) -> None:
    """An export is RFC 4180: a header, a row for each interval, every token class a column."""
    edge_ms = (time_ns() // 1_000_000 // INTERVAL_MS - 200) * INTERVAL_MS
    model = 'a "b", c'
    for ago in (0, 1, 150):
        words = ("--end-time", to_iso(edge_ms + ago * INTERVAL_MS), "--input", str(ago + 1))
        event = ("--account", "acme", "--model", model, "--tier", "high", *words)
        shell.run("usage", "record", *event, "--output", "3")
    shell.show("--since", "7d", requests=3)
    result = shell.run_process("usage", "export", "acme", "--since", "7d")
    text = result.stdout
    assert text.count("\r\n") == text.count("\n") == 4
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["interval_start"] for row in rows] == [
        to_iso(edge_ms + ago * INTERVAL_MS) for ago in (0, 1, 150)
    ]
    assert rows[0]["interval_end"] == rows[1]["interval_start"]
    assert [(row["input"], row["output"]) for row in rows] == [("1", "3"), ("2", "3"), ("151", "3")]
    assert {row["model"] for row in rows} == {model}
    assert set(TOKEN_CLASSES.values()) < rows[0].keys()
    assert "3 rows, counted until 20" in result.stderr


def test_export__as_json(shell: Shell) -> None:
    """As JSON, each row is a line."""
    shell.record("--input", "5")
    shell.show(requests=1)
    lines = shell.run("usage", "export", "--since", "1h", "--by", "mode", "--json").stdout
    (row,) = map(json.loads, lines.splitlines())
    assert (row["mode"], row["tokens"], "start_time" in row) == ("online", {"input": 5}, True)


def test_export__by_a_time(empty_shell: Shell) -> None:
    """The interval is always in an export, and cannot be asked for again."""
    words = ("usage", "export", "--since", "1h", "--by", "day")
    assert "always there" in empty_shell.run(*words, code=Exit.USAGE).stderr


@pytest.mark.stacks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_export__of_more_rows_than_an_answer_has(running_meter: RunningMeter, shell: Shell) -> None:
    """All rows are there, each once, when one answer cannot hold a day, and not an interval."""
    shell.run("accounts", "create", "wide", "--id", "wide")
    edge_ms = (time_ns() // 1_000_000 // INTERVAL_MS - 200) * INTERVAL_MS
    wide_count, event_count = QUERY_ROWS_MAX + 5, QUERY_ROWS_MAX + 35
    expected = Counter[tuple[str, str]]()
    with Meter(running_meter.target, api_key=running_meter.api_key, account="wide") as meter:
        for place in range(event_count):
            end_ms = edge_ms + max(0, place - wide_count) * INTERVAL_MS
            tier, model = TIERS[place % len(TIERS)], f"m{place // len(TIERS)}"
            meter.record(model=model, tier=tier, input=place + 1, end_time=end_ms / 1000)
            expected[to_iso(end_ms), tier] += place + 1
        assert meter.flush(timeout_seconds=60)
    shell.show("--since", "7d", "--by", "tier", requests=event_count)
    text = shell.run_process("usage", "export", "--since", "7d").stdout
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == event_count
    found = Counter[tuple[str, str]]()
    for row in rows:
        found[row["interval_start"], row["tier"]] += int(row["input"])
    assert found == expected
    starts = [row["interval_start"] for row in rows]
    assert starts == sorted(starts)


def test_export__of_a_time_that_is_none(empty_shell: Shell) -> None:
    """A question that is wrong ends with what is wrong, and is not taken for one too big."""
    said = empty_shell.run("usage", "export", "--since", "0001-01-01", code=Exit.USAGE).stderr
    assert "start_time must be between 1970 and 9999" in said
