"""What `poll` wrote, and what can be computed from it."""

import csv
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Readings:
    """Rows in the order of time: unix ms, and by name the values that were read then."""

    times_ms: list[float]
    values: dict[str, list[int]]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `poll` wrote; a last row that is still being written is left out."""
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.reader(file)
            names = next(table)
            rows = [[int(value) for value in row] for row in list(table)[:-1]]
        columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
        times = [time_us / 1000 for time_us in columns.pop("time_us")]
        return cls(times, columns)

    def integral_mj(self, name: str, start_ms: float, end_ms: float) -> int:
        """Return a gauge's integral by trapezia, its ends interpolated; mW over ms, in mJ."""
        values = self.values[name]
        low, high = bisect_right(self.times_ms, start_ms), bisect_left(self.times_ms, end_ms)
        points = [
            (start_ms, self._at(values, start_ms)),
            *zip(self.times_ms[low:high], values[low:high], strict=True),
            (end_ms, self._at(values, end_ms)),
        ]
        total = sum(
            (later - earlier) * (first + second) / 2
            for (earlier, first), (later, second) in pairwise(points)
        )
        return round(total / 1000)

    def sampled_mj(
        self, name: str, start_ms: float, end_ms: float, *, period_ms: float, phase_ms: float
    ) -> int:
        """Return what a gauge gives that is read once a period, and holds until the next."""
        values = self.values[name]
        total, time_ms = 0.0, start_ms + phase_ms - period_ms
        while time_ms < end_ms:
            begun, ended = max(time_ms, start_ms), min(time_ms + period_ms, end_ms)
            total += max(0.0, ended - begun) * self._at(values, max(time_ms, self.times_ms[0]))
            time_ms += period_ms
        return round(total / 1000)

    def _at(self, values: list[int], time_ms: float) -> float:
        place = bisect_right(self.times_ms, time_ms)
        if place == 0 or place == len(values):
            return values[min(place, len(values) - 1)]
        before, after = self.times_ms[place - 1], self.times_ms[place]
        share = (time_ms - before) / (after - before)
        return values[place - 1] + share * (values[place] - values[place - 1])
