"""The clock as the domain sees it."""

from typing import Protocol


class Clock(Protocol):
    """Tells the time; the system's own is in `meter.runtime.clock`."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970 in UTC."""
        ...

    def monotonic_seconds(self) -> float:
        """Return seconds since some moment; never goes back."""
        ...
