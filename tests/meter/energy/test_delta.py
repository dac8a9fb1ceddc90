"""What readings add, by interval: which devices are there at an interval's edges."""

from itertools import pairwise

from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.energy.delta import EnergyDelta, Span

H100 = (Boundary.BOARD, "h100")
EDGE = INTERVAL_MS


def test_add__who_is_there_at_the_edges() -> None:
    """A device counts at an edge that it is read at, or before and after; once, however often."""
    for times_ms, counts in {
        (1, EDGE - 1): {0: (0, 0)},
        (0, 1, EDGE): {0: (1, 1)},
        (EDGE - 1, EDGE + 1, EDGE + 2): {0: (0, 1), 1: (1, 0)},
        (1, 2 * EDGE, 3 * EDGE + 1): {0: (0, 1), 1: (1, 1), 2: (1, 1), 3: (1, 0)},
    }.items():
        delta = EnergyDelta()
        for is_gap in (False, True):
            spans = [
                Span(start_ms=start_ms, end_ms=end_ms, is_gap=is_gap)
                for start_ms, end_ms in pairwise(times_ms)
            ]
            delta.add(H100, spans, is_mapped=lambda _: False)
        assert {
            start_ms // INTERVAL_MS: (it.begin_count, it.end_count)
            for (_, start_ms), it in delta.intervals.items()
        } == {place: (2 * begin, 2 * end) for place, (begin, end) in counts.items()}
        # Sums over intervals count a device at each edge.
        assert delta.by_place()[H100].end_count == 2 * sum(end for _, end in counts.values())
