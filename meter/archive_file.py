"""Files of segments that left the database: Parquet, written whole and read back.

A file has the rows of a run of segments of one shard, in the order of the journal, with the bodies
as they were recorded. It has its name once all of it is on the disk, and is never changed.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from meter.domain.errors import Reason, StoreRefusal, Unavailable

# Rows that are read together: of the largest segments some 7 MB.
GROUP_ROWS: Final = 64
_INSTALL: Final = (
    "pyarrow is not installed; it comes with `pip install 'tokenworks[parquet]'`."
    " Files of the journal are read and written with it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedRow:
    """A segment as a file has it; the times are aware, in UTC."""

    shard: int
    position: int
    epoch: int
    event_count: int
    first_end_time: datetime
    last_end_time: datetime
    commit_time: datetime
    body: bytes

    @property
    def sha256(self) -> bytes:
        """Of the body, 32 bytes."""
        return hashlib.sha256(self.body).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """A file that is on the disk: its name in the folder, its SHA-256 and its size."""

    name: str
    sha256: bytes
    size_bytes: int


class ArchiveFolder:
    """The folder of all files; it may be a bucket that is mounted, and several servers share it."""

    def __init__(self, path: Path) -> None:
        """Take the folder, which must be there; raises Unavailable where it is not, or no pyarrow.

        Nothing is written or read yet.
        """
        _import_pyarrow()
        if not path.is_dir():
            raise Unavailable(Reason.STORE_UNAVAILABLE, f"{path} is no folder: is it mounted?")
        self._path = path

    def write(self, name: str, rows: Sequence[ArchivedRow]) -> WrittenFile:
        """Write a file whole, under another name until it is on the disk; replaces one of before.

        Raises Unavailable when the disk refuses.
        """
        arrow, parquet = _import_pyarrow()
        path = self._path / name
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(exist_ok=True)
            # Of whoever was killed while it wrote this one; one at a time does.
            for left in path.parent.glob(f"{path.name}.*.part"):
                left.unlink(missing_ok=True)
            table = arrow.Table.from_pydict(
                {
                    column.name: [getattr(it, column.name) for it in rows]
                    for column in _schema(arrow)
                },
                schema=_schema(arrow),
            )
            parquet.write_table(
                table, part, row_group_size=GROUP_ROWS, compression="zstd", use_dictionary=False
            )
            with part.open("rb+") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                size_bytes = file.seek(0, os.SEEK_END)
                os.fsync(file.fileno())
            part.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise Unavailable(
                Reason.STORE_UNAVAILABLE, f"{path} cannot be written: {error.strerror or error}"
            ) from error
        finally:
            part.unlink(missing_ok=True)
        return WrittenFile(name=name, sha256=digest, size_bytes=size_bytes)

    def read(self, name: str) -> Iterator[ArchivedRow]:
        """Yield all rows of a file, in order; raises as `bodies` does."""
        file = self._open(name)
        for group in range(file.num_row_groups):
            for row in self._read_group(file, name, group, None).to_pylist():
                yield ArchivedRow(**row)

    def bodies(self, name: str, places: Sequence[int]) -> list[bytes]:
        """Return bodies of a file by their places, from 0, in the order that is asked for.

        Raises Unavailable when the file is not there, StoreRefusal when it is no such file.
        """
        file = self._open(name)
        groups = {place // GROUP_ROWS for place in places}
        if not places or max(groups) >= file.num_row_groups:
            raise StoreRefusal(Reason.INTERNAL, f"{self._path / name} is not whole.")
        read = {
            group: self._read_group(file, name, group, ["body"]).column("body") for group in groups
        }
        try:
            return [read[at // GROUP_ROWS][at % GROUP_ROWS].as_py() for at in places]
        except IndexError as error:
            raise StoreRefusal(Reason.INTERNAL, f"{self._path / name} is not whole.") from error

    def _open(self, name: str) -> Any:  # noqa: ANN401  pyarrow has no types
        arrow, parquet = _import_pyarrow()
        path = self._path / name
        try:
            return parquet.ParquetFile(path)
        except arrow.ArrowInvalid as error:
            raise StoreRefusal(Reason.INTERNAL, f"{path} is no file of the journal.") from error
        except OSError as error:
            raise _unreadable(path, error) from error

    def _read_group(self, file: Any, name: str, group: int, columns: list[str] | None) -> Any:  # noqa: ANN401
        path = self._path / name
        try:
            return file.read_row_group(group, columns=columns)
        except OSError as error:
            # Also what is no Parquet inside: pyarrow says so by the same class.
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(
        Reason.STORE_UNAVAILABLE, f"{path} cannot be read: {error.strerror or error}"
    )


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _schema(arrow: Any) -> Any:  # noqa: ANN401
    time = arrow.timestamp("us", tz="UTC")
    return arrow.schema(
        [
            ("shard", arrow.int16()),
            ("position", arrow.int64()),
            ("epoch", arrow.int64()),
            ("event_count", arrow.int32()),
            ("first_end_time", time),
            ("last_end_time", time),
            ("commit_time", time),
            ("body", arrow.binary()),
        ]
    )


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to load
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable(Reason.STORE_UNAVAILABLE, _INSTALL) from error
    return pa, parquet
