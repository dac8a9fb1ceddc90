"""The closing line of a run, and the option that makes a skip red."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SKIPPING = """
import pytest


def test_green(): ...


@pytest.mark.skip(reason="no node")
def test_skipped(): ...


@pytest.mark.xfail
def test_expected_failure(): assert False
"""


@pytest.mark.parametrize(
    ("text", "arguments", "line", "status"),
    [
        ("def test_green(): ...", [], "skipped: 0 (none)", 0),
        ("def test_green(): ...", ["--skips-are-errors"], "skipped: 0 (none)", 0),
        (SKIPPING, [], "skipped: 1 (1 × no node)", 0),
        (SKIPPING, ["--skips-are-errors"], "skipped: 1 (1 × no node)", 1),
        ("import pytest\npytest.skip('no npm', allow_module_level=True)", [], "skipped: 1", 5),
        (SKIPPING, ["-n", "2", "--skips-are-errors"], "skipped: 1 (1 × no node)", 1),
        ("def test_red(): assert False", ["--skips-are-errors"], "skipped: 0 (none)", 1),
    ],
)
def test_run__ends_with_its_skips(
    tmp_path: Path, text: str, arguments: list[str], line: str, status: int
) -> None:
    """The last line counts the skips and names why; with the option they fail the run."""
    (tmp_path / "test_of_a_run.py").write_text(text, encoding="utf-8")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *("-p", "tests.plugins.skips", "-p", "no:cacheprovider"),
            *("--rootdir", tmp_path, "-c", "/dev/null", tmp_path),
            *arguments,
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.stdout.splitlines()[-1].startswith(line)
    assert run.returncode == status
