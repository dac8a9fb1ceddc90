"""The demo's own child processes: how they begin, and that none is left behind."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, TypeAlias

Link: TypeAlias = "connection.Connection[Any, Any]"

# What the end of the other side looks like, in the middle of a message or between two.
LINK_ENDED: Final = (EOFError, ConnectionError)
_END_SECONDS_MAX: Final = 5.0


@contextmanager
def child(body: Callable[..., None], *arguments: object, name: str, logs: Path) -> Iterator[Link]:
    """Run `body(*arguments, link)` as a process for the time of the block, and give its link.

    What it writes to stderr goes to a file of the folder `logs`. A body ends when its link does;
    one that does not is killed. Ctrl-C, which reaches the whole group, is left to the demo alone.
    """
    # Spawned, not forked: each is a fresh process, as servers are, and gRPC does not like forks.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_run, args=(body, arguments, theirs, logs / f"{name}.log"), name=name, daemon=True
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    # Only the process holds its end now, so that its death shows as end of file.
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        _end(process)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM for the time of the block, which ends things anyway."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _run(body: Callable[..., None], arguments: tuple[object, ...], link: Link, log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    # The demo wants no more, or is not there any more.
    with suppress(*LINK_ENDED):
        body(*arguments, link)


def _end(process: BaseProcess) -> None:
    process.join(_END_SECONDS_MAX)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()
