"""Bodies of segments that left the database: found by their rows, proved by their hashes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from meter.archive_file import ArchiveFolder
from meter.domain.errors import Reason, StoreRefusal, Unavailable
from meter.store.archive_tables import journal_archives


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """Where the body of a segment lies: its file, its place in there, and its SHA-256."""

    archive_id: int
    place: int
    sha256: bytes


class ArchivedBodies:
    """Reads them from the folder that this process was told; safe to share between threads."""

    def __init__(self, path: Path | None = None) -> None:
        """Take the folder; None where nobody said one."""
        self._path = path
        self._folder: ArchiveFolder | None = None

    def read(self, connection: Connection, wanted: Sequence[Archived]) -> list[bytes]:
        """Return bodies in the order that is asked for; all of a file are best asked for at once.

        Raises Unavailable when they cannot be reached, StoreRefusal when they were changed.
        """
        names = _file_names(connection, sorted({it.archive_id for it in wanted}))
        found: list[bytes] = [b""] * len(wanted)
        for archive_id, name in names.items():
            places = [at for at, it in enumerate(wanted) if it.archive_id == archive_id]
            bodies = self._open(name).bodies(name, [wanted[at].place for at in places])
            for at, body in zip(places, bodies, strict=True):
                if hashlib.sha256(body).digest() != wanted[at].sha256:
                    raise StoreRefusal(
                        Reason.INTERNAL, f"{name} of the archive is not what was written."
                    )
                found[at] = body
        return found

    def _open(self, name: str) -> ArchiveFolder:
        if self._path is None:
            raise Unavailable(
                Reason.STORE_UNAVAILABLE,
                f"A part of the journal is archived, in {name}: set TOKENWORKS_ARCHIVE_FOLDER.",
            )
        if self._folder is None:
            self._folder = ArchiveFolder(self._path)
        return self._folder


def _file_names(connection: Connection, archive_ids: Sequence[int]) -> dict[int, str]:
    statement = select(journal_archives.c.archive_id, journal_archives.c.file).where(
        journal_archives.c.archive_id.in_(archive_ids)
    )
    return {row.archive_id: row.file for row in connection.execute(statement)}
