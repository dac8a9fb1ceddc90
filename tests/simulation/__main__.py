"""Runs worlds and says what they reached.

    python -m tests.simulation [--first SEED] [--seeds N] [--jobs N]

A world that breaks is told by its seed, which makes the same one again; ends with 1 then.
"""

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.world import Broken, World

_CHUNK = 250
_TOLD_EVERY = 5_000


def main() -> int:
    """Run them; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    wanted = parser.parse_args()
    reached: Counter[str] = Counter()
    broken: list[str] = []
    end = wanted.first + wanted.seeds
    chunks = [range(at, min(at + _CHUNK, end)) for at in range(wanted.first, end, _CHUNK)]
    with ProcessPoolExecutor(wanted.jobs) as pool:
        for at, (each, faults) in zip(chunks, pool.map(run_worlds, chunks), strict=True):
            reached.update(each)
            broken += faults
            if at.stop % _TOLD_EVERY == 0:
                print(f"{at.stop:,} worlds", file=sys.stderr, flush=True)
            for fault in faults:
                print(fault, file=sys.stderr, flush=True)
    for line in reach_lines(reached, seed_count=wanted.seeds):
        print(line)
    return 1 if broken else 0


def run_worlds(seeds: range) -> tuple[Counter[str], list[str]]:
    """Run the worlds of some seeds; returns what they reached, and what broke."""
    reached: Counter[str] = Counter()
    broken = []
    for seed in seeds:
        try:
            World(seed, reached=reached).run()
        except Broken as fault:
            broken.append(str(fault))
        except AssertionError as fault:
            broken.append(f"seed {seed}: {fault!r}")
    return reached, broken


def reach_lines(reached: Counter[str], *, seed_count: int) -> list[str]:
    """Return one line for each thing that happened: how often in a thousand worlds."""
    return [
        f"{'in a thousand worlds':30} {'times':>9}",
        *(f"{name:30} {reached[name] * 1000 / seed_count:>9,.0f}" for name in sorted(reached)),
    ]


if __name__ == "__main__":
    sys.exit(main())
