"""One `up` at a time works on a folder; the next one is told where the first one listens."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from cli.process import CommandError, Exit


class FolderLock:
    """The lock on a folder, which the system takes back when the process ends in any way."""

    def __init__(self, file: TextIOWrapper) -> None:
        self._file = file

    def describe(self, text: str) -> None:
        """Say what runs here, for whoever comes next."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"process {os.getpid()}, {text}")
        self._file.flush()


@contextmanager
def hold_folder(folder: Path) -> Iterator[FolderLock]:
    """Make the folder, mode 700, if there is none, and hold it for the time of the block.

    Raises CommandError when another process holds it, or it cannot be made.
    """
    path = folder / "lock"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise CommandError(f"{folder} cannot be used: {error}: choose one with --dir") from error
    with path.open("r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            told = file.read() or "which is starting or stopping"
            raise CommandError(
                f"Tokenworks is already running in {folder}: {told}", code=Exit.REFUSED
            ) from error
        lock = FolderLock(file)
        lock.describe("which is starting")
        try:
            yield lock
        finally:
            lock.describe("which is stopping")
