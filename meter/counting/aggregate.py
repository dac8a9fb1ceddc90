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

Part = TypeVar("Part")
# A class, or the number of one that this server may not know.
Number = TypeVar("Number", int, TokenClass)

_BANDS: Final = len(BAND_EDGES) + 1
_FINISHES: Final = len(FinishClass)
_FINISH_CLASSES: Final = np.array(
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
# Keys are counted densely up to here, or to as many for each event; else they are sorted.
_DENSE_KEYS_MAX: Final = 1_000_000
_DENSE_KEYS_PER_EVENT: Final = 8


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
    dimension = _joined(segments, lambda part: part.columns["dimension"])
    end_ms = _joined(segments, lambda part: part.columns["end_ms"])
    tokens = _tokens(segments, len(dimension))
    first_dimension = int(dimension.min())
    kinds, kind = _kinds(segments, tokens=tokens, end_ms=end_ms)
    span = int(dimension.max()) - first_dimension + 1
    code = dimension - first_dimension
    if len(kinds) > 1:
        code += kind * span
    known, place, size = _places(code, span * len(kinds))
    sign = _find_column(segments, SIGN)
    if sign is not None:
        # After the band: an event that is taken back lies where its prompt has put it.
        tokens = {number: counts * sign for number, counts in tokens.items()}

    def add(values: Int64Array, rows: Int64Array = place) -> Int64Array:
        sums = np.zeros(size, np.int64)
        np.add.at(sums, rows, values)
        return sums[kept]

    present = np.bincount(place, minlength=size)
    kept = np.flatnonzero(present)
    of_kind, of_dimension = np.divmod(kept if known is None else known, span)
    sums = {TokenClass(number): add(counts) for number, counts in tokens.items()}
    finish_class = kinds[of_kind] % _FINISHES + 1
    output = _total(sums, OUTPUT_CLASSES, len(kept))
    estimated = np.zeros(len(kept), np.int64)
    quality = _find_column(segments, "quality")
    if quality is not None:
        doubtful = np.flatnonzero(quality != Quality.FINAL)
        for counts in tokens.values():
            estimated += add(counts[doubtful], place[doubtful])
    return UsageDelta(
        dimension_id=of_dimension + first_dimension,
        interval_start_ms=kinds[of_kind] // (_BANDS * _FINISHES) * INTERVAL_MS,
        band=kinds[of_kind] // _FINISHES % _BANDS,
        finish_class=finish_class,
        tokens=sums,
        request_count=present[kept].astype(np.int64) if sign is None else add(sign),
        delivered_output_count=np.where(finish_class == FinishClass.DELIVERED, output, 0),
        estimated_count=estimated,
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


def _kinds(
    segments: Sequence[Gathered], *, tokens: Mapping[int, Int64Array], end_ms: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Return the kinds of rows that there are, and for each event the place of its own among them.

    A kind is an interval, a band and a way of ending: (interval * bands + band) * finishes + finish
    class - 1. Mostly there is one, and then the places say nothing.
    """
    first = int(end_ms.min()) // INTERVAL_MS
    kind = np.zeros(len(end_ms), np.int64)
    if int(end_ms.max()) // INTERVAL_MS > first:
        kind = (end_ms // INTERVAL_MS - first) * (_BANDS * _FINISHES)
    prompt = _total(tokens, PROMPT_CLASSES, len(end_ms))
    # Few prompts are longer than the lowest edge: the ladder is climbed for these alone.
    long = np.flatnonzero(prompt >= BAND_EDGES[0])
    kind[long] += np.searchsorted(BAND_EDGES, prompt[long], "right") * _FINISHES
    finish = _find_column(segments, "finish")
    if finish is not None:
        kind += _FINISH_CLASSES[finish] - 1
    kinds, place = _numbered(kind)
    return kinds + first * _BANDS * _FINISHES, place


def _numbered(code: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the distinct codes, and the place of each one among them; one needs no places."""
    known, place, size = _places(code, int(code.max()) + 1)
    if known is None:
        known = np.flatnonzero(np.bincount(place, minlength=size))
        number = np.zeros(size, np.int64)
        number[known] = np.arange(len(known))
        place = number[place] if len(known) > 1 else place
    return known, place


def _places(code: Int64Array, size: int) -> tuple[Int64Array | None, Int64Array, int]:
    """Return how codes from 0 are told apart: the distinct ones, places of them, and how many.

    Where there is room for all that could be, the codes are places themselves.
    """
    if size <= max(_DENSE_KEYS_MAX, _DENSE_KEYS_PER_EVENT * len(code)):
        return None, code, size
    known, place = np.unique(code, return_inverse=True)
    return known, place, len(known)


def _sample(dimension: Int64Array, end_ms: Int64Array) -> Sampled:
    step = -(-len(end_ms) // LAG_SAMPLES_MAX)
    # Copies: a view would keep all of the events.
    return Sampled(dimension_id=dimension[::step].copy(), end_ms=end_ms[::step].copy())


def _tokens(segments: Sequence[Gathered], count: int) -> dict[int, Int64Array]:
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


def _find_column(segments: Sequence[Gathered], name: str) -> Int64Array | None:
    """Return a column, or None where all of it is default."""
    if not any(name in part.columns for part in segments):
        return None
    default = np.array(DEFAULTS[name], np.int64)
    return _joined(
        segments,
        lambda part: part.columns.get(name, np.broadcast_to(default, len(part))),
    )


def _joined(parts: Sequence[Part], values_of: Callable[[Part], IntArray]) -> Int64Array:
    # Of any width: what is counted from memory is held as narrow as its numbers.
    return np.concatenate([values_of(part) for part in parts], dtype=np.int64)


def _total(
    tokens: Mapping[Number, Int64Array], classes: frozenset[TokenClass], count: int
) -> Int64Array:
    total = np.zeros(count, np.int64)
    for number, counts in tokens.items():
        if number in classes:
            total += counts
    return total
