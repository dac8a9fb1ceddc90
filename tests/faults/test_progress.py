"""Which of what was said of a long request has to count."""

from pathlib import Path

from tests.acceptance.checker import Row
from tests.faults.events import Source, Truth
from tests.faults.progress import Resolved, resolve

END_MS = 1_790_000_000_000


def said(folder: Path, *outputs: int, promised: int) -> Path:
    """Write what was said of one request, x-1, by its output."""
    truth = Truth(folder / "x.jsonl")
    event = Source("x").draw(end_ms=END_MS)
    for output in outputs:
        truth.append([event | {"classes": {"input": 5, "output": output}}])
    truth.promise(promised)
    return folder / "x.jsonl"


def resolved(path: Path, *, output: int | None) -> Resolved:
    """Resolve against a journal that holds the request with this output, or not at all."""
    row = Row(1, END_MS + 7, {"input": 5, "output": output or 0, "reasoning": 0}, "x-1")
    return resolve(path, counted={} if output is None else {"x-1": row})


def test_resolve__newer_than_promised(tmp_path: Path) -> None:
    """Anything said since the last promise may count."""
    found = resolved(said(tmp_path, 1, 2, 3, promised=1), output=2)
    assert [event["classes"]["output"] for event in found.events] == [2]
    assert (found.older_count, found.events[0]["end_time_ms"]) == (0, END_MS + 7)


def test_resolve__older_than_promised(tmp_path: Path) -> None:
    """Less than what was promised is noticed."""
    assert resolved(said(tmp_path, 1, 2, 3, promised=3), output=2).older_count == 1


def test_resolve__never_said(tmp_path: Path) -> None:
    """Counts that nobody said are held against the last thing said."""
    found = resolved(said(tmp_path, 1, 2, promised=2), output=9)
    assert [event["classes"]["output"] for event in found.events] == [2]


def test_resolve__missing(tmp_path: Path) -> None:
    """A request that was promised and is not counted stays in the truth, and so is lost."""
    path = said(tmp_path, 1, 2, promised=2)
    assert [event["classes"]["output"] for event in resolved(path, output=None).events] == [2]


def test_resolve__missing_and_never_promised(tmp_path: Path) -> None:
    """One that never reached the disk is told apart."""
    found = resolved(said(tmp_path, 1, promised=0), output=None)
    assert (found.events, found.unpromised_count) == ([], 1)
