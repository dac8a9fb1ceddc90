"""The manifest of a spool: whose it is, and which numbers its batches have at the meter."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from tokenworks.client.spool.files import (
    FULL,
    TEMPORARY,
    Files,
    Reason,
    SpoolUnusable,
    put,
)
from tokenworks.client.spool.records import VERSION

MANIFEST_NAMES: Final = ("manifest.json", "manifest.copy.json")
"""Two copies: a number that was sent must still be known when one of them has rotted."""
RESERVE_NAME: Final = "reserve"
LOCK_NAME: Final = "lock"
SEGMENT_SUFFIX: Final = ".spool"
_SEGMENT_DIGITS: Final = 20

# Given up when the disk is full, so that numbers can still be fixed: a manifest takes about 200
# bytes, and 30 more for each time that somebody else had used our numbers.
_RESERVE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a spool must know before it reads its first batch."""

    producer: str
    salt: int
    """What all checksums of the spool begin from; 32 bits."""
    offsets: tuple[tuple[int, int], ...] = ()
    """First local number and offset of each range, ascending: `sequence = local + offset`."""
    doubtful: tuple[tuple[int, int], ...] = ()
    """Half-open ranges of local numbers that go out as doubtful."""


def segment_name(first: int) -> str:
    """Return the name of the segment that begins with a local number."""
    return f"{first:0{_SEGMENT_DIGITS}d}{SEGMENT_SUFFIX}"


def segment_first(name: str) -> int | None:
    """Return the local number that a segment begins with; None where the name is no segment's."""
    digits = name.removesuffix(SEGMENT_SUFFIX)
    is_segment = len(digits) == _SEGMENT_DIGITS and digits.isascii() and digits.isdigit()
    return int(digits) if is_segment and name.endswith(SEGMENT_SUFFIX) else None


def read_manifest(files: Files, *, producer: str | None = None) -> tuple[Manifest, bool] | None:
    """Read a folder's manifest, and whether both copies were there; None where nothing is yet.

    `producer`: whose it has to be; None for anybody's. Raises SpoolUnusable, and OSError.
    """
    names = set(files.names())
    present = [name for name in MANIFEST_NAMES if name in names]
    copies = [_parse(files.read(name)) for name in present]
    checked = [fields for fields in copies if _is_checked(fields)]
    # A version that a rotten copy names is heeded only where no copy is sound.
    _check_version(checked or copies)
    readable = [manifest for manifest in map(_manifest_from_fields, checked) if manifest]
    if not readable:
        _check_is_empty(names, has_manifest=bool(present))
        return None
    manifest = readable[0]
    if producer not in (None, manifest.producer):
        raise SpoolUnusable(
            f"the spool is that of producer {manifest.producer!r}, not of {producer!r}: "
            "give each producer a folder of its own, or report under the old name",
            reason=Reason.OTHER_PRODUCER,
        )
    return manifest, len(readable) == len(MANIFEST_NAMES)


def write_manifest(files: Files, manifest: Manifest) -> None:
    """Replace both copies. Raises OSError; each copy then is the old one or the new one."""
    try:
        _write_copies(files, manifest)
    except OSError as error:
        if error.errno not in FULL or RESERVE_NAME not in files.names():
            raise
        files.remove(RESERVE_NAME)
        files.sync_folder()
        _write_copies(files, manifest)


def ensure_reserve(files: Files) -> None:
    """Keep room for the manifest on a disk that fills up, where there still is some."""
    if RESERVE_NAME in files.names():
        return
    # Random-looking enough that no file system stores it as a hole.
    filler = bytes(range(1, 256)) * (_RESERVE_BYTES // 255)
    with suppress(OSError):
        put(files, RESERVE_NAME, data=filler)
        files.seal(RESERVE_NAME)


def _write_copies(files: Files, manifest: Manifest) -> None:
    data = _encode(manifest)
    for name in MANIFEST_NAMES:
        put(files, name, data=data)
        files.seal(name)


def _check_is_empty(names: set[str], *, has_manifest: bool) -> None:
    segments = {name for name in names if segment_first(name) is not None}
    if has_manifest or segments:
        raise SpoolUnusable(
            f"{' and '.join(MANIFEST_NAMES)} are damaged or gone: put one of them back from a "
            "copy, or move the folder away, which gives up the batches in it",
            reason=Reason.DAMAGED_MANIFEST,
        )
    foreign = names - {LOCK_NAME, TEMPORARY, RESERVE_NAME}
    if foreign:
        raise SpoolUnusable(
            f"the folder holds what is no spool's ({min(foreign)}): name an empty folder, or one "
            "that does not exist yet",
            reason=Reason.FOREIGN,
        )


def _encode(manifest: Manifest) -> bytes:
    fields = {
        "version": VERSION,
        "producer": manifest.producer,
        "salt": manifest.salt,
        "offsets": [list(entry) for entry in manifest.offsets],
        "doubtful": [list(entry) for entry in manifest.doubtful],
    }
    checked = fields | {"checksum": _checksum(fields)}
    return json.dumps(checked, indent=2).encode() + b"\n"


def _parse(data: bytes) -> dict[str, object]:
    """Read a copy's fields; none where it is damaged."""
    try:
        fields = json.loads(data)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_checked(fields: Mapping[str, object]) -> bool:
    rest = {name: value for name, value in fields.items() if name != "checksum"}
    return fields.get("checksum") == _checksum(rest)


def _check_version(copies: Sequence[Mapping[str, object]]) -> None:
    for fields in copies:
        version = fields.get("version", VERSION)
        if isinstance(version, int) and version != VERSION:
            raise SpoolUnusable(
                f"the spool has version {version}, this client knows {VERSION}: let the client "
                "that wrote it send what it holds, or name another folder",
                reason=Reason.OTHER_VERSION,
            )


def _checksum(fields: Mapping[str, object]) -> int:
    return crc32(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


def _manifest_from_fields(fields: Mapping[str, object]) -> Manifest | None:
    producer, salt, offsets = fields.get("producer"), fields.get("salt"), fields.get("offsets")
    if not isinstance(producer, str) or not isinstance(salt, int):
        return None
    doubtful = fields.get("doubtful")
    if not isinstance(offsets, Sequence) or not isinstance(doubtful, Sequence):
        return None
    return Manifest(
        producer=producer,
        salt=salt,
        offsets=tuple((first, offset) for first, offset in offsets),
        doubtful=tuple((first, end) for first, end in doubtful),
    )
