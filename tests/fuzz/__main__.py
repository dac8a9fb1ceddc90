"""Feeds one target with bytes for a while; ends with 1 at the first find.

    python -m tests.fuzz TARGET --seconds N

Needs atheris (the extra `stacks`), which there is for Python 3.11 on Linux. What it finds lies in
build/fuzz/TARGET, as bytes that `tests/fuzz/corpus/TARGET` takes once the fault is mended.
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).with_name("corpus")


def main(arguments: Sequence[str]) -> int:
    """Feed it; returns the exit status where atheris is missing, else ends the process."""
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: SKIPPED, there is no atheris for this Python", file=sys.stderr)
        return 2
    atheris: Any = importlib.import_module("atheris")
    # What it is to see the lines of is imported under its eyes.
    with atheris.instrument_imports(include=["meter", "billing", "tokenworks"]):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(targets))
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args(arguments)
    found = _ROOT / "build" / "fuzz" / options.target
    found.mkdir(parents=True, exist_ok=True)
    words = [
        "tests.fuzz",
        f"-max_total_time={options.seconds}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        str(found),
        str(CORPUS / options.target),
    ]
    atheris.Setup(words, targets[options.target])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
