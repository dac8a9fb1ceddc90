"""Cells divide time, and no zone's month begins or ends inside a long one."""

from datetime import datetime
from itertools import pairwise, product
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.cell import cell_at, cells_over, divide
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_iso, to_ms

HOUR_MS = 3_600_000
YEAR_2000_MS = 946_684_800_000
# To the middle of 2036.
QUARTERS = st.integers(0, 1_280_000).map(lambda it: YEAR_2000_MS + it * INTERVAL_MS)


def test_cell__around_a_year() -> None:
    """A short cell holds the begin of the month in every zone; long ones lie between."""
    begin_ms = to_ms(datetime.fromisoformat("2026-12-31T10:00Z"))
    cells = list(cells_over(start_ms=begin_ms, end_ms=begin_ms + 60 * 24 * HOUR_MS))
    assert [to_iso(it.start_ms) for it in cells] == [
        "2026-12-31T10:00:00Z",
        "2027-01-01T12:00:00Z",
        "2027-01-31T10:00:00Z",
        "2027-02-01T12:00:00Z",
        "2027-02-28T10:00:00Z",
    ]


@given(QUARTERS)
def test_cell__each_instant_has_one(time_ms: int) -> None:
    """Cells meet: the end of one is the begin of the next, and all of a cell has the same."""
    cell = cell_at(time_ms)
    assert cell.start_ms <= time_ms < cell.end_ms
    assert cell == cell_at(cell.start_ms) == cell_at(cell.end_ms - 1)
    assert cell_at(cell.end_ms).start_ms == cell.end_ms


@pytest.mark.parametrize(
    "years", [range(1980, 2041, 12), pytest.param(range(1980, 2041), marks=pytest.mark.stacks)]
)
def test_cell__no_zone_begins_a_month_inside_a_long_one(years: range) -> None:
    """In every zone, from 1980 to 2040, the local begin of a month lies in a short cell."""
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        for year, month in product(years, range(1, 13)):
            time_ms = to_ms(datetime(year, month, 1, tzinfo=zone))
            cell = cell_at(time_ms)
            inside = cell.start_ms < time_ms < cell.end_ms
            assert not inside or cell.end_ms - cell.start_ms == 26 * HOUR_MS, (name, year, month)


@given(st.lists(QUARTERS, min_size=2, max_size=6, unique=True).map(sorted), QUARTERS)
def test_divide__covers_all_once(edges_ms: list[int], until_ms: int) -> None:
    """Whole cells and the rest are the span, without overlap; no edge lies in a whole cell."""
    division = divide(edges_ms, until_ms=until_ms)
    spans = sorted([*division.rest, *((cell.start_ms, cell.end_ms) for _, cell in division.whole)])
    assert spans[0][0] == edges_ms[0]
    assert spans[-1][1] == edges_ms[-1]
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    for place, cell in division.whole:
        assert edges_ms[place] <= cell.start_ms
        assert cell.end_ms <= min(edges_ms[place + 1], until_ms)


@given(QUARTERS, QUARTERS)
def test_divide__takes_every_whole_cell(first_ms: int, second_ms: int) -> None:
    """Less than a cell is left at either end."""
    start_ms, end_ms = min(first_ms, second_ms), max(first_ms, second_ms) + INTERVAL_MS
    division = divide([start_ms, end_ms], until_ms=end_ms)
    assert len(division.rest) <= 2
    for rest_start_ms, rest_end_ms in division.rest:
        inside = [
            it
            for it in cells_over(start_ms=rest_start_ms, end_ms=rest_end_ms)
            if rest_start_ms <= it.start_ms and it.end_ms <= rest_end_ms
        ]
        assert not inside
