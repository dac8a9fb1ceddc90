"""The picture of the month."""

import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from cli.demo.month import Outage
from cli.demo.picture import draw
from cli.demo.power import Day, Step
from cli.demo.teams import LATENCY, THROUGHPUT
from cli.demo.world import BEGIN, END, PRICE_CHANGE
from cli.drawing import PictureImpossible

DAY = timedelta(days=1)
STEPS = [
    Step(
        begin=BEGIN + day * DAY,
        end=BEGIN + (day + 1) * DAY,
        output_tokens={"medium": 1_000 * day, "ultra": 300},
        attributed_mj={"medium": 900_000, "ultra": 400_000} if day else {},
        measured_mj={THROUGHPUT: 900_000, LATENCY: 700_000},
    )
    for day in range(32)
]
DAYS = [
    Day(end=BEGIN + (day + 1) * DAY, revenue={"ultra": Decimal(7_500)}, research_tokens=50_000_000)
    for day in range(32)
]
OUTAGES = [Outage(time=PRICE_CHANGE + DAY, seconds=1.5, requests_under_way=3, repeated_batches=2)]


def test_draw__a_month(tmp_path: Path) -> None:
    """The month becomes a PNG."""
    path = tmp_path / "month.png"
    assert STEPS[-1].end <= END
    draw(path, steps=STEPS, days=DAYS, outages=OUTAGES)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 50_000


def test_draw__without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed the extra is told which one it is, and gets no picture."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PictureImpossible, match=r"tokenworks\[demo\]"):
        draw(tmp_path / "month.png", steps=STEPS, days=DAYS, outages=OUTAGES)
    assert not list(tmp_path.iterdir())
