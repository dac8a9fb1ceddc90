"""Writes `helm/tokenworks/dashboards/*.json`, so that nobody writes them by hand.

python -m helm.dashboards          writes them
python -m helm.dashboards --check  exits 1 and names those that are not fresh
"""

import argparse
import sys

from helm.dashboards.files import is_fresh, make_files, write


def main() -> int:
    """Write or check the files; the exit code is 1 when a checked file is not fresh."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="name the files that are not fresh")
    if not parser.parse_args().check:
        write()
        return 0
    stale = [name for name, text in make_files() if not is_fresh(name, text=text)]
    for name in stale:
        sys.stderr.write(f"helm/tokenworks/dashboards/{name} is not fresh: make dashboards\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
