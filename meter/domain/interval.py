"""The 15-minute interval of the electricity meter: half-open, in UTC."""

from typing import Final

INTERVAL_MS: Final = 15 * 60 * 1000


def interval_start_ms(time_ms: int) -> int:
    """Return the begin of the interval that holds `time_ms` (ms since 1970, UTC)."""
    return time_ms - time_ms % INTERVAL_MS


def is_on_edge(time_ms: int) -> bool:
    """Tell whether `time_ms` begins an interval."""
    return time_ms % INTERVAL_MS == 0


def next_edge_ms(time_ms: int) -> int:
    """Return the first edge at or after `time_ms`."""
    return -(-time_ms // INTERVAL_MS) * INTERVAL_MS
