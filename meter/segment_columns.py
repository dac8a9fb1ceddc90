"""Columns of a segment: whole numbers as planes above their lowest, and some taken out again.

The few numbers of a column that are far higher than the others would make all of them wide. What
is above the planes of these is kept apart, with its places: `docs/internals/journal.md`.
"""

from typing import Final, NamedTuple

import numpy as np

from meter.domain.event import Int64Array, IntArray
from meter.planes import Packed, from_planes, half_bytes_of, offsets_of, planes_size, split

# Values that are compared one after the other; above it, each row's value is looked up.
_COMPARED_MAX: Final = 16
# Of how many values of a column it is found out how wide the most of them are.
_LOOKED_AT: Final = 4_096


class Column(NamedTuple):
    """How one column is packed. Value i is base + unsigned i.

    With a `start`, value i is start + the sum of (base + unsigned) up to i. Of `above_count` values
    the unsigned number has `above_half_bytes` more, which lie behind the planes.
    """

    name: str
    half_bytes: int
    base: int
    start: int | None
    above_count: int = 0
    above_half_bytes: int = 0

    def said(self) -> tuple[str | int | None, ...]:
        """Return it as a head has it: without what is nothing."""
        return self if self.above_count else self[:4]

    def size_bytes(self, count: int) -> int:
        """Return what `count` values take; raises ValueError where that cannot be."""
        size = planes_size(count, self.half_bytes)
        if not self.above_count:
            return size
        if not 0 < self.above_count <= count:
            raise ValueError(f"{self.above_count} of {count} values are high")
        return size + sum(planes_size(self.above_count, it) for it in self._above_widths(count))

    def split_above(self, data: Packed, count: int) -> tuple[Int64Array, Int64Array]:
        """Return the rows that are higher than the planes, in order, and what to add to each."""
        places, above = self._above_widths(count)
        begin = planes_size(count, self.half_bytes)
        end = begin + planes_size(self.above_count, places)
        rows = from_planes(data[begin:end], half_bytes=places, base=0, count=self.above_count)
        added = from_planes(data[end:], half_bytes=above, base=0, count=self.above_count)
        return rows.astype(np.int64), added.astype(np.int64) << 4 * self.half_bytes

    def _above_widths(self, count: int) -> tuple[int, int]:
        return half_bytes_of(count - 1), self.above_half_bytes


def pack(name: str, values: IntArray, *, is_parted: bool) -> tuple[Column, list[memoryview]]:
    """Return how a column is packed, and its bytes in parts; times may become steps.

    `is_parted`: what is above the most of its values may lie apart, where that takes less.
    """
    if not len(values):
        return Column(name, 0, 0, None), []
    base, highest = int(values.min()), int(values.max())
    half_bytes = half_bytes_of(highest - base)
    if name == "end_ms" and half_bytes > 1:
        return _pack_times(name, values, base=base, highest=highest)
    fewer = _find_fewer(values, base, half_bytes=half_bytes) if is_parted else half_bytes
    if fewer == half_bytes:
        return Column(name, half_bytes, base, None), split(values, half_bytes, base=base)
    rows = np.flatnonzero(values >= base + 16**fewer)
    high = values[rows].astype(np.int64) - base
    low = values.copy()
    low[rows] = (high & 16**fewer - 1) + base
    column = Column(name, fewer, base, None, len(rows), half_bytes - fewer)
    return column, [
        *split(low, fewer, base=base),
        *split(rows, half_bytes_of(len(values) - 1)),
        *split(high >> 4 * fewer, half_bytes - fewer),
    ]


def unpack(data: Packed, column: Column, count: int) -> Int64Array:
    """Return all values of a column; raises ValueError where its bytes are not those of so many."""
    size = planes_size(count, column.half_bytes)
    low = data[:size] if column.above_count else data
    numbers = from_planes(low, half_bytes=column.half_bytes, base=column.base, count=count)
    values = numbers.astype(np.int64)
    if column.above_count:
        rows, added = column.split_above(data, count)
        values[rows] += added
    if column.start is not None:
        np.cumsum(values, out=values)
        values += column.start
    return values


def find_rows(data: Packed, column: Column, *, count: int, wanted: Int64Array) -> Int64Array:
    """Return the rows of a packed column that have one of the wanted values, which rise.

    It has no `start`. A byte of each value is compared before any value is put together: few match.
    """
    assert column.start is None, "steps are no values"
    assert not column.above_count, "its planes have all of each value"
    offsets = wanted - column.base
    offsets = offsets[(offsets >= 0) & (offsets < 16**column.half_bytes)]
    if not len(offsets):
        return np.empty(0, np.int64)
    whole = column.half_bytes // 2
    if not whole or len(offsets) > _COMPARED_MAX:
        return np.flatnonzero(np.isin(unpack(data, column, count), wanted))
    raw = np.frombuffer(data, np.uint8)
    found = np.zeros(count, np.bool_)
    for offset in offsets.tolist():
        matches = raw[:count] == offset & 255
        for plane in range(1, whole):
            matches &= raw[plane * count : (plane + 1) * count] == offset >> 8 * plane & 255
        found |= matches
    rows = np.flatnonzero(found)
    if column.half_bytes % 2:
        rows = rows[np.isin(take(data, column, count=count, rows=rows), wanted)]
    return rows


def take(data: Packed, column: Column, *, count: int, rows: Int64Array) -> Int64Array:
    """Return the values of a packed column at some rows, in their order."""
    if column.start is not None:
        return unpack(data, column, count)[rows]
    raw = np.frombuffer(data, np.uint8)
    values = np.full(len(rows), column.base, np.int64)
    whole, rest = divmod(column.half_bytes, 2)
    for plane in range(whole):
        values += raw[plane * count : (plane + 1) * count][rows].astype(np.int64) << 8 * plane
    if rest:
        pairs = raw[whole * count :][rows // 2].astype(np.int64)
        values += (pairs >> 4 * (rows % 2) & 15) << 8 * whole
    if column.above_count:
        high, added = column.split_above(data, count)
        at = np.minimum(np.searchsorted(high, rows), len(high) - 1)
        values += np.where(high[at] == rows, added[at], 0)
    return values


def _pack_times(
    name: str, values: IntArray, *, base: int, highest: int
) -> tuple[Column, list[memoryview]]:
    half_bytes = half_bytes_of(highest - base)
    offsets = offsets_of(values, base, highest=highest)
    # Reports arrive nearly in order of time: the steps are often narrower than the span.
    steps = np.diff(offsets, prepend=offsets[:1])
    step_base, highest_step = int(steps.min()), int(steps.max())
    narrower = half_bytes_of(highest_step - step_base)
    if narrower < half_bytes:
        start = int(values[0])
        return Column(name, narrower, step_base, start), split(steps, narrower, base=step_base)
    return Column(name, half_bytes, base, None), split(offsets, half_bytes)


def _find_fewer(values: IntArray, base: int, *, half_bytes: int) -> int:
    """Return the half bytes of a column that takes the least with what is above them apart.

    Of many values some are looked at, always the same ones, and the highest is among them.
    """
    place_half_bytes = half_bytes_of(len(values) - 1)
    looked_at = values[:: len(values) // _LOOKED_AT + 1]
    # In half bytes.
    least, best = half_bytes * len(looked_at), half_bytes
    for fewer in range(half_bytes - 1, -1, -1):
        above = 1 + int(np.count_nonzero(looked_at >= base + 16**fewer))
        size = fewer * len(looked_at) + above * (place_half_bytes + half_bytes - fewer)
        if size >= least:
            break
        least, best = size, fewer
    return best
