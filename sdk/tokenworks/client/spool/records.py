"""A spool's bytes: what a segment file consists of, how it is written and how it is read.

A segment is a header and records one behind the other. A record begins with a head that has a
checksum of its own: so where its content is damaged its length still holds, and where the head is
damaged the next one can be found. All checksums begin from a number drawn for the spool and the
segment's name: content that somebody reports can never pass for a record, nor can stale blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from tokenworks.client.columns import SealedBatch

VERSION: Final = 1
MAGIC: Final = b"TWSPOOL\n"


class Kind(IntEnum):
    """What a record is; the numbers are never reused. Kinds that are not known are skipped."""

    DAMAGED = 0
    """No record: bytes whose head cannot be read."""
    BATCH = 1
    PROGRESS = 2
    """The last known content of a running report."""
    ENDED = 3
    """A running report ended without anything that counts."""
    RELEASED = 4
    """All up to this local number was durable at the meter when this was written."""


class Stretch(NamedTuple):
    """Bytes of a segment that belong together."""

    kind: int
    start: int
    body: int
    """Where the content begins."""
    end: int
    is_whole: bool
    """Whether it is a record that can be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """How a segment begins."""

    version: int
    salt: int
    first: int
    """Local number of its first batch; from here on the batches of older segments are void."""


class BatchHead(NamedTuple):
    """What stands before a batch's payload."""

    local: int
    event_count: int
    total_event_count: int
    """Events of all batches up to this one, since the spool was made."""
    settle_count: int


_HEADER: Final = Struct("<8sIIQ")
_CHECKSUM: Final = Struct("<I")
HEADER_SIZE: Final = _HEADER.size + _CHECKSUM.size

# No byte of UTF-8 is 0xF7, so a text that is reported cannot even look like a record.
_MARKER: Final = b"\xf7TWr"
_HEAD: Final = Struct("<4sBII")
HEAD_SIZE: Final = _HEAD.size + _CHECKSUM.size
_BATCH: Final = Struct("<QIQI")
_NUMBER: Final = Struct("<Q")
BATCH_OVERHEAD: Final = HEAD_SIZE + _BATCH.size
"""Bytes that a batch takes beside its payload, without the keys that it settles."""

# A tail that ends in so many zeros was never written; no payload of real events ends so.
_ZEROS: Final = bytes(32)


def encode_header(first: int, *, salt: int) -> bytes:
    """Return how a segment begins."""
    fields = _HEADER.pack(MAGIC, VERSION, salt, first)
    return fields + _CHECKSUM.pack(crc32(fields))


def read_header(data: bytes) -> Header | None:
    """Read how a segment begins; None where that is damaged, or no segment's."""
    if len(data) < HEADER_SIZE:
        return None
    magic, version, salt, first = _HEADER.unpack_from(data)
    (checksum,) = _CHECKSUM.unpack_from(data, _HEADER.size)
    if magic != MAGIC or checksum != crc32(data[: _HEADER.size]):
        return None
    return Header(version=version, salt=salt, first=first)


def seed_of(first: int, *, salt: int) -> int:
    """Return what the checksums of the segment that begins with a local number begin from."""
    return crc32(_NUMBER.pack(first), salt)


def encode_batch(
    batch: SealedBatch, *, local: int, total_event_count: int, settles: Sequence[int], seed: int
) -> bytes:
    """Return a batch as a record; `total_event_count` includes it."""
    front = _BATCH.pack(local, batch.event_count, total_event_count, len(settles))
    if settles:
        front += Struct(f"<{len(settles)}Q").pack(*settles)
    return _record(Kind.BATCH, front, batch.payload, seed=seed)


def encode_progress(key: int, *, payload: bytes, seed: int) -> bytes:
    """Return the content of a running report as a record; without any, the report has ended."""
    kind = Kind.PROGRESS if payload else Kind.ENDED
    return _record(kind, _NUMBER.pack(key), payload, seed=seed)


def encode_released(local: int, *, seed: int) -> bytes:
    """Return the note that all up to a local number is durable."""
    return _record(Kind.RELEASED, _NUMBER.pack(local), b"", seed=seed)


def walk(data: bytes, *, seed: int) -> Iterator[Stretch]:
    """Yield the stretches of a segment from its header on; only the last one can be cut off."""
    position, size = HEADER_SIZE, len(data)
    while position < size:
        head = _find_head(data, position, seed=seed)
        if head is None:
            end = _next_head(data, position + 1, seed=seed)
            yield Stretch(Kind.DAMAGED, position, position, end, is_whole=False)
        else:
            kind, length, checksum = head
            body = position + HEAD_SIZE
            end = body + length
            is_whole = end <= size and crc32(memoryview(data)[body:end], seed) == checksum
            end = min(end, size)
            yield Stretch(kind, position, body, end, is_whole)
        position = end


def is_torn(data: bytes, stretch: Stretch, *, seed: int) -> bool:
    """Whether the last stretch of a segment is the beginning of a record that was never finished.

    Otherwise it was whole once, and may have been sent.
    """
    if stretch.end != len(data):
        return False
    if data.endswith(_ZEROS) or not data[stretch.start :].strip(b"\0"):
        # A disk may have made room before the bytes came.
        return True
    head = _find_head(data, stretch.start, seed=seed)
    if head is None:
        return stretch.end - stretch.start < HEAD_SIZE
    return stretch.body + head[1] > len(data)


def read_batch_head(data: bytes, position: int) -> BatchHead:
    """Read what stands before a batch's payload, at the beginning of a whole record's content."""
    return BatchHead(*_BATCH.unpack_from(data, position))


def read_settles(data: bytes, position: int) -> Sequence[int]:
    """Return the keys of the running reports that a batch settles."""
    count = read_batch_head(data, position).settle_count
    return Struct(f"<{count}Q").unpack_from(data, position + _BATCH.size)


def read_number(data: bytes, position: int) -> int:
    """Read the key or the local number with which the content of other records begins."""
    (number,) = _NUMBER.unpack_from(data, position)
    return int(number)


def read_progress_payload(data: bytes, stretch: Stretch) -> bytes:
    """Return the content of a running report."""
    return data[stretch.body + _NUMBER.size : stretch.end]


def read_batch(data: bytes, *, local: int, seed: int) -> SealedBatch | None:
    """Read a batch from the bytes of its record; None where they are damaged, or not its own."""
    head = _find_head(data, 0, seed=seed)
    if head is None or head[:2] != (Kind.BATCH, len(data) - HEAD_SIZE):
        return None
    if crc32(memoryview(data)[HEAD_SIZE:], seed) != head[2]:
        return None
    front = read_batch_head(data, HEAD_SIZE)
    if front.local != local:
        return None
    payload = data[BATCH_OVERHEAD + _NUMBER.size * front.settle_count :]
    return SealedBatch(payload=payload, event_count=front.event_count)


def _record(kind: Kind, front: bytes, payload: bytes, *, seed: int) -> bytes:
    checksum = crc32(payload, crc32(front, seed))
    head = _HEAD.pack(_MARKER, kind, len(front) + len(payload), checksum)
    return b"".join((head, _CHECKSUM.pack(crc32(head, seed)), front, payload))


def _find_head(data: bytes, position: int, *, seed: int) -> tuple[int, int, int] | None:
    """Return kind, length and checksum of the record that begins here; None where none does."""
    if position + HEAD_SIZE > len(data) or not data.startswith(_MARKER, position):
        return None
    middle = position + _HEAD.size
    if _CHECKSUM.unpack_from(data, middle)[0] != crc32(data[position:middle], seed):
        return None
    _, kind, length, checksum = _HEAD.unpack_from(data, position)
    return kind, length, checksum


def _next_head(data: bytes, position: int, *, seed: int) -> int:
    """Return where the next record begins; the end where none does."""
    while (position := data.find(_MARKER, position)) >= 0:
        if _find_head(data, position, seed=seed) is not None:
            return position
        position += 1
    return len(data)
