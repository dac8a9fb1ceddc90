"""Processes of `tokenworks`, forked off one that has imported all that a server needs.

A server that starts anew imports for a second, and the tests start hundreds. What is forked is
otherwise the same: a process of its own with its own environment, files and signals, which runs the
command from its first word. That the command starts from nothing is seen by `tests/cli`.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from cli.main import main

_MESSAGE_BYTES_MAX = 100_000
_FILES_MAX = 3
# What Python and gRPC read when they start: another value needs a process that starts anew.
_READ_AT_START = ("PYTHON", "GRPC_", "OPENBLAS_")


class Forked:
    """A process that was forked; used as a `subprocess.Popen` is."""

    def __init__(self, keeper: socket.socket, *, stdout: IO[str]) -> None:
        self.stdout: IO[str] | None = stdout
        self.pid = int(keeper.recv(_MESSAGE_BYTES_MAX))
        self._keeper = keeper
        self._returncode: int | None = None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self._returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended, negative for a signal.

        Raises subprocess.TimeoutExpired after so many seconds.
        """
        if self._returncode is None:
            self._keeper.settimeout(timeout)
            try:
                self._returncode = int(self._keeper.recv(_MESSAGE_BYTES_MAX))
            except TimeoutError as error:
                raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0) from error
            self._keeper.close()
        return self._returncode


def start(
    command: Sequence[str], *, environment: Mapping[str, str], stderr: IO[bytes]
) -> Forked | subprocess.Popen[str]:
    """Run `tokenworks …`, given by its path, with nothing to read; what it prints is in `stdout`.

    It starts anew, without a fork, where the environment has other words for Python itself.
    """
    if _of_start(environment) != _of_start(os.environ):
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            text=True,
        )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    order = {
        "command": command,
        "environment": dict(environment),
        "folder": str(Path.cwd()),
    }
    with theirs, os.fdopen(write, "wb") as stdout:
        files = [theirs.fileno(), stdout.fileno(), stderr.fileno()]
        socket.send_fds(_mother(), [json.dumps(order).encode()], files)
    return Forked(ours, stdout=os.fdopen(read, encoding="utf-8"))


def _of_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: it for name, it in environment.items() if name.startswith(_READ_AT_START)}


@functools.cache
def _mother() -> socket.socket:
    """The process that has imported all; it ends with this one, whose end of the socket it sees."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.forks"],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            # A thread more, and nothing could be forked.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class _Order(NamedTuple):
    command: list[str]
    environment: dict[str, str]
    folder: str


def _take_orders(control: socket.socket) -> _Order | None:
    """Fork for each order; returns it in the process that is to run it, and None when all is done.

    Between the two stands a keeper, which tells who ordered the number of the process and, when it
    has ended, its exit code.
    """
    # Keepers end by themselves; an interrupt from the keyboard is meant for the tests.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        text, files, _, _ = socket.recv_fds(control, _MESSAGE_BYTES_MAX, _FILES_MAX)
        if not text:
            return None
        if os.fork() == 0:
            control.close()
            _fork_kept(*files)
            return _Order(**json.loads(text))
        for each in files:
            os.close(each)


def _fork_kept(keeper: int, stdout: int, stderr: int) -> None:
    """Fork, and return in the new process only; this one keeps it to its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate((nothing, stdout, stderr)):
            os.dup2(file, number)
        os.closerange(3, max(nothing, keeper, stdout, stderr) + 1)
        return
    os.close(stdout)
    os.close(stderr)
    with socket.socket(fileno=keeper) as told:
        told.send(str(pid).encode())
        # Not taken away before who ordered it has let go of it: its number must stay its own.
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert end is not None
        code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        with contextlib.suppress(ConnectionError):
            told.send(str(code).encode())
            told.recv(1)
    os._exit(0)


def _run(order: _Order) -> None:
    """Run the command, as the program `tokenworks` does."""
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    sys.argv = order.command
    main()


if __name__ == "__main__":
    # What the command would import when it runs.
    importlib.import_module("cli.serve")
    gc.collect()
    gc.freeze()
    ordered = _take_orders(socket.socket(fileno=0))
    if ordered is not None:
        _run(ordered)
