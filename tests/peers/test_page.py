"""The page of complaints and the tests here are the same list."""

import ast
import re
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
PAGE: Final = FOLDER.parents[1] / "docs/operating/peers-bugs.md"
ROW: Final = re.compile(r"^\| *(\d+) *\|.*\|([^|]*)\|$", re.MULTILINE)
TEST: Final = re.compile(r"`(test_\w+)`")
COMPLAINTS: Final = 37
FAILURES: Final = 8


def names_here() -> set[str]:
    """Return the names of this folder's tests, this module's own left out."""
    return {
        node.name
        for path in FOLDER.glob("test_*.py")
        if path != Path(__file__)
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_page__names_each_test_and_no_other() -> None:
    """Each test stands on the page, and each that the page promises is here."""
    assert set(TEST.findall(PAGE.read_text("utf-8"))) == names_here()


def test_page__decides_on_every_complaint() -> None:
    """All numbers and failures are there, each with its tests or with a dash for none."""
    text = PAGE.read_text("utf-8")
    rows = [(int(number), tests.strip()) for number, tests in ROW.findall(text)]
    assert {number for number, _ in rows} == set(range(1, COMPLAINTS + 1))
    assert [number for number, _ in rows] == sorted(number for number, _ in rows)
    assert all(tests == "–" or TEST.fullmatch(tests.split(", ")[0]) for _, tests in rows)
    assert len({it for it in names_here() if it.startswith("test_failure_")}) == FAILURES
