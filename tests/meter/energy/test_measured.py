"""Whether a ratio may be made of an interval, and why not."""

from typing import Any

import pytest

from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.energy.factory import Pool
from meter.energy.measured import MeasuredInterval, find_fault

BOARD, HOST = Boundary.BOARD, Boundary.HOST
WHOLE = {
    "measured_mj": 100,
    "gap_mj": 0,
    "unmapped_mj": 0,
    "covered_ms": INTERVAL_MS,
    "gap_ms": 0,
    "begin_count": 1,
    "end_count": 1,
}
# 94 % of it, and the rest in gaps.
SEEN_94 = {"covered_ms": 846_000, "gap_ms": 54_000}


def fault_of(*measured: tuple[Boundary, dict[str, int]], device_count: int | None) -> str | None:
    """Return why intervals that differ so from one board that is covered give no ratio."""
    described = Pool(
        pool="p",
        site="s",
        hardware="h",
        device_count=device_count,
    )
    found = {boundary: MeasuredInterval(**{**WHOLE, **others}) for boundary, others in measured}
    assert device_count is not None or find_fault(found, described=None) == find_fault(
        found, described=described
    )
    return find_fault(found, described=described)


@pytest.mark.parametrize(
    ("measured", "device_count", "fault"),
    [
        ([(BOARD, {})], None, None),
        ([(BOARD, {"covered_ms": 854_999})], None, "stale"),
        ([(BOARD, {"covered_ms": 855_000})], None, None),
        ([(BOARD, SEEN_94)], None, "stale"),
        ([(BOARD, {"covered_ms": 855_000, "gap_ms": 45_000})], None, None),
        # Who is there at either end, which nobody described, should be there all the time.
        ([(BOARD, {"covered_ms": 8 * 900_000, "begin_count": 0, "end_count": 16})], None, "stale"),
        ([(BOARD, {"covered_ms": 15 * 900_000, "begin_count": 16, "end_count": 0})], None, "stale"),
        ([(BOARD, {"covered_ms": 31 * 450_000, "begin_count": 16, "end_count": 15})], None, None),
        ([(BOARD, {"covered_ms": 854_999, "begin_count": 0, "end_count": 0})], None, "stale"),
        # What is described counts, whoever is there.
        ([(BOARD, {"begin_count": 2, "end_count": 2})], 1, None),
        ([(BOARD, {"covered_ms": 2 * 855_000})], 2, None),
        ([(BOARD, {"covered_ms": 2 * 855_000 - 1})], 2, "stale"),
        # More boards than are described do not make up for their gaps.
        ([(BOARD, {"covered_ms": 94 * 900_000, "gap_ms": 6 * 900_000})], 2, "stale"),
        ([(BOARD, {"unmapped_mj": 1})], 1, "devices"),
        ([(BOARD, {"unmapped_mj": 1, "covered_ms": 0})], 1, "devices"),
        ([], None, "no_sample"),
        ([(BOARD, {"measured_mj": 0})], None, "no_sample"),
        # Hosts count where there are no boards; how many they are nobody describes.
        ([(HOST, {})], 16, None),
        ([(HOST, SEEN_94)], 16, "stale"),
        ([(HOST, {"begin_count": 2})], 16, "stale"),
        ([(BOARD, {"measured_mj": 0}), (HOST, {})], 16, None),
        ([(BOARD, SEEN_94), (HOST, {})], None, "stale"),
        ([(BOARD, {}), (HOST, {"covered_ms": 0, "gap_ms": 6})], None, None),
    ],
)
def test_find__fault(measured: Any, device_count: int | None, fault: str | None) -> None:  # noqa: ANN401
    """Too little covered, other devices than described, no energy: each has its word."""
    assert fault_of(*measured, device_count=device_count) == fault
