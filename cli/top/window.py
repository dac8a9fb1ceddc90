"""The answers of a meter over the last seconds, as far back as it has run without a restart."""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from cli.top.counters import Counter, Sample, has_restarted

# Answers that are kept: more would not be seen in a line of a terminal's width.
SAMPLES_MAX: Final = 300
_CLOSE: Final = 1e-9


class Window:
    """A row of answers that reaches back `seconds`, or a little more; never empty."""

    def __init__(self, first: Sample, *, seconds: float) -> None:
        self._seconds = seconds
        self._samples = deque([first])

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The answers, oldest first."""
        return tuple(self._samples)

    def add(self, sample: Sample) -> None:
        """Take the newest answer; after a restart it is the first."""
        kept = self._samples
        if has_restarted(kept[-1], sample):
            kept.clear()
        elif len(kept) > 1 and (
            kept[-1].read_seconds - kept[-2].read_seconds < self._seconds / SAMPLES_MAX
        ):
            kept.pop()
        kept.append(sample)
        while len(kept) > 1 and kept[1].read_seconds <= sample.read_seconds - self._seconds:
            kept.popleft()


def to_history(
    samples: Sequence[Sample], *, tier: str, points: int, seconds: float
) -> list[float | None]:
    """Return a tier's tokens/s in `points` equal parts of the last seconds, the oldest first.

    None where a part begins before the first answer.
    """
    times = [sample.read_seconds for sample in samples]
    counts = [
        sum(
            value
            for series, value in sample.counters.items()
            if series.counter is Counter.TOKENS and series.tier == tier
        )
        for sample in samples
    ]
    step = seconds / points
    edges = [times[-1] - seconds * (points - index) / points for index in range(points + 1)]
    return [
        None
        # By more than what the division may be off.
        if begin < times[0] - step * _CLOSE
        else (_count_at(end, times, counts) - _count_at(begin, times, counts)) / step
        for begin, end in pairwise(edges)
    ]


def _count_at(time: float, times: Sequence[float], counts: Sequence[float]) -> float:
    """Return the count at a time between two answers, as if it had grown evenly."""
    time = max(time, times[0])
    place = bisect_right(times, time)
    if place == len(times):
        return counts[-1]
    begin, end = times[place - 1], times[place]
    share = (time - begin) / (end - begin)
    return counts[place - 1] + (counts[place] - counts[place - 1]) * share
