"""A load as a process of its own, so that it shares no interpreter with who measures.

The process reads its orders as JSON from stdin, makes all that it will send, prints `ready`, begins
at the next line, ends at its deadline or when its stdin does, and prints as JSON what it did.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class Load:
    """A load that has begun."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for its end; tell whether it has ended."""
        try:
            # What it prints is smaller than a pipe holds.
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Have it end before its deadline; harmless when it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def report(self) -> dict[str, Any]:
        """Wait for its end and return what it did; raises ValueError when it failed."""
        assert self._process.stdout is not None
        report: dict[str, Any] = json.loads(self._process.stdout.readline())
        self._process.wait()
        return report


@contextmanager
def running_load(module: str, orders: Mapping[str, Any]) -> Iterator[Load]:
    """Start a load, wait until it is ready, and have it begin."""
    with subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        _write_line(process, json.dumps(orders))
        process.stdout.readline()
        _write_line(process)
        try:
            yield Load(process)
        finally:
            # Harmless when it has ended, as it has unless measuring failed.
            process.kill()


def _write_line(process: subprocess.Popen[str], line: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
