"""Sweeps: their points are taken of plants whose totals are right, and drawn as they are."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks import growth
from benchmarks.growth import SWEEPS, Sizes, take_sweep
from benchmarks.growth_plots import draw_all, short
from benchmarks.measurement import WrongAnswer
from benchmarks.names import put_down_names

SMALL = Sizes(seconds=0.3, events_max=1_000_000, dimensions_max=1_000, producers_max=1)
PNG = b"\x89PNG\r\n"


@pytest.mark.stacks
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("batch", "events_a_batch"),
        ("dimensions", "dimensions"),
        ("producers", "producers"),
        ("journal", "events_in_journal"),
    ],
)
def test_sweep__takes_points(
    name: str, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A small sweep has a point that says all that is drawn, and is drawn."""
    monkeypatch.setattr(growth, "_BATCHES", (1_000,))
    monkeypatch.setattr(growth, "_JOURNAL_FIRST", 100_000)
    monkeypatch.setattr(growth, "_STEPS", (5,))
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
def test_sweep__refuses_names_that_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """A point in which the meter heard of a dimension for the first time is none."""

    def put_down_less(url: str, *, accounts: int) -> None:
        put_down_names(url, accounts=accounts)
        with psycopg.connect(url) as connection:
            connection.execute("DELETE FROM dimensions")
            connection.execute("DELETE FROM skus")
            connection.execute(
                "INSERT INTO skus (model, served_model, tier, mode, region)"
                " VALUES ('m', 'm', 'free', 1, '')"
            )
            connection.execute(
                "INSERT INTO dimensions (account_id, sku_id, pool)"
                " SELECT account_id, sku_id, 'a' FROM accounts, skus"
            )

    monkeypatch.setattr(growth, "put_down_names", put_down_less)
    with pytest.raises(WrongAnswer):
        take_sweep("dimensions", SMALL)


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
    keys = ("events_a_batch", "dimensions", "producers", "events_in_journal")
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
