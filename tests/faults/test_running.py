"""When a row is ok, and when it is not."""

from dataclasses import replace

import pytest

from tests.faults.__main__ import row_names
from tests.faults.page import PAGE
from tests.faults.row import ROWS, Row, Seen
from tests.faults.running import to_result
from tests.faults.site import Site
from tests.faults.verdict import Verdict

SEEN = Seen(count=3, what="faults")
GOOD = Verdict(
    sent=10,
    counted=10,
    lost=0,
    doubled=0,
    set_aside=0,
    at_risk_lost=0,
    refused=0,
    difference=None,
)


def nothing(_site: Site) -> Seen:
    """Do nothing."""
    return SEEN


ROW = Row(
    name="r",
    fault="f",
    how="h",
    expected="e",
    act=nothing,
    behind_proxy=False,
    starts_itself=False,
    wants_doubled=False,
)


def test_result__ok() -> None:
    """All counted once and the fault seen: ok."""
    result = to_result(ROW, seen=SEEN, judged=GOOD, undelivered="")
    assert result.ok
    assert (result.seen, result.wrong) == ("3 faults", None)


@pytest.mark.parametrize(
    ("seen", "judged", "undelivered"),
    [
        (replace(SEEN, count=0), GOOD, ""),
        (replace(SEEN, wrong="the second meter died"), GOOD, ""),
        (replace(SEEN, set_aside_min=1), GOOD, ""),
        (SEEN, replace(GOOD, sent=0, counted=0), ""),
        (SEEN, replace(GOOD, lost=1), ""),
        (replace(SEEN, loss_max=1), replace(GOOD, lost=2), ""),
        (SEEN, replace(GOOD, doubled=1), ""),
        (SEEN, replace(GOOD, set_aside=1), ""),
        (SEEN, replace(GOOD, at_risk_lost=1), ""),
        (SEEN, replace(GOOD, refused=1), ""),
        (SEEN, replace(GOOD, difference="usage"), ""),
        (SEEN, GOOD, "east did not deliver all"),
    ],
)
def test_result__not_ok(seen: Seen, judged: Verdict, undelivered: str) -> None:
    """Each single thing that is not as it should be makes the row not ok, and is named."""
    result = to_result(ROW, seen=seen, judged=judged, undelivered=undelivered)
    assert not result.ok
    assert result.wrong


def test_result__within_its_bounds() -> None:
    """A loss within the stated bound, and what a killed sender had not promised, are ok."""
    seen = replace(SEEN, loss_max=2, at_risk_max=1, set_aside_min=1)
    judged = replace(GOOD, counted=6, lost=2, at_risk_lost=1, set_aside=1)
    assert to_result(ROW, seen=seen, judged=judged, undelivered="").ok


def test_result__broken_sender_is_caught() -> None:
    """The row of the broken sender is ok only when something was doubled."""
    broken = replace(ROW, wants_doubled=True)
    assert not to_result(broken, seen=SEEN, judged=GOOD, undelivered="").ok
    assert to_result(broken, seen=SEEN, judged=replace(GOOD, doubled=4), undelivered="").ok


def test_rows__say_what_they_are() -> None:
    """Rows are named and described."""
    assert len(row_names()) >= 25
    assert all(row.fault and row.how and row.expected for row in ROWS.values())


def test_page__has_every_row() -> None:
    """The page of faults tells of each row, in order, what it is and what a run of it gave."""
    text = PAGE.read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == row_names()
    told = [f"{ROWS[name].fault}: {ROWS[name].how} | {ROWS[name].expected}" for name in row_names()]
    assert all(words in line for words, line in zip(told, lines, strict=True))
