"""`tokenworks top` as a process of its own, in a terminal or in a pipe, stopped as people do."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from tests.running_meter import TOKENWORKS

LINES = 30
COLUMNS = 80


class LiveTop:
    """The command in a terminal; `shown` is all that it has written to it."""

    def __init__(self, process: subprocess.Popen[bytes], *, terminal: int) -> None:
        self._process = process
        self._terminal = terminal
        self.shown = ""

    def read_until(self, text: str) -> None:
        """Read on until this text comes; what came before it does not count."""
        begin = len(self.shown)
        while text not in self.shown[begin:]:
            piece = os.read(self._terminal, 65_536)
            self.shown += piece.decode("utf-8", "replace")

    def stop(self, number: signal.Signals) -> int:
        """Send a signal; read what is still written and return the exit code."""
        self._process.send_signal(number)
        while True:
            try:
                piece = os.read(self._terminal, 65_536)
            except OSError:
                # Linux says so when the last one who could write has gone.
                break
            self.shown += piece.decode("utf-8", "replace")
        return self._process.wait()


@contextmanager
def in_terminal(*words: str) -> Iterator[LiveTop]:
    """Run `tokenworks top WORDS…` in a terminal for the time of the block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [TOKENWORKS, "top", *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        yield LiveTop(process, terminal=ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


class PipedTop:
    """The command in pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def stdout(self) -> IO[str]:
        """What it prints."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr(self) -> IO[str]:
        """What else it says."""
        assert self._process.stderr is not None
        return self._process.stderr

    def read_json(self) -> dict[str, Any]:
        """Return the next refresh."""
        found = json.loads(self.stdout.readline())
        assert isinstance(found, dict)
        return found

    def stop(self, number: signal.Signals) -> int:
        """Send a signal; return the exit code."""
        self._process.send_signal(number)
        return self._process.wait()


@contextmanager
def in_pipe(*words: str) -> Iterator[PipedTop]:
    """Run `tokenworks top WORDS…` in pipes for the time of the block."""
    with subprocess.Popen(
        [TOKENWORKS, "top", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield PipedTop(process)
        finally:
            process.kill()
