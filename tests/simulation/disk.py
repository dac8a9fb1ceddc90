"""A folder on a simulated disk: full, failing, and after a loss of power as the disk had it."""

import errno
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(slots=True)
class _File:
    content: bytes = b""
    synced: bytes = b""

    def after_power_loss(self, random: Random) -> bytes:
        """Return what was synced, and perhaps a part of what came after it."""
        if not self.content.startswith(self.synced):
            return self.synced
        return self.content[: random.randint(len(self.synced), len(self.content))]


class SimulatedFolder:
    """Files of one folder, as `tokenworks.client.spool.files.Files`."""

    def __init__(self, random: Random, *, reached: Counter[str]) -> None:
        """Take the source of chance, and where to note what happened."""
        self._random = random
        self._reached = reached
        self._files: dict[str, _File] = {}
        self._synced_names: dict[str, _File] = {}
        self.is_full = False
        self.fault_chance = 0.0

    def names(self) -> Sequence[str]:
        """Return all names."""
        return list(self._files)

    def read(self, name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return a part of a file."""
        content = self._file(name).content
        return content[offset:] if size is None else content[offset : offset + size]

    def append(self, name: str, data: bytes) -> None:
        """Write, or only a part of it."""
        file = self._files.setdefault(name, _File())
        if self.is_full or self._fails():
            file.content += data[: self._random.randint(0, len(data))]
            self._reached["disk full" if self.is_full else "disk faults"] += 1
            raise OSError(errno.ENOSPC if self.is_full else errno.EIO, "no more of that")
        file.content += data

    def sync(self, name: str) -> None:
        """Have it on disk; after a failure it may be there or not, and nobody will say."""
        file = self._file(name)
        if self._fails():
            file.synced = file.after_power_loss(self._random)
            self._reached["disk faults"] += 1
            raise OSError(errno.EIO, "the disk failed")
        file.synced = file.content

    def truncate(self, name: str, *, size: int) -> None:
        """Cut a file off; without a sync, a loss of power undoes it."""
        if self._fails():
            raise OSError(errno.EIO, "the disk failed")
        file = self._file(name)
        file.content = file.content[:size]

    def seal(self, name: str) -> None:
        """There is nothing to let go of."""

    def remove(self, name: str) -> None:
        """Remove a file; without a sync of the folder, a loss of power brings it back."""
        self._file(name)
        del self._files[name]

    def replace(self, name: str, *, target: str) -> None:
        """Rename."""
        self._files[target] = self._file(name)
        del self._files[name]

    def sync_folder(self) -> None:
        """Have the names on disk."""
        if self._fails():
            raise OSError(errno.EIO, "the disk failed")
        self._synced_names = dict(self._files)

    def draw_salt(self) -> int:
        """Draw 32 bits."""
        return self._random.getrandbits(32)

    def close(self) -> None:
        """The folder stays, for whoever opens it next."""

    def lose_power(self) -> None:
        """Forget what was not synced; of names, all or nothing since the last sync."""
        if self._random.random() < 0.5:
            self._files = dict(self._synced_names)
        for file in self._files.values():
            file.content = file.synced = file.after_power_loss(self._random)
        self._synced_names = dict(self._files)

    def copied(self) -> "SimulatedFolder":
        """Return a copy: a cloned volume."""
        copy = SimulatedFolder(self._random, reached=self._reached)
        for name, file in self._files.items():
            copy._files[name] = _File(file.content, file.content)
        copy._synced_names = dict(copy._files)
        return copy

    def _file(self, name: str) -> _File:
        if name not in self._files:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return self._files[name]

    def _fails(self) -> bool:
        return self._random.random() < self.fault_chance
