"""Stands for a pool of which nothing is measured: what its devices are rated to draw, together.

The last resort. It is a number that somebody wrote down, and all of its energy is marked as
estimated.
"""

from meter.energy.sources.port import Found, Sample


class StaticReader:
    """A rating in watts; reading it never fails."""

    def __init__(self, *, pool: str, watts: int) -> None:
        """Take the pool and what it is rated to draw."""
        self._sample = Sample(device=f"static:{pool}", power_mw=watts * 1_000)

    def read(self) -> Found:
        """Return the rating, as the power of one device."""
        return Found(samples=[self._sample])

    def close(self) -> None:
        """Nothing is held."""
