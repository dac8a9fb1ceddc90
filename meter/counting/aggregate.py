"""Adds events up per dimension, interval, band and way of ending; pure, exact, in integers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np

from meter.counted import Sampled
from meter.domain.event import DEFAULTS, SIGN, Int64Array, IntArray
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
from meter.segment import Gathered

# A class, or the number of one that this server may not know.
Number = TypeVar("Number", int, TokenClass)

_BANDS: Final = len(BAND_EDGES) + 1
_FINISHES: Final = len(FinishClass)
# By finish its finish class, from 0.
_ENDINGS: Final = np.zeros(max(Finish) + 1, np.int64)
_ENDINGS[Finish.CANCELLED] = FinishClass.CANCELLED - 1
_ENDINGS[Finish.FAILED] = FinishClass.FAILED - 1
# Keys are counted densely up to here, or to as many for each event; else they are sorted.
_DENSE_KEYS_MAX: Final = 1_000_000
_DENSE_KEYS_PER_EVENT: Final = 8
# Events that are added up at a time: their numbers stay near the processor.
_EVENTS_AT_ONCE: Final = 32_768


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


def aggregate(segments: Sequence[Gathered]) -> UsageDelta:
    """Add up segments; at least one event in all.

    What a correction takes back is subtracted under the very keys under which it was counted.
    """
    dimension = _narrow([it.columns["dimension"] for it in segments], segments, default=0)
    end_ms = _narrow([it.columns["end_ms"] for it in segments], segments, default=0)
    tokens = _tokens(segments)
    finish = _find_column(segments, "finish")
    first_dimension = int(dimension.min())
    code = np.subtract(dimension, first_dimension, dtype=np.int64)
    span = int(dimension.max()) - first_dimension + 1
    kinds, kind = _kinds(tokens, end_ms=end_ms, finish=finish)
    if kind is not None:
        code += kind * span
    known, place, size = _places(code, span * len(kinds))
    present = np.bincount(place, minlength=size)
    kept = np.flatnonzero(present)
    sign = _find_column(segments, SIGN)
    sums = _Sums(size, sign=sign, quality=_find_column(segments, "quality"))
    sums.add(tokens, place)
    of_kind, of_dimension = np.divmod(kept if known is None else known, span)
    finish_class = kinds[of_kind] % _FINISHES + 1
    summed = {TokenClass(number): it[kept] for number, it in sums.tokens.items()}
    output = _total(summed, OUTPUT_CLASSES, len(kept))
    return UsageDelta(
        dimension_id=of_dimension + first_dimension,
        interval_start_ms=kinds[of_kind] // (_BANDS * _FINISHES) * INTERVAL_MS,
        band=kinds[of_kind] // _FINISHES % _BANDS,
        finish_class=finish_class,
        tokens=summed,
        request_count=(present if sums.signs is None else sums.signs)[kept],
        delivered_output_count=np.where(finish_class == FinishClass.DELIVERED, output, 0),
        estimated_count=sums.estimated[kept],
        sampled=_sample(dimension, end_ms),
    )


def merge(deltas: Sequence[UsageDelta]) -> UsageDelta:
    """Return the sum of deltas, at least one; each key comes once."""
    return deltas[0] if len(deltas) == 1 else _merged(deltas)


def regroup(
    delta: UsageDelta, *, dimension_id: Int64Array, band: Int64Array, finish_class: Int64Array
) -> UsageDelta:
    """Return the same sums under other keys, one for each row: rows of one key are added up."""
    return _merged(
        [replace(delta, dimension_id=dimension_id, band=band, finish_class=finish_class)]
    )


def _merged(deltas: Sequence[UsageDelta]) -> UsageDelta:
    interval = _joined(deltas, lambda it: it.interval_start_ms) // INTERVAL_MS
    band = _joined(deltas, lambda it: it.band)
    finish = _joined(deltas, lambda it: it.finish_class) - 1
    dimension = _joined(deltas, lambda it: it.dimension_id)
    first_interval, first_dimension = int(interval.min()), int(dimension.min())
    span = int(dimension.max()) - first_dimension + 1
    kinds, kind = _numbered(((interval - first_interval) * _BANDS + band) * _FINISHES + finish)
    code = dimension - first_dimension
    if len(kinds) > 1:
        code += kind * span
    known, place, size = _places(code, span * len(kinds))
    kept = np.flatnonzero(np.bincount(place, minlength=size))
    of_kind, of_dimension = np.divmod(kept if known is None else known, span)

    def add(values: Int64Array) -> Int64Array:
        sums = np.zeros(size, np.int64)
        np.add.at(sums, place, values)
        return sums[kept]

    numbers = sorted({number for it in deltas for number in it.tokens})
    zeros = {len(it): np.zeros(len(it), np.int64) for it in deltas}
    return UsageDelta(
        dimension_id=of_dimension + first_dimension,
        interval_start_ms=(kinds[of_kind] // (_BANDS * _FINISHES) + first_interval) * INTERVAL_MS,
        band=kinds[of_kind] // _FINISHES % _BANDS,
        finish_class=kinds[of_kind] % _FINISHES + 1,
        tokens={
            number: add(np.concatenate([it.tokens.get(number, zeros[len(it)]) for it in deltas]))
            for number in numbers
        },
        request_count=add(_joined(deltas, lambda it: it.request_count)),
        delivered_output_count=add(_joined(deltas, lambda it: it.delivered_output_count)),
        estimated_count=add(_joined(deltas, lambda it: it.estimated_count)),
        sampled=_sample(
            _joined(deltas, lambda it: it.sampled.dimension_id),
            _joined(deltas, lambda it: it.sampled.end_ms),
        ),
    )


class _Sums:
    """Sums by place: of tokens by class, of those that are not final, and of signs if there are."""

    def __init__(self, size: int, *, sign: IntArray | None, quality: IntArray | None) -> None:
        self._sign = sign
        self._doubtful = None if quality is None else quality != Quality.FINAL
        self._size = size
        self.tokens: dict[int, Int64Array] = {}
        self.estimated = np.zeros(size, np.int64)
        self.signs = None if sign is None else np.zeros(size, np.int64)

    def add(self, tokens: Mapping[int, IntArray], place: Int64Array) -> None:
        """Add what events have in each class, at the place of each event."""
        self.tokens = {number: np.zeros(self._size, np.int64) for number in tokens}
        for begin in range(0, len(place), _EVENTS_AT_ONCE):
            events = slice(begin, begin + _EVENTS_AT_ONCE)
            rows = place[events]
            sign = None if self._sign is None else self._sign[events].astype(np.int64)
            if sign is not None and self.signs is not None:
                np.add.at(self.signs, rows, sign)
            doubtful = None if self._doubtful is None else np.flatnonzero(self._doubtful[events])
            for number, counts in tokens.items():
                # As wide as the sums: numpy adds others forty times as slowly.
                values = counts[events].astype(np.int64)
                if sign is not None:
                    values *= sign
                np.add.at(self.tokens[number], rows, values)
                if doubtful is not None:
                    np.add.at(self.estimated, rows[doubtful], values[doubtful])


def _kinds(
    tokens: Mapping[int, IntArray], *, end_ms: IntArray, finish: IntArray | None
) -> tuple[Int64Array, Int64Array | None]:
    """Return the kinds of rows that there are, and for each event the place of its own among them.

    A kind is an interval, a band and a way of ending: (interval * bands + band) * finishes + finish
    class - 1. Mostly there is one, and then there are no places.
    """
    first, last = int(end_ms.min()) // INTERVAL_MS, int(end_ms.max()) // INTERVAL_MS
    prompts = {number: counts for number, counts in tokens.items() if number in PROMPT_CLASSES}
    # What no prompt is longer than: where it lies below the lowest edge, none is looked at.
    prompt_max = sum(int(counts.max()) for counts in prompts.values())
    base = first * _BANDS * _FINISHES
    if first == last and finish is None and prompt_max < BAND_EDGES[0]:
        return np.array([base]), None
    kind = np.zeros(len(end_ms), np.int64)
    if first < last:
        kind += (end_ms // INTERVAL_MS - first) * (_BANDS * _FINISHES)
    if prompt_max >= BAND_EDGES[0]:
        # Before the sign: an event that is taken back lies where its prompt has put it.
        prompt = _total(prompts, PROMPT_CLASSES, len(end_ms))
        # Few prompts are longer than the lowest edge: the ladder is climbed for these alone.
        long = np.flatnonzero(prompt >= BAND_EDGES[0])
        kind[long] += np.searchsorted(BAND_EDGES, prompt[long], "right") * _FINISHES
    if finish is not None:
        kind += _ENDINGS.take(finish)
    kinds, place = _numbered(kind)
    return kinds + base, place


def _numbered(code: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the distinct codes, and the place of each one among them; one needs no places."""
    known, place, size = _places(code, int(code.max()) + 1)
    if known is None:
        is_known = np.zeros(size, np.bool_)
        is_known[place] = True
        known = np.flatnonzero(is_known)
        place = (np.cumsum(is_known) - 1).take(place)
    return known, place


def _places(code: Int64Array, size: int) -> tuple[Int64Array | None, Int64Array, int]:
    """Return how codes from 0 are told apart: the distinct ones, places of them, and how many.

    Where there is room for all that could be, the codes are places themselves.
    """
    if size <= max(_DENSE_KEYS_MAX, _DENSE_KEYS_PER_EVENT * len(code)):
        return None, code, size
    known, place = np.unique(code, return_inverse=True)
    return known, place, len(known)


def _sample(dimension: IntArray, end_ms: IntArray) -> Sampled:
    step = -(-len(end_ms) // LAG_SAMPLES_MAX)
    # Copies: a view would keep all of the events.
    return Sampled(
        dimension_id=dimension[::step].astype(np.int64),
        end_ms=end_ms[::step].astype(np.int64),
    )


def _tokens(segments: Sequence[Gathered]) -> dict[int, IntArray]:
    """Return what all events have of each class; 0 where a segment has none of it."""
    return {
        number: _narrow([part.tokens.get(number) for part in segments], segments, default=0)
        for number in sorted({number for part in segments for number in part.tokens})
    }


def _find_column(segments: Sequence[Gathered], name: str) -> IntArray | None:
    """Return a column, or None where all of it is default."""
    found = [part.columns.get(name) for part in segments]
    if all(it is None for it in found):
        return None
    return _narrow(found, segments, default=DEFAULTS[name])


def _narrow(
    columns: Sequence[IntArray | None], segments: Sequence[Gathered], *, default: int
) -> IntArray:
    """Return what segments have of a column, as narrow as it is held: what moves is what costs."""
    absent = np.array(default, np.uint8)
    values = [
        np.broadcast_to(absent, len(part)) if column is None else column
        for column, part in zip(columns, segments, strict=True)
    ]
    return values[0] if len(values) == 1 else np.concatenate(values)


def _joined(
    deltas: Sequence[UsageDelta], values_of: Callable[[UsageDelta], Int64Array]
) -> Int64Array:
    return np.concatenate([values_of(it) for it in deltas])


def _total(
    tokens: Mapping[Number, IntArray], classes: frozenset[TokenClass], count: int
) -> Int64Array:
    total = np.zeros(count, np.int64)
    for number, counts in tokens.items():
        if number in classes:
            total += counts
    return total
