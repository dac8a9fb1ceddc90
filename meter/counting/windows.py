"""How a span of time is cut up, so that an audit holds little of it at a time; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from meter.counting.audit import Window
from meter.domain.event import Int64Array
from meter.domain.interval import INTERVAL_MS

_DAY_MS: Final = 24 * 3600 * 1000
# Rows of usage in one window: some 100 MiB with all of their columns. One interval is the least.
_ROWS_MAX: Final = 300_000
# Events in one window, whose ids are compared with each other.
_EVENTS_MAX: Final = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A run of positions of a shard, and between which times (ms, both inclusive) it has events."""

    shard: int
    first_position: int
    last_position: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Rows of usage, and events of segments that begin there, by interval; starts are sorted."""

    start_ms: Int64Array
    row_count: Int64Array
    event_count: Int64Array


def cut_into_windows(
    weights: Weights, *, extents: Sequence[Extent], span: Window
) -> Iterator[Window]:
    """Yield windows in order that hold all there is: at most a day, less where there is much.

    Time in which nothing can lie is left out.
    """
    firsts = np.array([each.first_ms for each in extents], np.int64)
    lasts = np.array([each.last_ms for each in extents], np.int64)
    at_ms = span.start_ms
    while at_ms < span.end_ms:
        ahead = np.maximum(firsts[lasts >= at_ms], at_ms)
        place = int(np.searchsorted(weights.start_ms, at_ms))
        nearest = [int(ahead.min())] if len(ahead) else []
        if place < len(weights.start_ms):
            nearest.append(int(weights.start_ms[place]))
        if not nearest:
            return
        begin_ms = min(nearest) // INTERVAL_MS * INTERVAL_MS
        if begin_ms >= span.end_ms:
            return
        end_ms = min(_end_of(weights, begin_ms), span.end_ms)
        yield Window(start_ms=begin_ms, end_ms=end_ms)
        at_ms = end_ms


def _end_of(weights: Weights, begin_ms: int) -> int:
    end_ms = (begin_ms // _DAY_MS + 1) * _DAY_MS
    first = int(np.searchsorted(weights.start_ms, begin_ms))
    last = int(np.searchsorted(weights.start_ms, end_ms))
    too_much = (np.cumsum(weights.row_count[first:last]) > _ROWS_MAX) | (
        np.cumsum(weights.event_count[first:last]) > _EVENTS_MAX
    )
    if not too_much.any():
        return end_ms
    full = int(weights.start_ms[first + int(np.argmax(too_much))])
    return max(full, begin_ms + INTERVAL_MS)
