"""Whether a ratio may be made of an interval, and why not."""

from typing import Any

import pytest

from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.energy.factory import Pool
from meter.energy.measured import MeasuredInterval, find_fault

BOARD, HOST = Boundary.BOARD, Boundary.HOST
WHOLE = {"measured_mj": 100, "gap_mj": 0, "unmapped_mj": 0, "covered_ms": INTERVAL_MS, "gap_ms": 0}


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
        ([(BOARD, {"covered_ms": 1})], None, None),
        ([(BOARD, {"covered_ms": 94, "gap_ms": 6})], None, "stale"),
        ([(BOARD, {"covered_ms": 95, "gap_ms": 5})], None, None),
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
        ([(HOST, {"covered_ms": 94, "gap_ms": 6})], 16, "stale"),
        ([(BOARD, {"measured_mj": 0}), (HOST, {})], 16, None),
        ([(BOARD, {"covered_ms": 94, "gap_ms": 6}), (HOST, {})], None, "stale"),
        ([(BOARD, {}), (HOST, {"covered_ms": 0, "gap_ms": 6})], None, None),
    ],
)
def test_find__fault(measured: Any, device_count: int | None, fault: str | None) -> None:  # noqa: ANN401
    """Too little covered, other devices than described, no energy: each has its word."""
    assert fault_of(*measured, device_count=device_count) == fault
