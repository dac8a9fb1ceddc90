"""The system's clock: the only place of the service that reads it."""

import time


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970 in UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_seconds(self) -> float:
        """Return seconds since some moment; never goes back."""
        return time.monotonic()
