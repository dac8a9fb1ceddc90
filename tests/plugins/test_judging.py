"""A run is judged by what all of it saw, in however many processes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SEES = """
from tests.plugins.evidence import EVIDENCE


def test_saw_{name}(pytestconfig): pytestconfig.stash[EVIDENCE].rpcs.add("{name}")
"""
JUDGES = """
from tests.plugins.evidence import EVIDENCE


def test_all_was_seen(pytestconfig): assert pytestconfig.stash[EVIDENCE].rpcs == {"a", "b", "c"}
"""


def _run(folder: Path, *arguments: str, seen: str) -> subprocess.CompletedProcess[str]:
    """Run tests that see what is named, in a file each, and one that judges them."""
    tests = folder / "tests"
    tests.mkdir()
    for name in seen:
        (tests / f"test_{name}.py").write_text(SEES.format(name=name), encoding="utf-8")
    (tests / "test_evidence.py").write_text(JUDGES, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n", encoding="utf-8")
    command = ("-m", "pytest", "-p", "xdist", "-p", "tests.plugins.evidence")
    return subprocess.run(
        [sys.executable, *command, "-c", folder / "pytest.ini", "--dist", "loadfile", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
        capture_output=True,
        text=True,
    )


def test_run__is_judged_as_one(tmp_path: Path) -> None:
    """What any of its processes saw is seen, and the judge is one more test that passed."""
    run = _run(tmp_path, "-n", "2", seen="abc")
    assert "4 passed" in run.stdout, run.stdout
    assert run.returncode == 0


@pytest.mark.parametrize("jobs", ["0", "2"])
def test_run__saw_too_little(tmp_path: Path, jobs: str) -> None:
    """What none of its processes saw makes the run red."""
    run = _run(tmp_path, "-n", jobs, seen="ab")
    assert "1 failed, 2 passed" in run.stdout, run.stdout
    assert run.returncode == 1


def test_run__of_some_tests(tmp_path: Path) -> None:
    """A part of the tests is not judged."""
    run = _run(tmp_path, "-n", "2", "-k", "saw_a or all", seen="ab")
    assert "1 passed" in run.stdout, run.stdout
    assert run.returncode == 0
