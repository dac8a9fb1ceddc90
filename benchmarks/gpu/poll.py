"""`python -m benchmarks.gpu.poll FILE`: what the GPU shows, row by row, until SIGTERM.

A process of its own: the program that it watches is busy starting kernels.
"""

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from benchmarks.gpu.board import Board


def main() -> int:
    """Write a row each period: unix µs, counter in mJ, both gauges in mW, and what reading took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.poll")
    parser.add_argument("file", type=Path)
    parser.add_argument("--period-ms", type=float, default=20.0)
    parser.add_argument("--counter-only", action="store_true", help="a row for each step, no gauge")
    options = parser.parse_args()
    stopping: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, stop)
    board = Board()
    last = -1
    period = options.period_ms / 1000
    due = time.monotonic()
    with options.file.open("w", encoding="utf-8") as file:
        file.write("time_us,counter_mj,power_mw,instant_mw,read_us\n")
        while not stopping:
            begun = time.time_ns()
            counter = board.counter_mj()
            if options.counter_only:
                row = (counter, 0, 0) if counter != last else None
            else:
                row = (counter, board.usage_mw(), board.instant_mw())
            last = counter
            if row is not None:
                took_us = (time.time_ns() - begun) // 1000
                file.write(f"{begun // 1000},{row[0]},{row[1]},{row[2]},{took_us}\n")
            due = max(due + period, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
