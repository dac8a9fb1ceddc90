"""Whole numbers as planes of half bytes, the form of the journal and of its fastest senders; pure.

Number i is a base plus the i-th unsigned number of h half bytes, least significant plane first:
h // 2 planes of a byte each and, where h is odd, one of half bytes, two in a byte.
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from meter.domain.event import Int64Array

HALF_BYTES_MAX: Final = 16
# The bytes of a column.
Packed: TypeAlias = bytes | memoryview
# A type that holds numbers of so many whole bytes, little-endian.
_TYPES: Final = ("u1", "u1", "<u2", "<u4", "<u4", "<i8", "<i8", "<i8", "<i8")


def half_bytes_of(highest: int) -> int:
    """Return how many half bytes a number from 0 takes; 0 takes none."""
    return (highest.bit_length() + 3) // 4


def planes_size(count: int, half_bytes: int) -> int:
    """Return how many bytes the planes of `count` numbers take."""
    whole, rest = divmod(half_bytes, 2)
    return whole * count + rest * ((count + 1) // 2)


def to_planes(values: Int64Array, half_bytes: int) -> bytes:
    """Return the planes of numbers from 0 that fit into so many half bytes."""
    if not half_bytes:
        return b""
    whole, rest = divmod(half_bytes, 2)
    kind = np.dtype(_TYPES[whole + rest])
    planes = values.astype(kind).view(np.uint8).reshape(len(values), kind.itemsize)
    data = [planes[:, plane].tobytes() for plane in range(whole)]
    if rest:
        top = planes[:, whole]
        low, high = top[0::2], top[1::2]
        packed = low.copy()
        packed[: len(high)] |= high << 4
        data.append(packed.tobytes())
    return b"".join(data)


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
        narrow: npt.NDArray[np.uint8] = raw if whole else _halves(raw, count)
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


def _halves(packed: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    halves = np.empty(count, np.uint8)
    halves[0::2] = packed & 15
    halves[1::2] = packed[: count // 2] >> 4
    return halves
