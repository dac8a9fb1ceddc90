"""A clock that does not run by itself."""

from dataclasses import dataclass


@dataclass(slots=True)
class FakeClock:
    """A clock that the test sets."""

    now: int

    def now_ms(self) -> int:
        """The time that was set."""
        return self.now

    def monotonic_seconds(self) -> float:
        """The same, in seconds."""
        return self.now / 1000
