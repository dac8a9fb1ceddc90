"""Columns of some segments side by side, added up by row: the audit's own sums; pure, exact."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from meter.domain.event import BoolArray, Int64Array
from meter.domain.tokens import (
    BAND_EDGES,
    OUTPUT_CLASSES,
    PROMPT_CLASSES,
    Finish,
    FinishClass,
    Quality,
    TokenClass,
)
from meter.segment import Segment

CLASS_NAMES: Final = tuple(token_class.name.lower() for token_class in TokenClass)
# The columns of sums, in the order of their places in every table here.
SUM_NAMES: Final = (*CLASS_NAMES, "request_count", "delivered_output_count", "estimated_count")
# Room for what a damaged row of usage may hold, beside the bands and classes that exist.
BANDS: Final = 16
FINISHES: Final = 4
EXTRAS: Final = BANDS * FINISHES
_PLACE_OF_CLASS: Final = {int(number): place for place, number in enumerate(TokenClass)}
_REQUESTS, _DELIVERED, _ESTIMATED = (len(CLASS_NAMES) + step for step in range(3))
# Rows that are numbered without a sort, whatever the events.
_DENSE_ROWS_MAX: Final = 1_000_000
# Sums in doubles are exact below this.
_EXACT_MAX: Final = 2**53


class Block:
    """The columns of some segments, side by side."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._kept: BoolArray | None = None
        classes = {number for part in segments for number in part.tokens}
        self.classes = classes & _PLACE_OF_CLASS.keys()
        self.unknown_classes = classes - _PLACE_OF_CLASS.keys()

    def keep(self, wanted: BoolArray) -> None:
        """Go on with these events alone, of those that are left."""
        if self._kept is None:
            self._kept = wanted
        else:
            self._kept[self._kept] = wanted

    def values(self, name: str) -> Int64Array:
        """Return a column that every segment has, or the defaults in its place."""
        parts = [
            part.columns[name] if name in part.columns else part.column(name)
            for part in self._segments
        ]
        return self._of_kept(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def counts(self, number: int) -> Int64Array:
        """Return the tokens of a class."""
        parts = [
            part.tokens[number] if number in part.tokens else np.zeros(len(part), np.int64)
            for part in self._segments
        ]
        return self._of_kept(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def find(self, name: str) -> Int64Array | None:
        """Return a column, or None where all of it is default."""
        present = any(name in part.columns for part in self._segments)
        return self.values(name) if present else None

    def bands(self) -> Int64Array:
        """Return the place of each prompt's total on the ladder."""
        prompt = np.zeros(len(self.values("dimension")), np.int64)
        for number in self.classes & {int(each) for each in PROMPT_CLASSES}:
            prompt += self.counts(number)
        band = np.zeros(len(prompt), np.int64)
        for edge in BAND_EDGES:
            above = prompt >= edge
            if not above.any():
                break
            band += above
        return band

    def finish_classes(self) -> Int64Array | int:
        """Return how each request ended, as usage keeps it."""
        finish = self.find("finish")
        if finish is None:
            return int(FinishClass.DELIVERED)
        ended = np.full(len(finish), int(FinishClass.DELIVERED), np.int64)
        ended[finish == Finish.CANCELLED] = FinishClass.CANCELLED
        ended[finish == Finish.FAILED] = FinishClass.FAILED
        return ended

    def sums(self, row: Int64Array, *, count: int, finish_class: Int64Array) -> Int64Array:
        """Return the sums of each row, of the events whose rows these are."""
        sums = np.zeros((count, len(SUM_NAMES)), np.int64)
        sign, quality = self.find("sign"), self.find("quality")
        uncertain = None if quality is None else quality != Quality.FINAL
        for number in sorted(self.classes):
            counts = self.counts(number)
            if sign is not None:
                counts = counts * sign
            sums[:, _PLACE_OF_CLASS[number]] = _add_up(row, counts, count=count)
            if uncertain is not None and uncertain.any():
                sums[:, _ESTIMATED] += _add_up(row[uncertain], counts[uncertain], count=count)
        sums[:, _REQUESTS] = (
            np.bincount(row, minlength=count) if sign is None else _add_up(row, sign, count=count)
        )
        outputs = [_PLACE_OF_CLASS[int(number)] for number in OUTPUT_CLASSES]
        delivered = finish_class == FinishClass.DELIVERED
        sums[delivered, _DELIVERED] = sums[delivered][:, outputs].sum(axis=1)
        return sums

    def _of_kept(self, values: Int64Array) -> Int64Array:
        return values if self._kept is None else values[self._kept]


def number_rows(
    place: Int64Array, *, size_of_pairs: int, extra: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Return the distinct keys (place × extras + extra), and for each event its key's place."""
    # Whole intervals, from the first that occurs.
    base = int(place.min()) // size_of_pairs * size_of_pairs
    span = int(place.max()) - base + 1
    kinds = np.flatnonzero(np.bincount(extra, minlength=EXTRAS))
    if span * len(kinds) > max(_DENSE_ROWS_MAX, 8 * len(place)):
        return np.unique(place * EXTRAS + extra, return_inverse=True)
    code = place - base
    if len(kinds) > 1:
        number = np.zeros(EXTRAS, np.int64)
        number[kinds] = np.arange(len(kinds))
        code = code * len(kinds) + number[extra]
    present = np.flatnonzero(np.bincount(code, minlength=span * len(kinds)))
    row = np.zeros(span * len(kinds), np.int64)
    row[present] = np.arange(len(present))
    where, kind = np.divmod(present, len(kinds))
    return (where + base) * EXTRAS + kinds[kind], row[code]


def _add_up(row: Int64Array, values: Int64Array, *, count: int) -> Int64Array:
    if not len(values):
        return np.zeros(count, np.int64)
    largest = max(-int(values.min()), int(values.max()))
    if largest * len(values) < _EXACT_MAX:
        return np.bincount(row, weights=values, minlength=count).astype(np.int64)
    # Only a damaged segment has such numbers.
    sums = np.zeros(count, np.int64)
    np.add.at(sums, row, values)
    return sums
