"""What was measured of a pool in an interval, and whether a ratio may be made of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.energy.factory import Pool
from meter.energy.validity import PowerFault

_COVERED_PERCENT_MIN: Final = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredInterval:
    """Energy of a pool's devices (mJ) and their time (ms, added up over the devices).

    `gap_mj` fell into gaps of `gap_ms`, `unmapped_mj` is of devices that nobody described; samples
    cover `covered_ms`. Of so many devices it is known what they used right after the interval's
    begin, and right before its end.
    """

    measured_mj: int
    gap_mj: int
    unmapped_mj: int
    covered_ms: int
    gap_ms: int
    begin_count: int
    end_count: int


def find_fault(
    measured: Mapping[Boundary, MeasuredInterval], *, described: Pool | None
) -> PowerFault | None:
    """Return why a pool's interval gives no ratio, None when it does.

    Boards decide where there are any: it is them that a description counts.
    """
    boards = measured.get(Boundary.BOARD)
    hosts = measured.get(Boundary.HOST)
    found = boards if boards is not None and boards.measured_mj else hosts
    if found is None or not found.measured_mj:
        return PowerFault.NO_SAMPLE
    if found.unmapped_mj:
        return PowerFault.DEVICES
    # Where nobody said how many there are, those at either end should be there all the time: else
    # a meter that began amid the interval would see all tokens and half of the energy.
    device_count = max(1, found.begin_count, found.end_count)
    if found is boards and described is not None and described.device_count is not None:
        device_count = described.device_count
    due_ms = max(found.covered_ms + found.gap_ms, device_count * INTERVAL_MS)
    is_covered = found.covered_ms * 100 >= due_ms * _COVERED_PERCENT_MIN
    return None if is_covered else PowerFault.STALE
