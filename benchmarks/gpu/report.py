"""`python -m benchmarks.gpu.report FOLDER`: what a probe's files say, in figures."""

import argparse
import csv
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.gpu.readings import Readings

_PHASES: Final = 20
_PERIODS_MS: Final = (1_000, 5_000, 15_000, 30_000)


def main() -> int:
    """Print what a token took by batch, and how far the gauge is from the counter."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.report")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name in ("steps_idle.csv", "steps_steady.csv"):
        print(f"{name:18} {steps(folder / name)}")
    readings = Readings.load(folder / "trace.csv")
    for name in ("power_mw", "instant_mw"):
        for period_ms in _PERIODS_MS:
            low, high = sampling_errors(readings, name, period_ms=period_ms)
            print(f"{name} read once in {period_ms / 1000:g} s: {low:+.1%} to {high:+.1%}")
    with (folder / "windows.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            print(_line(row))
    return 0


def steps(path: Path) -> str:
    """Return how often a counter steps, in ms, and by how much, in mJ: median and range."""
    with path.open(encoding="utf-8", newline="") as file:
        # The first row is the counter when the watch began, which is no step.
        rows = [(int(row["time_us"]), int(row["counter_mj"])) for row in csv.DictReader(file)][1:]
    periods = [(later[0] - earlier[0]) / 1000 for earlier, later in pairwise(rows)]
    sizes = [later[1] - earlier[1] for earlier, later in pairwise(rows)]
    return (
        f"{median(periods):.1f} ms ({min(periods):.1f} to {max(periods):.1f}), "
        f"{median(sizes):,.0f} mJ ({min(sizes):,} to {max(sizes):,})"
    )


def sampling_errors(readings: Readings, name: str, *, period_ms: float) -> tuple[float, float]:
    """Return how far a gauge read once a period may be off the counter, over all the readings."""
    begun, ended = readings.times_ms[0], readings.times_ms[-1]
    counter = readings.values["counter_mj"]
    errors = [
        readings.sampled_mj(
            name, begun, ended, period_ms=period_ms, phase_ms=period_ms * place / _PHASES
        )
        / (counter[-1] - counter[0])
        - 1
        for place in range(_PHASES)
    ]
    return min(errors), max(errors)


def _line(row: dict[str, str]) -> str:
    seconds = (float(row["end_ms"]) - float(row["start_ms"])) / 1000
    joules, output = int(row["energy_mj"]) / 1000, int(row["output_tokens"])
    each = f"{joules / output:9.4f} J/output" if output else ""
    return (
        f"{row['kind']:8} batch {row['batch']:>3} prompt {row['prompt']:>4} cached"
        f" {row['cached']:>4} output {row['output']:>4}: {joules / seconds:4.0f} W, gauge"
        f" {int(row['gauge_mj']) / 1000 / joules:.3f}, instant"
        f" {int(row['instant_mj']) / 1000 / joules:.3f} {each}"
    )


if __name__ == "__main__":
    sys.exit(main())
