"""The page of performance: its tables and pictures are of what was measured."""

import json
from pathlib import Path

from benchmarks.__main__ import ROWS
from benchmarks.growth import IMAGES, MEASURED
from benchmarks.page import PAGE, made


def test_page__is_fresh() -> None:
    """The page has the tables that the program makes now, and each picture that it shows."""
    text = PAGE.read_text("utf-8")
    assert made(text) == text, "python -m benchmarks.page"
    for path in MEASURED.glob("growth-*.json"):
        assert (IMAGES / f"{path.stem}.png").exists(), "python -m benchmarks.growth --plot"


def test_page__says_what_was_measured(tmp_path: Path) -> None:
    """A row that was taken stands with its value, and with what it asked and did not find."""
    machine = {"date": "2026-11-26", "commit": "0123456789"}
    taken = {"value": 3_456_789.1, "bound": 24_700_000.0, "ok": False, "unmet": ["too old"]}
    rows = {"ingest.stream": {**taken, "machine": machine}}
    (tmp_path / "bench.json").write_text(json.dumps(rows), "utf-8")
    (tmp_path / "growth-batch.json").write_text(json.dumps({"workload": "8 streams"}), "utf-8")
    text = made(PAGE.read_text("utf-8"), measured=tmp_path)
    assert (
        "| `ingest.stream` | events/s | ≥ 7,000,000 | 3,460,000 | 24,700,000 | no; too old"
        " | 2026-11-26, `0123456789` |"
    ) in text
    assert "![Batches: 8 streams](../images/growth-batch.png)" in text
    assert all(f"| `{name}` |" in text for name in ROWS)
