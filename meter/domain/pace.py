"""How fast somebody may go: a bucket of tokens that fills at a steady pace."""


class Pace:
    """Allows `per_second`, and up to `burst_max` at once after a rest.

    Whoever takes is let have it, and told for how long to wait: the bucket may be in debt, so that
    what was taken before its size was known is paid for afterwards.
    """

    __slots__ = ("_burst_max", "_level", "_per_second", "_seconds")

    def __init__(self, *, per_second: float, burst_max: float, now_seconds: float) -> None:
        """Begin full, at a monotonic time."""
        assert per_second > 0
        assert burst_max >= 1
        self._per_second = per_second
        self._burst_max = burst_max
        self._level = burst_max
        self._seconds = now_seconds

    def wait_seconds(self, now_seconds: float) -> float:
        """Return for how long a taker would have to wait now; 0 while there is something left."""
        self._fill(now_seconds)
        return (1.0 - self._level) / self._per_second if self._level < 1.0 else 0.0

    def take(self, count: float, *, now_seconds: float) -> float:
        """Take, and return for how long to wait before it is used."""
        self._fill(now_seconds)
        self._level -= count
        return -self._level / self._per_second if self._level < 0.0 else 0.0

    def give_back(self, count: float) -> None:
        """Undo a taking, or a part of it."""
        self._level = min(self._burst_max, self._level + count)

    def is_full(self, now_seconds: float) -> bool:
        """Tell whether nothing of it is missing: it may be forgotten."""
        self._fill(now_seconds)
        return self._level >= self._burst_max

    def _fill(self, now_seconds: float) -> None:
        passed = now_seconds - self._seconds
        self._seconds = now_seconds
        if passed > 0.0:
            self._level = min(self._burst_max, self._level + passed * self._per_second)
