"""Every row of `make bench` at its smallest: it measures, and finds a wrong answer."""

import shutil
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Final

import psycopg
import pytest

from benchmarks import streams
from benchmarks.__main__ import ROWS, measure_row
from benchmarks.goals import at_least
from benchmarks.measurement import Measurement, WrongAnswer
from benchmarks.plant import Plant
from benchmarks.recording import Recorded

# Seconds that a row is told unless it stands below.
SECONDS: Final = 0.3
# How much of its world a second makes, or how long it measures, differs by row.
SIZES: Final[Mapping[str, Mapping[str, float]]] = {
    # Longer than counting may be behind, so that there is something to catch up with.
    "ingest.catch_up": {"seconds": 5.5, "events_per_second": 100_000},
    # A batch a second.
    "ingest.producers_2000": {"seconds": 1.0, "producers": 20},
    "query.account_month": {"seconds": 0.01, "accounts": 30},
    "billing.preview": {"seconds": 0.01, "accounts": 30},
    "billing.close_100k": {"seconds": 0.003},
    "billing.explain": {"seconds": 0.01},
    "spool.open": {"seconds": 0.1},
}
# The others start a meter, or make a world, and take seconds.
CHEAP: Final = {"design.insert_unique", "spool.append", "spool.open"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in CHEAP else pytest.mark.stacks) for name in ROWS],
)
def test_row__measures_and_checks_its_answer(name: str) -> None:
    """A row's small size is measured, its answer is right, and it says all that a reader needs."""
    row = measure_small(name)
    assert row["value"] > 0
    assert row["bound"] > 0
    assert row["runs"] == [row["value"]]
    assert row["ratio"] > 0
    assert row["unit"] == ROWS[name][1]
    assert row["workload"]
    assert row["bound_of"]
    assert isinstance(row["ok"], bool)


def test_row__is_not_ok_with_something_unmet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row whose speed is enough is not ok when what it asks beside that was not found."""
    found: list[str] = []

    def measured(_: float) -> Measurement:
        return Measurement(value=2.0, bound=1.0, bound_of="b", workload="w", unmet=tuple(found))

    monkeypatch.setitem(ROWS, "a.row", (measured, "s", at_least(2)))
    assert measure_row("a.row", seconds=1, runs=3)["ok"]
    found.append("too old")
    row = measure_row("a.row", seconds=1, runs=3)
    assert not row["ok"]
    assert row["unmet"] == ["too old"]


@pytest.mark.stacks
@pytest.mark.parametrize("name", ["ingest.stream", "ingest.events"])
def test_row__fails_when_usage_is_lost(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of usage that is gone is found: no speed is told."""
    wait = Plant.wait_until_counted

    def wait_and_lose(plant: Plant, *, seconds: float) -> float:
        waited = wait(plant, seconds=seconds)
        with psycopg.connect(plant.database_url) as connection:
            connection.execute("DELETE FROM usage WHERE ctid = (SELECT ctid FROM usage LIMIT 1)")
        return waited

    monkeypatch.setattr(Plant, "wait_until_counted", wait_and_lose)
    with pytest.raises(WrongAnswer):
        measure_small(name)


def test_design__fails_when_an_event_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that the key refused, since its id is another's, is missed."""
    same = uuid.uuid4()
    monkeypatch.setattr("benchmarks.designs.uuid.uuid4", lambda: same)
    with pytest.raises(WrongAnswer):
        measure_small("design.insert_unique")


def test_stream__says_what_is_unmet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting that is late, and events that take too much room, keep a stream's row from ok."""
    recorded = Recorded(
        report={"events": 80_000_000, "seconds": 10.0},
        behind_seconds=5.1,
        notes={"stored_bytes_per_event": 13.0},
    )
    monkeypatch.setattr(streams, "running_plant", nullcontext)
    monkeypatch.setattr(streams, "record_load", lambda *_: recorded)
    monkeypatch.setattr(streams, "copy_rate", lambda _: 20_000_000.0)
    row = measure_small("ingest.stream")
    assert row["value"] == 8_000_000
    assert row["unmet"] == [
        "13.0 bytes stored an event, at most 12 are wanted",
        "counted 5.1 s behind, at most 5 s are wanted",
    ]
    assert not row["ok"]


def measure_small(name: str) -> dict[str, Any]:
    """Return a row, measured at the smallest size that is honest; skips without its program."""
    if name == "design.redis_counter" and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    return measure_row(name, runs=1, **{"seconds": SECONDS, **SIZES.get(name, {})})
