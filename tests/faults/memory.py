"""The memory of processes over a long run: sampled beside it, and judged at its end."""

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SAMPLE_SECONDS: Final = 2.0
_PAGE_BYTES: Final = 4096
_RESIDENT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a process had in memory (bytes), so many seconds after the begin of the run."""

    seconds: float
    resident_bytes: int


class Sampler:
    """Reads the resident memory of some processes until it is told to end."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        """Begin; `pids` by the names that the samples are kept under."""
        self._pids = dict(pids)
        self._begin = time.monotonic()
        self._ending = threading.Event()
        self.samples: dict[str, list[Sample]] = {name: [] for name in pids}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def seconds(self) -> float:
        """How long it has been sampling."""
        return time.monotonic() - self._begin

    def end(self) -> None:
        """Take no more samples."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(SAMPLE_SECONDS):
            for name, pid in self._pids.items():
                # Of a process that is gone there are no more samples.
                with suppress(OSError):
                    taken = Sample(seconds=self.seconds(), resident_bytes=resident_bytes(pid))
                    self.samples[name].append(taken)


def resident_bytes(pid: int) -> int:
    """Return what a process has in memory; raises OSError when it is gone."""
    words = Path(f"/proc/{pid}/statm").read_text("ascii").split()
    return int(words[_RESIDENT]) * _PAGE_BYTES


def growth(samples: Sequence[Sample], *, from_seconds: float, window_seconds: float) -> float:
    """Return by which share memory grew from a time until the end; 0.05 is 5 %.

    Compared are the medians of a window that begins then, and of one that ends with the run: a
    peak while something is broken is no growth. Raises ValueError without samples in both.
    """
    if not samples:
        raise ValueError("there are no samples")
    end = samples[-1].seconds
    early = [
        it.resident_bytes
        for it in samples
        if from_seconds <= it.seconds < from_seconds + window_seconds
    ]
    late = [it.resident_bytes for it in samples if it.seconds > end - window_seconds]
    if not early or from_seconds + window_seconds > end - window_seconds:
        raise ValueError("the run is too short to tell growth")
    return statistics.median(late) / statistics.median(early) - 1


def table(samples: Mapping[str, Sequence[Sample]], *, step_seconds: float) -> str:
    """Lay out the medians of each step, a line each, in MiB."""
    names = list(samples)
    end = max((it.seconds for taken in samples.values() for it in taken), default=0.0)
    lines = [" ".join(["  minute", *(f"{name:>10}" for name in names)])]
    for number in range(int(end // step_seconds)):
        begin = number * step_seconds
        cells = [
            [
                it.resident_bytes
                for it in samples[name]
                if begin <= it.seconds < begin + step_seconds
            ]
            for name in names
        ]
        words = [f"{statistics.median(it) / 2**20:10.1f}" if it else " " * 10 for it in cells]
        lines.append(" ".join([f"{begin / 60:8.1f}", *words]))
    return "\n".join(lines) + "\n"
