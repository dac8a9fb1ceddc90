"""Whole numbers as planes of half bytes, the form of the journal and of its fastest senders; pure.

Number i is a base plus the i-th unsigned number of h half bytes, least significant plane first:
h // 2 planes of a byte each and, where h is odd, one of half bytes, two in a byte.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

import numpy as np

from meter.domain.event import Int64Array, IntArray, Uint8Array

HALF_BYTES_MAX: Final = 16
# The bytes of a column.
Packed: TypeAlias = bytes | memoryview
# A type that holds numbers of so many whole bytes, little-endian.
_TYPES: Final = ("u1", "u1", "<u2", "<u4", "<u4", "<i8", "<i8", "<i8", "<i8")
# Of numbers from 0, by the highest that they hold; and of all others.
_NARROW: Final = tuple((256**size - 1, np.dtype(f"<u{size}")) for size in (1, 2, 4))
_WIDE: Final = np.dtype(np.int64)
# Steps between offsets up to it fit into four bytes, with their signs.
_STEP_MAX: Final = 2**31 - 1
# So many numbers are split at a time; even, since two half bytes share a byte.
BLOCK: Final = 16_384
# Columns of fewer numbers are read together: what costs is each call of numpy, not what moves.
TOGETHER_MAX: Final = 1_024
_HIGHEST: Final = [16**each - 1 for each in range(HALF_BYTES_MAX + 1)]


def span_of(half_bytes: int, base: int) -> tuple[int, int]:
    """Return the lowest and the highest number that so many half bytes above a base can hold."""
    return base, base + _HIGHEST[half_bytes]


def half_bytes_of(highest: int) -> int:
    """Return how many half bytes a number from 0 takes; 0 takes none."""
    return (highest.bit_length() + 3) // 4


def planes_size(count: int, half_bytes: int) -> int:
    """Return how many bytes the planes of `count` numbers take."""
    whole, rest = divmod(half_bytes, 2)
    return whole * count + rest * ((count + 1) // 2)


def to_planes(values: IntArray, half_bytes: int) -> bytes:
    """Return the planes of numbers from 0 that fit into so many half bytes."""
    return b"".join(split(values, half_bytes))


def split(values: IntArray, half_bytes: int, *, base: int = 0) -> list[memoryview]:
    """Return the planes of numbers less a base as `to_planes` does, in parts to be joined."""
    planes: list[list[memoryview]] = [[] for _ in range((half_bytes + 1) // 2)]
    if planes:
        # Arrays in between of some pages, which are used again, and not of some megabytes.
        for begin in range(0, len(values), BLOCK):
            block = values[begin : begin + BLOCK]
            for plane, part in zip(
                planes, _split(block - base if base else block, half_bytes), strict=True
            ):
                plane += [each.data for each in part]
    return [part for plane in planes for part in plane]


def _split(values: IntArray, half_bytes: int) -> list[list[Uint8Array]]:
    whole, rest = divmod(half_bytes, 2)
    numbers = values.astype(_TYPES[whole + rest], copy=False)
    # Shifted and cut off, which a processor does to many numbers at once.
    planes = [
        [(numbers >> 8 * it if it else numbers).astype(np.uint8, copy=False)]
        for it in range(whole + rest)
    ]
    if rest:
        plane = np.ascontiguousarray(planes.pop()[0])
        paired = len(plane) // 2 * 2
        pairs = plane[:paired].view("<u2")
        planes.append([(pairs >> 4 | pairs).astype(np.uint8), plane[paired:]])
    return planes


def narrow(values: IntArray) -> IntArray:
    """Return numbers from 0 in as few bytes as hold them, others as they are."""
    kind = np.min_scalar_type(int(values.max(initial=0)))
    if kind.itemsize >= values.itemsize or int(values.min(initial=0)) < 0:
        return values
    return values.astype(kind)


def offsets_of(values: IntArray, base: int, *, highest: int) -> IntArray:
    """Return how far numbers lie above the lowest, in a type that also holds their steps."""
    if highest - base > _STEP_MAX:
        return values - base
    offsets = np.empty(len(values), np.int32)
    # What moves is what costs: no array of eight bytes a number is made in between.
    return np.subtract(values, base, out=offsets, casting="unsafe")


def from_planes(data: Packed, *, half_bytes: int, base: int, count: int) -> IntArray:
    """Return the numbers, of which `data` has all planes; raises ValueError where it has others.

    They are as narrow as any are that lie between those of `span_of`, and may not be written to.
    """
    if not 0 <= half_bytes <= HALF_BYTES_MAX or len(data) != planes_size(count, half_bytes):
        raise ValueError(f"{len(data)} bytes for {count} numbers of {half_bytes} half bytes")
    kind = _kind_of(*span_of(half_bytes, base))
    if not half_bytes:
        return np.full(count, base, kind)
    raw = np.frombuffer(data, np.uint8)
    whole, rest = divmod(half_bytes, 2)
    planes = [raw[place * count : (place + 1) * count] for place in range(whole)]
    if rest:
        planes.append(_halves(raw[whole * count :], count))
    # The highest first. Where numbers are shifted, what moves is what costs.
    values = planes.pop().astype(kind, copy=False)
    for plane in reversed(planes):
        values <<= 8
        values |= plane
    return values + base if base else values


def from_columns(
    planes: Sequence[Packed], *, half_bytes: Sequence[int], bases: Sequence[int], count: int
) -> Sequence[IntArray]:
    """Return the numbers of each column as `from_planes`, `count` in each; few are int64."""
    if not 0 < count < TOGETHER_MAX:
        return [
            from_planes(data, half_bytes=each, base=base, count=count)
            for data, each, base in zip(planes, half_bytes, bases, strict=True)
        ]
    for data, each in zip(planes, half_bytes, strict=True):
        if not 0 <= each <= HALF_BYTES_MAX or len(data) != planes_size(count, each):
            raise ValueError(f"{len(data)} bytes for {count} numbers of {each} half bytes")
    values = from_runs(planes, half_bytes=half_bytes, bases=bases, counts=[count] * len(planes))
    return list(values.reshape(len(planes), count))


def from_runs(
    planes: Sequence[Packed],
    *,
    half_bytes: Sequence[int],
    bases: Sequence[int],
    counts: Sequence[int],
) -> Int64Array:
    """Return the numbers of runs, one behind the other: `counts` in each, of a width of its own.

    The data of each run has the size that it should have: nobody looks.
    """
    runs = list(zip(planes, half_bytes, counts, strict=True))
    # In the order in which they are wanted: the lowest plane's come first.
    halves = _halves_of(sorted((run for run in runs if run[1] % 2), key=itemgetter(1)))
    values = np.repeat(np.array(bases, np.int64), counts)
    nothing = bytes(max(counts))
    for plane in range((max(half_bytes) + 1) // 2):
        whole, place = 2 * plane + 1, plane + 1
        joined = b"".join(
            [
                data[plane * n : place * n]
                if each > whole
                else next(halves)
                if each == whole
                else nothing[:n]
                for data, each, n in runs
            ]
        )
        part = np.frombuffer(joined, np.uint8)
        values += part.astype(np.int64) << 8 * plane if plane else part
    return values


def _halves_of(runs: Sequence[tuple[Packed, int, int]]) -> Iterator[bytes]:
    """Yield the plane of half bytes of each run that has one, a byte for each number."""
    packed = np.frombuffer(b"".join([data[each // 2 * n :] for data, each, n in runs]), np.uint8)
    numbers = _halves(packed, 2 * len(packed)).tobytes()
    place = 0
    for _, _, count in runs:
        yield numbers[place : place + count]
        place += count + count % 2


def _halves(packed: Uint8Array, count: int) -> Uint8Array:
    pairs = packed.astype("<u2")
    pairs |= pairs << 4
    pairs &= 0x0F0F
    return pairs.view(np.uint8)[:count]


def _kind_of(lowest: int, highest: int) -> "np.dtype[np.integer[Any]]":
    """Return the narrowest type of all numbers between two; what has a sign takes eight bytes."""
    if lowest >= 0:
        for most, kind in _NARROW:
            if highest <= most:
                return kind
    return _WIDE
