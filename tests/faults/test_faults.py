"""A few rows as `make faults` runs them."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults.__main__ import run_rows

ROWS = [
    "meter-killed-after-commit",
    "replica-killed",
    "postgres-killed",
    "self-test-naive-retry",
]


@pytest.mark.stacks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rows__run_and_are_ok(tmp_path: Path) -> None:
    """Kills of meters and of Postgres lose and double nothing; a broken sender is caught."""
    out = tmp_path / "faults.json"
    results = run_rows(ROWS, seconds=2, keep=tmp_path / "faults", out=out)
    assert {name: it.wrong for name, it in results.items()} == dict.fromkeys(ROWS)
    assert all(it.ok for it in results.values())
    assert results["self-test-naive-retry"].doubled > 0
    assert json.loads(out.read_text("utf-8")) == {name: asdict(it) for name, it in results.items()}
