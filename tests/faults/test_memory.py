"""When memory has grown, and when it has only been used."""

import pytest

from tests.faults.memory import Sample, growth, table


def series(*mebibytes: int) -> list[Sample]:
    """Return a sample a second."""
    return [
        Sample(seconds=float(number), resident_bytes=value * 2**20)
        for number, value in enumerate(mebibytes)
    ]


def test_growth__of_a_leak() -> None:
    """What grows steadily has grown by what lies between the windows."""
    leak = series(*range(100, 140))
    assert growth(leak, from_seconds=10, window_seconds=5) == pytest.approx(25 / 112)


def test_growth__of_a_peak() -> None:
    """A peak in between is no growth, and neither is one in either window that passes."""
    peaks = series(*[100] * 11, 300, *[100] * 10, 400, 400, *[100] * 10, 300, *[100] * 5)
    assert growth(peaks, from_seconds=10, window_seconds=5) == 0


def test_growth__before_it_counts() -> None:
    """What grows at the start, before the time from which it counts, is no growth."""
    assert growth(series(*range(10), *[100] * 30), from_seconds=10, window_seconds=5) == 0


def test_growth__of_a_run_that_is_too_short() -> None:
    """Windows that meet tell nothing, and that is said."""
    with pytest.raises(ValueError, match="too short"):
        growth(series(*[100] * 14), from_seconds=10, window_seconds=5)


def test_table__has_a_line_for_each_step() -> None:
    """Each step's median stands in its line."""
    lines = table({"meter": series(100, 102, 101, 200, 202, 201, 5)}, step_seconds=3).splitlines()
    assert [line.split() for line in lines[1:]] == [["0.0", "101.0"], ["0.1", "201.0"]]
