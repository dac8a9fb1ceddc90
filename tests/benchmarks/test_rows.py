"""Every row of `make bench` at its smallest: it measures, and finds a wrong answer."""

import shutil
import uuid
from collections.abc import Mapping
from typing import Any, Final

import psycopg
import pytest

from benchmarks import streams
from benchmarks.__main__ import ROWS, measure_row
from benchmarks.goals import at_least
from benchmarks.measurement import Measurement, WrongAnswer
from benchmarks.plant import Plant
from benchmarks.recording import Recorded, record_load

# Seconds that a row is told unless it stands below.
SECONDS: Final = 1.0
# How much of its world a second makes, or how long it measures, differs by row.
SIZES: Final[Mapping[str, Mapping[str, float]]] = {
    # Longer than counting may be behind, so that there is something to catch up with.
    "ingest.catch_up": {"seconds": 5.5, "events_per_second": 100_000},
    "ingest.producers_2000": {"producers": 20},
    "design.insert_unique": {"seconds": 0.3},
    "design.upsert_counter": {"seconds": 0.3},
    "design.redis_counter": {"seconds": 0.3},
    "client.record": {"seconds": 0.2},
    "client.asgi_overhead": {"seconds": 0.3},
    "query.account_month": {"seconds": 0.01, "accounts": 30},
    "billing.preview": {"seconds": 0.01, "accounts": 30},
    "billing.close_100k": {"seconds": 0.003},
    "billing.explain": {"seconds": 0.01},
    "spool.append": {"seconds": 0.4},
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
    assert row["ratio"] == pytest.approx(row["value"] / row["bound"], rel=0.01, abs=1e-4)
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
@pytest.mark.parametrize("name", ["ingest.stream", "ingest.events", "sources.otlp"])
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


@pytest.mark.stacks
def test_row__fails_when_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage that nobody sent is found as well."""
    wait = Plant.wait_until_counted

    def wait_and_double(plant: Plant, *, seconds: float) -> float:
        waited = wait(plant, seconds=seconds)
        with psycopg.connect(plant.database_url) as connection:
            connection.execute("UPDATE usage SET request_count = 2 * request_count")
        return waited

    monkeypatch.setattr(Plant, "wait_until_counted", wait_and_double)
    with pytest.raises(WrongAnswer):
        measure_small("ingest.rows")


def test_design__fails_when_an_event_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that the key refused, since its id is another's, is missed."""
    same = uuid.uuid4()
    monkeypatch.setattr("benchmarks.designs.uuid.uuid4", lambda: same)
    with pytest.raises(WrongAnswer):
        measure_small("design.insert_unique")


@pytest.mark.stacks
def test_stream__says_what_is_unmet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting that is late, and events that take too much room, keep a stream's row from ok."""

    def late(plant: Plant, module: str, orders: Mapping[str, Any]) -> Recorded:
        recorded = record_load(plant, module, orders)
        notes = {**recorded.notes, "stored_bytes_per_event": 13.0}
        return Recorded(report=recorded.report, behind_seconds=5.1, notes=notes)

    monkeypatch.setattr(streams, "record_load", late)
    assert measure_small("ingest.stream")["unmet"] == [
        "13.0 bytes stored an event, at most 12 are wanted",
        "counted 5.1 s behind, at most 5 s are wanted",
    ]


def measure_small(name: str) -> dict[str, Any]:
    """Return a row, measured at the smallest size that is honest; skips without its program."""
    if name == "design.redis_counter" and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    return measure_row(name, runs=1, **{"seconds": SECONDS, **SIZES.get(name, {})})
