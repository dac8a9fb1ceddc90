"""Feeds targets with bytes for a while, each until its first find; ends with 1 when there is one.

    python -m tests.fuzz TARGET... --seconds N

Each target has a process, and all work beside each other; what each says lies in
build/fuzz/TARGET.log. Needs atheris (the extra `stacks`), which there is for Python 3.11 on Linux.
What it finds lies in build/fuzz/TARGET, as bytes that `tests/fuzz/corpus/TARGET` takes once the
fault is mended.
"""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

_FOUND: Final = Path(__file__).parents[2] / "build" / "fuzz"
_SAID_MAX: Final = 4_000
CORPUS: Final = Path(__file__).with_name("corpus")


def main(arguments: Sequence[str]) -> int:
    """Feed them; returns the exit status."""
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: SKIPPED, there is no atheris for this Python", file=sys.stderr)
        return 2
    atheris: Any = importlib.import_module("atheris")
    # What it is to see the lines of is imported under its eyes, once: it takes longest.
    with atheris.instrument_imports(include=["meter", "billing", "tokenworks"]):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="+", choices=sorted(targets), metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args(arguments)
    fed = {}
    for name in options.targets:
        pid = os.fork()
        if pid == 0:
            _feed(atheris, name, targets[name], seconds=options.seconds)
        fed[pid] = name
    failed = [name for pid, name in fed.items() if os.waitpid(pid, 0)[1]]
    for name in failed:
        said = (_FOUND / f"{name}.log").read_text("utf-8", "replace")
        print(f"fuzz: {name} FAILED\n{said[-_SAID_MAX:]}", file=sys.stderr)
    return 1 if failed else 0


def _feed(
    atheris: Any,  # noqa: ANN401 - there may be none
    name: str,
    target: Callable[[bytes], object],
    *,
    seconds: int,
) -> NoReturn:
    """Feed one target; ends the process."""
    found = _FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    with found.with_suffix(".log").open("wb") as log:
        for output in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), output.fileno())
    words = [
        "tests.fuzz",
        f"-max_total_time={seconds}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        str(found),
        str(CORPUS / name),
    ]
    atheris.Setup(words, target)
    atheris.Fuzz()
    raise AssertionError("it ends the process")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
