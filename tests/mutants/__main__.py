"""`make mutants`: applies each mutant to a copy of the tree and runs the tests named for it."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.mutant import ROOT, Mutant, read_mutants

_SECONDS_MAX = 900
_RED = 1


def main() -> int:
    """Run them; 0 when every mutant was killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a name, or a guarantee")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.json")
    wanted = parser.parse_args()
    mutants = [
        mutant
        for mutant in read_mutants()
        if not wanted.only or {mutant.name, mutant.guarantee} & set(wanted.only)
    ]
    with tempfile.TemporaryDirectory(prefix="tokenworks-mutants-") as folder:
        tree = Path(folder)
        _copy_to(tree)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        if _run(tree, tests, is_red_told=True) != 0:
            print("The tests are red without any mutant: mend them first.", file=sys.stderr)
            return 1
        results = [_try(mutant, tree) for mutant in mutants]
    wanted.out.parent.mkdir(exist_ok=True)
    wanted.out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    survivors = [result["name"] for result in results if not result["is_killed"]]
    print(f"{len(results) - len(survivors)} of {len(results)} mutants killed", flush=True)
    for name in survivors:
        print(f"survived: {name}")
    return 1 if survivors else 0


def _try(mutant: Mutant, tree: Path) -> dict[str, object]:
    path = tree / mutant.file
    before = path.read_bytes()
    begin = time.monotonic()
    mutant.apply(tree)
    try:
        code = _run(tree, mutant.tests)
    finally:
        path.write_bytes(before)
    seconds = round(time.monotonic() - begin, 1)
    is_killed = code == _RED
    print(
        f"{'killed' if is_killed else 'SURVIVED':9} {mutant.guarantee:4} {mutant.name}"
        f" ({seconds} s)",
        flush=True,
    )
    return {
        "name": mutant.name,
        "guarantee": mutant.guarantee,
        "tests": list(mutant.tests),
        "is_killed": is_killed,
        "seconds": seconds,
    }


def _copy_to(tree: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / name)


def _run(tree: Path, tests: Sequence[str], *, is_red_told: bool = False) -> int:
    """Run tests on a tree and return pytest's exit code; a run without an end counts as red."""
    # Ahead of where the packages are installed from: for pytest, and for the processes it starts.
    environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'sdk'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, timeout=_SECONDS_MAX, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return _RED
    if done.returncode not in (0, _RED) or (is_red_told and done.returncode):
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
