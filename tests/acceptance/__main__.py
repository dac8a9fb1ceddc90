"""Bills random worlds by the product and by the oracle, and says which come to different bills.

    python -m tests.acceptance [--first SEED] [--worlds N]

For more worlds than the tests have time for. A world is told by its seed, which makes the same one
again; ends with 1 when there is one that is billed differently. All processors work.
"""

import argparse
import sys

from tests.acceptance.rated_worlds import bill_worlds


def main() -> int:
    """Bill them; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--worlds", type=int, default=10_000, help="how many")
    wanted = parser.parse_args()
    found = bill_worlds(range(wanted.first, wanted.first + wanted.worlds))
    for fault in found:
        print(fault)
    print(f"{wanted.worlds:,} worlds: {len(found):,} differences", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
