"""A disk in memory that does what disks do: forgets what was not synced, fails, and tears.

It keeps what a process sees apart from what a loss of power leaves, like a page cache.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeAlias

SALT: Final = 0x5EED


class Crash(BaseException):
    """The process is gone; no handler of its own sees this."""


@dataclass(slots=True, eq=False)
class _Content:
    """A file, whatever its name is."""

    seen: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    """What a loss of power leaves at least."""
    is_doomed: bool = False
    """A sync failed: what was not safe then is thrown away, and no later sync says so."""


Fault: TypeAlias = Callable[[int], int | None]
"""Says for the n-th change of the disk with which errno it fails; None for a change that works."""


class Disk:
    """Implements `Files`."""

    def __init__(self) -> None:
        self._seen: dict[str, _Content] = {}
        self._safe: dict[str, _Content] = {}
        self._pending: list[tuple[str, str, _Content]] = []
        """Changes of names that are not safe yet: "bind" or "unbind", name, content."""
        self.log: list[str] = []
        """What was done to names, as far as it worked."""
        self.change_count = 0
        self.sync_count = 0
        self.fault: Fault = lambda _: None
        self.crash_at: int | None = None
        self.torn_bytes = 0
        """How much of the append that crashes or fails is written nevertheless."""
        self.read_errno: int | None = None
        self.capacity: int | None = None
        """Bytes that all files may have together; a write beyond it is cut off and fails."""

    @property
    def used_bytes(self) -> int:
        """What all files take up."""
        return sum(len(content.seen) for content in self._seen.values())

    def names(self) -> Sequence[str]:
        """See `Files`."""
        return list(self._seen)

    def read(self, name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """See `Files`."""
        if self.read_errno is not None:
            raise OSError(self.read_errno, "as the test wants it")
        end = None if size is None else offset + size
        return bytes(self._found(name).seen[offset:end])

    def append(self, name: str, data: bytes) -> None:
        """See `Files`."""
        content = self._seen.get(name)
        if content is None:
            content = self._seen[name] = _Content()
            self._pending.append(("bind", name, content))
        try:
            self._change()
        except (OSError, Crash):
            content.seen += data[: self.torn_bytes]
            raise
        room = len(data) if self.capacity is None else max(self.capacity - self.used_bytes, 0)
        content.seen += data[:room]
        if room < len(data):
            raise OSError(errno.ENOSPC, "the disk is full")

    def sync(self, name: str) -> None:
        """See `Files`."""
        content = self._found(name)
        self.sync_count += 1
        assert not content.is_doomed, "a file whose sync failed is synced again"
        try:
            self._change()
        except OSError:
            content.is_doomed = True
            raise
        content.safe = bytes(content.seen)

    def truncate(self, name: str, *, size: int) -> None:
        """See `Files`."""
        content = self._found(name)
        self._change()
        del content.seen[size:]

    def seal(self, name: str) -> None:
        """See `Files`."""

    def remove(self, name: str) -> None:
        """See `Files`."""
        content = self._found(name)
        self._change()
        self.log.append(f"remove {name}")
        del self._seen[name]
        self._pending.append(("unbind", name, content))

    def replace(self, name: str, *, target: str) -> None:
        """See `Files`."""
        content = self._found(name)
        self._change()
        self._seen[target] = self._seen.pop(name)
        self._pending.append(("move", f"{name}\0{target}", content))

    def sync_folder(self) -> None:
        """See `Files`."""
        self._change()
        self.log.append("sync folder")
        self._safe = dict(self._seen)
        self._pending.clear()

    def draw_salt(self) -> int:
        """See `Files`."""
        return SALT

    def close(self) -> None:
        """See `Files`."""

    def after_kill(self) -> "Disk":
        """The disk after the process was killed: all that it wrote is there."""
        return _disk({name: bytes(content.seen) for name, content in self._seen.items()})

    def after_power_loss(self, random: Random) -> "Disk":
        """One of the disks that there may be after a loss of power."""
        names = dict(self._safe)
        pending = self._pending
        if random.random() < 0.5:
            pending = pending[: random.randint(0, len(pending))]
        else:
            # Not every file system keeps their order.
            pending = [change for change in pending if random.random() < 0.6]
        for change, name, content in pending:
            if change == "move":
                source, target = name.split("\0")
                names.pop(source, None)
                names[target] = content
            elif change == "bind":
                names[name] = content
            elif names.get(name) is content:
                del names[name]
        contents: dict[int, bytes] = {}
        for content in names.values():
            contents.setdefault(id(content), _remains(content, random))
        return _disk({name: contents[id(content)] for name, content in names.items()})

    def flipped(self, name: str, bit: int) -> "Disk":
        """The disk with one bit of a file the other way round."""
        files = {name: bytes(content.seen) for name, content in self._seen.items()}
        damaged = bytearray(files[name])
        damaged[bit // 8] ^= 1 << bit % 8
        return _disk(files | {name: bytes(damaged)})

    def with_file(self, name: str, data: bytes | None) -> "Disk":
        """The disk with another content of a file; None for no such file."""
        files = {name: bytes(content.seen) for name, content in self._seen.items()}
        files.pop(name, None)
        return _disk(files if data is None else files | {name: data})

    def _found(self, name: str) -> _Content:
        content = self._seen.get(name)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return content

    def _change(self) -> None:
        number = self.change_count
        self.change_count += 1
        if number == self.crash_at:
            raise Crash
        failed = self.fault(number)
        if failed is not None:
            raise OSError(failed, "as the test wants it")


def _remains(content: _Content, random: Random) -> bytes:
    """What is left of a file: what is safe, and perhaps a part of what came after."""
    seen, safe = bytes(content.seen), content.safe
    if not seen.startswith(safe):
        # It was cut off, and that may have come to the disk or not.
        return random.choice((seen, safe))
    tail = seen[len(safe) :]
    left = tail[: random.randint(0, len(tail))]
    if content.is_doomed and random.random() < 0.5:
        left = bytes(len(left))
    return safe + left


def _disk(files: dict[str, bytes]) -> Disk:
    disk = Disk()
    for name, data in files.items():
        content = _Content(seen=bytearray(data), safe=data)
        disk._seen[name] = disk._safe[name] = content  # noqa: SLF001 - another one of these
    return disk
