"""What a spool asks of the folder it lies in, and why a folder may be of no use to it."""

import errno
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from typing import Final, Protocol

TEMPORARY: Final = "new.tmp"
"""The name of a file that is being made; one that is found was left by a process that died."""


class Reason(Enum):
    """Why a spool cannot be used."""

    OTHER_VERSION = "other_version"
    """Written by another version of the client, in a form that this one does not know."""
    FOREIGN = "foreign"
    """The folder holds something else."""
    OTHER_PRODUCER = "other_producer"
    """The folder is the spool of a producer of another name."""
    READ_ONLY = "read_only"
    """We may not write there."""
    NO_SPACE = "no_space"
    """The disk is full, so that not even an empty spool can be made."""
    IN_USE = "in_use"
    """Another process, or another client of this one, has it."""
    DAMAGED_MANIFEST = "damaged_manifest"
    """Neither copy of the manifest can be read, so nobody knows what was sent as what."""
    DISK = "disk"
    """The disk, or the system, failed in another way."""


class SpoolUnusable(ValueError):
    """A spool that cannot be used; the message says what to do about it."""

    def __init__(self, sentence: str, *, reason: Reason) -> None:
        super().__init__(sentence)
        self.reason = reason


class Files(Protocol):
    """The files of one folder; each call raises OSError where the disk fails.

    What was appended is safe once `sync` has returned; that a name exists, is gone or stands for
    another file is safe once `sync_folder` has returned.
    """

    def names(self) -> Sequence[str]:
        """Return the names of all files, in no order."""

    def read(self, name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return the bytes of a file from an offset on; fewer than `size` where it ends."""

    def append(self, name: str, data: bytes) -> None:
        """Write at the end of a file, which is made where there is none.

        A part may have been written when it raises.
        """

    def sync(self, name: str) -> None:
        """Have everything on disk that was appended to a file."""

    def truncate(self, name: str, *, size: int) -> None:
        """Cut a file off."""

    def seal(self, name: str) -> None:
        """Let go of what appending needs; nothing will be appended to this file any more."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def replace(self, name: str, *, target: str) -> None:
        """Give a file another name at once, in place of the one that has it."""

    def sync_folder(self) -> None:
        """Have everything on disk that was done to names."""

    def draw_salt(self) -> int:
        """Draw 32 bits that nobody can foresee."""

    def close(self) -> None:
        """Let go of the folder."""


def put(files: Files, name: str, *, data: bytes) -> None:
    """Make a file with this content, or replace the one that has the name, at once and for good.

    More may be appended to it. Raises OSError; either content may be there then, but never a part
    of one.
    """
    with suppress(FileNotFoundError):
        files.remove(TEMPORARY)
    try:
        files.append(TEMPORARY, data)
        files.sync(TEMPORARY)
        files.replace(TEMPORARY, target=name)
    except OSError:
        files.seal(TEMPORARY)
        with suppress(OSError):
            files.remove(TEMPORARY)
        raise
    try:
        files.sync_folder()
    except OSError:
        files.seal(name)
        raise


FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""How a disk, or our share of it, says that it is full."""


def unusable(error: OSError) -> SpoolUnusable:
    """Say why a folder cannot be used, and what to do."""
    if error.errno in FULL:
        return SpoolUnusable(
            f"the disk is full ({error}): make room, or name a folder on another one",
            reason=Reason.NO_SPACE,
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return SpoolUnusable(
            f"the folder cannot be written ({error}): give this user the right to, or name "
            "another folder",
            reason=Reason.READ_ONLY,
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return SpoolUnusable(
            f"there is a file in its place ({error}): name a folder", reason=Reason.FOREIGN
        )
    return SpoolUnusable(
        f"the disk failed ({error}): look at it, or name a folder on another one",
        reason=Reason.DISK,
    )
