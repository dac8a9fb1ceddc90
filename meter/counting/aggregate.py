"""Adds events up per dimension, interval, band and way of ending; pure, exact, in integers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from meter.counted import Sampled
from meter.domain.event import SIGN, Int64Array
from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import LAG_SAMPLES_MAX
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

_BANDS: Final = len(BAND_EDGES) + 1
_FINISHES: Final = len(FinishClass)
_CLASS_OF_FINISH: Final = np.array(
    [
        0,
        *(
            {Finish.CANCELLED: FinishClass.CANCELLED, Finish.FAILED: FinishClass.FAILED}.get(
                finish, FinishClass.DELIVERED
            )
            for finish in Finish
        ),
    ],
    np.int64,
)
# Keys are counted densely while their product stays below this; else they are sorted.
_DENSE_KEYS_MAX: Final = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageDelta:
    """What a run of segments adds to usage: r rows, an int64 array each.

    `tokens` maps every class that occurs to its sums. `sampled` are some of their events.
    """

    dimension_id: Int64Array
    interval_start_ms: Int64Array
    band: Int64Array
    finish_class: Int64Array
    tokens: Mapping[TokenClass, Int64Array]
    request_count: Int64Array
    delivered_output_count: Int64Array
    estimated_count: Int64Array
    sampled: Sampled

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dimension_id)


def aggregate(segments: Sequence[Segment]) -> UsageDelta:
    """Add up segments; at least one event in all.

    What a correction takes back is subtracted under the very keys under which it was counted.
    """
    dimension = np.concatenate([part.columns["dimension"] for part in segments])
    end_ms = np.concatenate([part.columns["end_ms"] for part in segments])
    interval = end_ms // INTERVAL_MS
    tokens = _tokens(segments, len(dimension))
    finish = _CLASS_OF_FINISH[_column(segments, "finish")]
    band = np.searchsorted(BAND_EDGES, _total(tokens, PROMPT_CLASSES, len(dimension)), "right")
    estimated = _column(segments, "quality") != Quality.FINAL
    sign = _column(segments, SIGN) if any(part.is_correction for part in segments) else None
    if sign is not None:
        # After the band: an event that is taken back lies where its prompt has put it.
        tokens = {number: counts * sign for number, counts in tokens.items()}
    first_dimension, first_interval = int(dimension.min()), int(interval.min())
    intervals = int(interval.max()) - first_interval + 1
    code = (dimension - first_dimension) * intervals + (interval - first_interval)
    code = (code * _BANDS + band) * _FINISHES + (finish - 1)
    keys, row = _rows(code)

    def add(values: Int64Array) -> Int64Array:
        sums = np.zeros(len(keys), np.int64)
        np.add.at(sums, row, values)
        return sums

    finish_class = keys % _FINISHES + 1
    sums = {TokenClass(number): add(counts) for number, counts in tokens.items()}
    output = _total({int(k): v for k, v in sums.items()}, OUTPUT_CLASSES, len(keys))
    everything = _total(tokens, frozenset(TokenClass), len(dimension))
    keys = keys // _FINISHES
    place = keys // _BANDS
    return UsageDelta(
        dimension_id=place // intervals + first_dimension,
        interval_start_ms=(place % intervals + first_interval) * INTERVAL_MS,
        band=keys % _BANDS,
        finish_class=finish_class,
        tokens=sums,
        request_count=np.bincount(row, minlength=len(keys)).astype(np.int64)
        if sign is None
        else add(sign),
        delivered_output_count=np.where(finish_class == FinishClass.DELIVERED, output, 0),
        estimated_count=add(np.where(estimated, everything, 0))
        if estimated.any()
        else np.zeros(len(keys), np.int64),
        sampled=_sample(dimension, end_ms),
    )


def _sample(dimension: Int64Array, end_ms: Int64Array) -> Sampled:
    step = -(-len(end_ms) // LAG_SAMPLES_MAX)
    # Copies: a view would keep all of the events.
    return Sampled(dimension_id=dimension[::step].copy(), end_ms=end_ms[::step].copy())


def _rows(code: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the distinct codes in order, and for each event the place of its own."""
    highest = int(code.max())
    if highest > _DENSE_KEYS_MAX:
        keys, row = np.unique(code, return_inverse=True)
        return keys, row
    present = np.zeros(highest + 1, np.bool_)
    present[code] = True
    keys = np.flatnonzero(present)
    places = np.zeros(highest + 1, np.int64)
    places[keys] = np.arange(len(keys))
    return keys, places[code]


def _tokens(segments: Sequence[Segment], count: int) -> dict[int, Int64Array]:
    numbers = sorted({number for part in segments for number in part.tokens})
    joined: dict[int, Int64Array] = {}
    for number in numbers:
        column = joined[number] = np.zeros(count, np.int64)
        start = 0
        for part in segments:
            if number in part.tokens:
                column[start : start + len(part)] = part.tokens[number]
            start += len(part)
    return joined


def _column(segments: Sequence[Segment], name: str) -> Int64Array:
    return np.concatenate([part.column(name) for part in segments])


def _total(
    tokens: Mapping[int, Int64Array], classes: frozenset[TokenClass], count: int
) -> Int64Array:
    total = np.zeros(count, np.int64)
    for number in tokens.keys() & classes:
        total += tokens[number]
    return total
