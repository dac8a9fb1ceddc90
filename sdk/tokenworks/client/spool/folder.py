"""The real files of a spool: a folder that one process at a time has, and its slots."""

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from tokenworks.client.clock import new_instance
from tokenworks.client.spool.files import Reason, SpoolUnusable, unusable
from tokenworks.client.spool.manifest import LOCK_NAME
from tokenworks.client.spool.recovery import holds_unsent

if sys.platform != "win32":
    import fcntl

SLOTS_MAX: Final = 64
"""Processes of one producer that may share a spool, beside the first."""
_NAME_CHARACTERS_MAX: Final = 64
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_READERS_MAX: Final = 4


class Folder:
    """A folder under a lock, which the system takes back when the process ends in any way.

    Methods that are not described are those of `Files`.
    """

    def __init__(self, path: Path, *, lock: int | None) -> None:
        """`lock`: the descriptor of the file that is locked; None for a folder only to be read."""
        self.path = path
        self._lock = lock
        self._writers: dict[str, int] = {}
        self._readers: dict[str, int] = {}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the folder where there is none, and lock it. Raises SpoolUnusable."""
        try:
            _make(path)
            lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, _FILE_MODE)
        except OSError as error:
            raise unusable(error) from error
        try:
            _lock(lock)
        except BlockingIOError as error:
            os.close(lock)
            raise SpoolUnusable(
                f"{path} is in use by another process: name a folder of its own",
                reason=Reason.IN_USE,
            ) from error
        except OSError as error:
            # Not every network file system has locks.
            os.close(lock)
            raise unusable(error) from error
        return cls(path, lock=lock)

    def names(self) -> Sequence[str]:
        """See `Files`."""
        return [path.name for path in self.path.iterdir()]

    def read(self, name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """See `Files`."""
        reader = self._reader(name)
        wanted = os.fstat(reader).st_size - offset if size is None else size
        parts = []
        while wanted > 0 and (part := os.pread(reader, wanted, offset)):
            parts.append(part)
            wanted -= len(part)
            offset += len(part)
        return b"".join(parts)

    def append(self, name: str, data: bytes) -> None:
        """See `Files`."""
        writer = self._writer(name)
        view = memoryview(data)
        while view:
            view = view[os.write(writer, view) :]

    def sync(self, name: str) -> None:
        """See `Files`."""
        _sync(self._writer(name))

    def truncate(self, name: str, *, size: int) -> None:
        """See `Files`."""
        os.ftruncate(self._writer(name), size)

    def seal(self, name: str) -> None:
        """See `Files`."""
        writer = self._writers.pop(name, None)
        if writer is not None:
            with suppress(OSError):
                os.close(writer)

    def remove(self, name: str) -> None:
        """See `Files`."""
        self._check_is_ours()
        self._forget(name)
        (self.path / name).unlink()

    def replace(self, name: str, *, target: str) -> None:
        """See `Files`."""
        self._check_is_ours()
        (self.path / name).replace(self.path / target)
        writer = self._writers.pop(name, None)
        self._forget(target)
        if writer is not None:
            self._writers[target] = writer

    def sync_folder(self) -> None:
        """See `Files`."""
        _sync_folder(self.path)

    def draw_salt(self) -> int:
        """See `Files`."""
        return int.from_bytes(new_instance()[:4], "little")

    def close(self) -> None:
        """See `Files`; another process may have the folder from now on."""
        if self._lock is not None:
            # Said aloud: a child that inherited the descriptor would keep the lock otherwise.
            with suppress(OSError):
                _unlock(self._lock)
        self.abandon()

    def abandon(self) -> None:
        """Let go of the folder in a child of the process that has it, whose lock stays."""
        for name in (*self._writers, *self._readers):
            self._forget(name)
        if self._lock is not None:
            with suppress(OSError):
                os.close(self._lock)
            self._lock = None

    def _writer(self, name: str) -> int:
        writer = self._writers.get(name)
        if writer is None:
            self._check_is_ours()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            writer = self._writers[name] = os.open(self.path / name, flags, _FILE_MODE)
        return writer

    def _reader(self, name: str) -> int:
        reader = self._readers.get(name)
        if reader is None:
            if len(self._readers) >= _READERS_MAX:
                os.close(self._readers.pop(next(iter(self._readers))))
            reader = self._readers[name] = os.open(self.path / name, os.O_RDONLY)
        return reader

    def _check_is_ours(self) -> None:
        """Change nothing without the lock: somebody else may have the folder by now."""
        if self._lock is None:
            raise OSError(errno.EBADF, "the folder was let go of", str(self.path))

    def _forget(self, name: str) -> None:
        self.seal(name)
        reader = self._readers.pop(name, None)
        if reader is not None:
            with suppress(OSError):
                os.close(reader)


def slot_name(producer: str, *, slot: int) -> str:
    """Return the name of a producer's n-th process, which names its folder too; 0 is the first."""
    suffix = f".{slot}" if slot else ""
    return producer[: _NAME_CHARACTERS_MAX - len(suffix)] + suffix


def open_slot(root: Path, producer: str) -> tuple[Folder, str]:
    """Open the first folder of a producer that no other process has; its name is a producer's.

    Raises SpoolUnusable.
    """
    for slot in range(SLOTS_MAX + 1):
        name = slot_name(producer, slot=slot)
        try:
            return Folder.open(root / name), name
        except SpoolUnusable as error:
            if error.reason is not Reason.IN_USE:
                raise
    raise SpoolUnusable(
        f"{SLOTS_MAX + 1} processes use {root / producer} already: name another producer, or "
        "another folder",
        reason=Reason.IN_USE,
    )


def leftovers(root: Path, producer: str) -> Iterator[tuple[Folder, str]]:
    """Yield the folders of a producer's other processes that have ended and left something unsent.

    Each is locked and is the caller's to close. What cannot be opened is left alone.
    """
    for slot in range(SLOTS_MAX + 1):
        name = slot_name(producer, slot=slot)
        try:
            if not (root / name / LOCK_NAME).exists():
                continue
            folder = Folder.open(root / name)
        except (OSError, SpoolUnusable):
            continue
        if holds_unsent(folder):
            yield folder, name
        else:
            folder.close()


def _make(path: Path) -> None:
    """Make a folder, and see to it that a loss of power cannot take it away again."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    for folder in missing:
        _sync_folder(folder.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        raise SpoolUnusable("there is no spool on Windows yet: leave it out", reason=Reason.DISK)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(descriptor: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _sync(descriptor: int) -> None:
    """Have the content of a file on disk, and of its attributes what is needed to read it."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    elif sys.platform == "win32":
        os.fsync(descriptor)
    else:
        os.fdatasync(descriptor)
