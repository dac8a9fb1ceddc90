"""Sweeps: their points are taken of plants whose totals are right, and drawn as they are."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks import growth
from benchmarks.growth import SWEEPS, Sizes, take_sweep
from benchmarks.growth_plots import draw_all, short
from benchmarks.measurement import WrongAnswer
from benchmarks.names import put_down_names
from benchmarks.plant import Plant, running_plant
from benchmarks.recording import Standing

PNG = b"\x89PNG\r\n"
DIMENSIONS = 20_000
SMALL = Sizes(
    seconds=0.3, events_max=10**9, dimensions_max=DIMENSIONS, producers_max=1, workers_max=1
)


@pytest.fixture(scope="module")
def plant() -> Iterator[Plant]:
    """A plant that knows all names, for all sweeps of this module: totals are of what is added."""
    with running_plant(put_down=put_down_names) as running:
        yield running


@pytest.fixture
def small(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each sweep take one point, of that plant."""
    monkeypatch.setattr(growth, "running_plant", lambda *_, **__: nullcontext(plant))
    monkeypatch.setattr(growth, "_BATCHES", (1_000,))
    monkeypatch.setattr(growth, "_DIMENSIONS", (DIMENSIONS,))
    goal = Standing.of(plant).events + 1_000_000
    monkeypatch.setattr(growth, "_goals", lambda _: (goal,))


@pytest.mark.stacks
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("batch", "events_a_batch"),
        ("dimensions", "dimensions"),
        ("producers", "producers"),
        ("workers", "workers"),
        ("journal", "events_in_journal"),
    ],
)
def test_sweep__takes_points(name: str, key: str, tmp_path: Path) -> None:
    """A small sweep has a point that says all that is drawn, and is drawn."""
    sweep = take_sweep(name, SMALL)
    (point,) = sweep["points"]
    assert point[key] > 0
    assert point["events_per_second"] > 0
    assert point["bound"] > 0
    assert sweep["machine"]["cores"] > 0
    (tmp_path / f"growth-{name}.json").write_text(json.dumps(sweep), "utf-8")
    (picture,) = draw_all(tmp_path, tmp_path)
    assert picture.read_bytes().startswith(PNG)


@pytest.mark.stacks
@pytest.mark.usefixtures("small")
def test_sweep__refuses_names_that_are_new(plant: Plant) -> None:
    """A point in which the meter heard of a dimension for the first time is none."""
    with psycopg.connect(plant.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dimensions (account_id, sku_id, pool)"
            " SELECT account_id, sku_id, 'new' FROM dimensions LIMIT 1"
        )
        try:
            with pytest.raises(WrongAnswer):
                take_sweep("batch", SMALL)
        finally:
            connection.execute("DELETE FROM dimensions WHERE pool = 'new'")


@pytest.mark.parametrize(
    ("events_max", "goals"),
    [
        (999_999, []),
        (2_000_000, [1_000_000, 2_000_000]),
        (12_000_000, [1_000_000, 2_000_000, 5_000_000, 10_000_000]),
    ],
)
def test_goals__are_steps_of_powers(events_max: int, goals: list[int]) -> None:
    """The journal has a point at one, two and five of each power of ten, up to the most."""
    assert list(growth._goals(events_max)) == goals  # noqa: SLF001 - the steps that it takes


@pytest.mark.parametrize("name", SWEEPS)
def test_draw__each_sweep(name: str, tmp_path: Path) -> None:
    """Each sweep has a picture of its own, and the same points make the same bytes."""
    (tmp_path / f"growth-{name}.json").write_text(json.dumps(made_up(name)), "utf-8")
    (picture,) = draw_all(tmp_path, tmp_path)
    first = picture.read_bytes()
    assert first.startswith(PNG)
    draw_all(tmp_path, tmp_path)
    assert picture.read_bytes() == first


@pytest.mark.parametrize(
    ("value", "text"), [(300, "300"), (1_000, "1 k"), (3_456_789, "3.46 M"), (10**9, "1,000 M")]
)
def test_short__has_three_digits(value: float, text: str) -> None:
    """A number on an axis has its unit, and three digits that count."""
    assert short(value) == text


def made_up(name: str) -> dict[str, Any]:
    """Return a sweep of three points that nobody took."""
    keys = ("events_a_batch", "dimensions", "producers", "workers", "events_in_journal")
    points = [
        {
            **dict.fromkeys(keys, 10**power),
            "events_per_second": 10_000 * 4**power,
            "bound": 20_000_000,
            "counted_behind_seconds_max": 2.0 + power / 10,
            "stored_bytes_per_event": 40 / power,
            "wal_bytes_per_event": 300 / power,
            "sent_bytes_per_event": 30 / power,
            "processor_seconds_per_million_meter": 3.0 / power,
            "processor_seconds_per_million_meter_loop": 1.5 / power,
            "processor_seconds_per_million_postgres": 2.0 / power,
            "processor_seconds_per_million_load": 0.5 / power,
        }
        for power in (1, 2, 3)
    ]
    machine = {
        "processor": "made up",
        "cores": 2,
        "memory_gib": 8,
        "python": "3.11",
        "date": "2026-11-26",
        "commit": "0123456789",
    }
    return {"sweep": name, "workload": "made up", "machine": machine, "points": points}
