"""Whole numbers as planes of half bytes, the form of the journal and of its fastest senders; pure.

Number i is a base plus the i-th unsigned number of h half bytes, least significant plane first:
h // 2 planes of a byte each and, where h is odd, one of half bytes, two in a byte.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from meter.domain.event import Int64Array, Uint8Array

# Whole numbers of any width.
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]

HALF_BYTES_MAX: Final = 16
# The bytes of a column.
Packed: TypeAlias = bytes | memoryview
# A type that holds numbers of so many whole bytes, little-endian.
_TYPES: Final = ("u1", "u1", "<u2", "<u4", "<u4", "<i8", "<i8", "<i8", "<i8")
# Columns of fewer numbers are read together: what costs is each call of numpy, not what moves.
TOGETHER_MAX: Final = 1_024
# A binary fraction holds thirteen half bytes and the sums that make them to the last bit.
_TOGETHER_HALF_BYTES_MAX: Final = 13
_WEIGHTS_KEPT: Final = 1_024
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


def split(values: IntArray, half_bytes: int) -> list[memoryview]:
    """Return the planes of numbers as `to_planes` does, each for itself."""
    if not half_bytes:
        return []
    whole, rest = divmod(half_bytes, 2)
    narrow = values.astype(_TYPES[whole + rest], copy=False)
    # Shifted and cut off, which a processor does to many numbers at once.
    planes = [
        (narrow >> 8 * it if it else narrow).astype(np.uint8, copy=False)
        for it in range(whole + rest)
    ]
    if rest:
        low, high = planes[-1][0::2], planes[-1][1::2]
        packed = low.copy()
        packed[: len(high)] |= high << 4
        planes[-1] = packed
    return [plane.data for plane in planes]


def from_planes(data: Packed, *, half_bytes: int, base: int, count: int) -> Int64Array:
    """Return the numbers, of which `data` has all planes; raises ValueError where it has others."""
    if not 0 <= half_bytes <= HALF_BYTES_MAX or len(data) != planes_size(count, half_bytes):
        raise ValueError(f"{len(data)} bytes for {count} numbers of {half_bytes} half bytes")
    if not half_bytes:
        return np.full(count, base, np.int64)
    raw = np.frombuffer(data, np.uint8)
    whole, rest = divmod(half_bytes, 2)
    kind = np.dtype(_TYPES[whole + rest])
    if whole + rest == kind.itemsize == 1:
        narrow: Uint8Array = raw if whole else _halves(raw, count)
        values = narrow.astype(np.int64)
    else:
        # Fewer bytes than eight to a number: what moves is what costs.
        make = np.empty if whole + rest == kind.itemsize else np.zeros
        planes = make((count, kind.itemsize), np.uint8)
        for plane in range(whole):
            planes[:, plane] = raw[plane * count : (plane + 1) * count]
        if rest:
            planes[:, whole] = _halves(raw[whole * count :], count)
        values = planes.view(kind).reshape(count).astype(np.int64)
    if base:
        values += base
    return values


def from_columns(
    planes: Sequence[Packed], *, half_bytes: Sequence[int], bases: Sequence[int], count: int
) -> Sequence[Int64Array]:
    """Return the numbers of each column, `count` in each; raises ValueError as `from_planes`."""
    if not 0 < count < TOGETHER_MAX or max(half_bytes) > _TOGETHER_HALF_BYTES_MAX:
        return [
            from_planes(data, half_bytes=each, base=base, count=count)
            for data, each, base in zip(planes, half_bytes, bases, strict=True)
        ]
    whole_bytes: list[Packed] = []
    halves: list[Packed] = []
    half_size = (count + 1) // 2
    for data, each in zip(planes, half_bytes, strict=True):
        end = each // 2 * count
        if each < 0 or len(data) != end + each % 2 * half_size:
            raise ValueError(f"{len(data)} bytes for {count} numbers of {each} half bytes")
        whole_bytes.append(data[:end])
        halves.append(data[end:])
    weights = _weights(tuple(half_bytes))
    planes_count = weights.shape[1]
    whole_count = planes_count - sum(each % 2 for each in half_bytes)
    parts = np.empty((planes_count, count))
    parts[:whole_count] = np.frombuffer(b"".join(whole_bytes), np.uint8).reshape(-1, count)
    if whole_count < planes_count:
        packed = np.frombuffer(b"".join(halves), np.uint8).reshape(-1, half_size)
        parts[whole_count:, 0::2] = packed & 15
        parts[whole_count:, 1::2] = packed[:, : count // 2] >> 4
    values: npt.NDArray[np.int64] = (weights @ parts).astype(np.int64)
    values += np.array(bases, np.int64)[:, np.newaxis]
    return list(values)


@lru_cache(_WEIGHTS_KEPT)
def _weights(half_bytes: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return what each plane counts in each column: all planes of bytes first, then the halves."""
    whole_count = sum(each // 2 for each in half_bytes)
    weights = np.zeros((len(half_bytes), whole_count + sum(each % 2 for each in half_bytes)))
    whole, half = 0, whole_count
    for row, each in enumerate(half_bytes):
        for plane in range(each // 2):
            weights[row, whole] = 256.0**plane
            whole += 1
        if each % 2:
            weights[row, half] = 256.0 ** (each // 2)
            half += 1
    return weights


def _halves(packed: Uint8Array, count: int) -> Uint8Array:
    halves = np.empty(count, np.uint8)
    halves[0::2] = packed & 15
    halves[1::2] = packed[: count // 2] >> 4
    return halves
