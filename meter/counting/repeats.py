"""What the journal has twice: event ids of two batches, and numbers of one producer; pure."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from meter.domain.event import Int64Array
from meter.domain.interval import INTERVAL_MS
from meter.segment import Segment

_Uint64Array = npt.NDArray[np.uint64]
# Ids that are held at a time: some 350 MiB. Above it they are compared with the nearest half only.
IDS_MAX: Final = 6_000_000
# Odd factors that spread ids whose bytes are nearly the same.
_SPREAD: Final = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)

Producer = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A batch in the journal; a call's has the empty producer and sequence 0."""

    account_id: str
    producer: str
    sequence: int
    shard: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """An event id that is counted more than once for one account, and where it stands.

    Each place has the time (ms) at which the event ended. What was voided is not counted.
    """

    event_id: bytes
    account_number: int
    places: Sequence[tuple[Place, int]]

    @property
    def is_of_two_producers(self) -> bool:
        """Tell whether two reported it, and not one of them twice."""
        return len({(place.account_id, place.producer) for place, _ in self.places}) > 1

    @property
    def is_counted_by_id(self) -> bool:
        """Tell whether it came by calls, which promise to count each id once."""
        return any(not place.producer for place, _ in self.places)


@dataclass(slots=True)
class _Held:
    """Events with ids: n × 2 words of the id, and n of all else."""

    words: _Uint64Array
    account: Int64Array
    batch: Int64Array
    end_ms: Int64Array
    sign: Int64Array
    is_old: npt.NDArray[np.bool_]

    def take(self, wanted: npt.NDArray[np.bool_]) -> "_Held":
        return _Held(
            self.words[wanted],
            self.account[wanted],
            self.batch[wanted],
            self.end_ms[wanted],
            self.sign[wanted],
            self.is_old[wanted],
        )


class EventIds:
    """Finds ids that come twice within a window, or within 15 minutes across its edge."""

    def __init__(self, *, ids_max: int = IDS_MAX) -> None:
        self._ids_max = ids_max
        self._places: list[Place] = []
        self._parts: list[_Held] = []
        self._count = 0
        self.seen_count = 0
        self.shortened_count = 0

    def add(
        self,
        segment: Segment,
        accounts: Int64Array,
        *,
        shard: int,
        position: int,
        span_ms: tuple[int, int],
    ) -> Iterator[Repeat]:
        """Take the events of a segment that ended in a span; yield what is found on the way."""
        if not segment.event_ids:
            return
        end_ms = segment.columns["end_ms"]
        words = np.frombuffer(segment.event_ids, "<u8").reshape(-1, 2)
        wanted = words.any(axis=1) & (end_ms >= span_ms[0]) & (end_ms < span_ms[1])
        first = len(self._places)
        self._places += [
            Place(
                account_id=origin.account_id,
                producer=origin.producer,
                sequence=origin.sequence,
                shard=shard,
                position=position,
            )
            for origin, _ in segment.origins
        ]
        counts = [count for _, count in segment.origins]
        batch = np.repeat(np.arange(first, first + len(counts)), counts)
        held = _Held(
            words, accounts, batch, end_ms, segment.column("sign"), np.zeros(len(words), np.bool_)
        ).take(wanted)
        self._parts.append(held)
        self._count += len(held.batch)
        self.seen_count += len(held.batch)
        if self._count > self._ids_max:
            # Memory is bounded: what ended last is held on to, the rest has been compared.
            self.shortened_count += 1
            yield from self._compare()
            newest = np.argsort(self._parts[0].end_ms, kind="stable")[-self._ids_max // 2 :]
            self._keep(np.isin(np.arange(self._count), newest))

    def end_window(self, end_ms: int) -> Iterator[Repeat]:
        """Yield what was repeated; what may be so by the next window is held."""
        yield from self._compare()
        if self._parts:
            self._keep(self._parts[0].end_ms >= end_ms - INTERVAL_MS)

    def _keep(self, wanted: npt.NDArray[np.bool_]) -> None:
        held = self._parts[0].take(wanted)
        used, held.batch = np.unique(held.batch, return_inverse=True)
        self._places = [self._places[place] for place in used.tolist()]
        held.is_old = np.ones(len(held.batch), np.bool_)
        self._parts = [held]
        self._count = len(held.batch)

    def _compare(self) -> Iterator[Repeat]:
        if not self._parts:
            return
        held = self._parts[0] if len(self._parts) == 1 else _join(self._parts)
        self._parts = [held]
        spread = [np.uint64(factor) for factor in _SPREAD]
        mixed = held.words[:, 0] * spread[0] ^ held.words[:, 1] * spread[1]
        mixed ^= held.account.astype(np.uint64) * spread[2]
        ordered = np.sort(mixed)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if len(twice):
            yield from self._groups(held.take(np.isin(mixed, twice)))

    def _groups(self, held: _Held) -> Iterator[Repeat]:
        order = np.lexsort((held.end_ms, held.account, held.words[:, 1], held.words[:, 0]))
        words, account = held.words[order], held.account[order]
        is_next = np.ones(len(order), np.bool_)
        is_next[1:] = (words[1:] != words[:-1]).any(axis=1) | (account[1:] != account[:-1])
        begins = np.flatnonzero(is_next)
        # A void takes one away: what it leaves is counted once, and no repeat.
        counted = np.add.reduceat(held.sign[order], begins)
        is_new = np.logical_or.reduceat(~held.is_old[order], begins)
        ends = np.append(begins[1:], len(order))
        for group in np.flatnonzero((counted > 1) & is_new).tolist():
            members = order[begins[group] : ends[group]]
            members = members[held.sign[members] > 0]
            yield Repeat(
                event_id=held.words[members[0]].tobytes(),
                account_number=int(held.account[members[0]]),
                places=[
                    (self._places[int(held.batch[member])], int(held.end_ms[member]))
                    for member in members
                ],
            )


class BatchNumbers:
    """Knows which numbers of each producer the journal has, as runs; tells of one that comes again.

    `released` are the numbers under which quarantined events were released, and how often.
    """

    def __init__(self, *, released: Mapping[tuple[str, str, int], int]) -> None:
        self._released = released
        self._runs: dict[Producer, tuple[list[int], list[int]]] = {}
        self._again: Counter[tuple[str, str, int]] = Counter()
        self.seen_count = 0

    @property
    def producer_count(self) -> int:
        """The number of producers whose batches were seen."""
        return len(self._runs)

    def add(self, producer: Producer, sequence: int) -> bool:
        """Take a batch; tell whether its number is there more often than it can be."""
        self.seen_count += 1
        if self._is_new(producer, sequence):
            return False
        key = (*producer, sequence)
        self._again[key] += 1
        return self._again[key] > self._released.get(key, 0)

    def _is_new(self, producer: Producer, sequence: int) -> bool:
        firsts, lasts = self._runs.setdefault(producer, ([], []))
        place = bisect_right(firsts, sequence)
        if place and sequence <= lasts[place - 1]:
            return False
        joins_before = bool(place) and lasts[place - 1] == sequence - 1
        joins_after = place < len(firsts) and firsts[place] == sequence + 1
        if joins_before and joins_after:
            lasts[place - 1] = lasts.pop(place)
            firsts.pop(place)
        elif joins_before:
            lasts[place - 1] = sequence
        elif joins_after:
            firsts[place] = sequence
        else:
            firsts.insert(place, sequence)
            lasts.insert(place, sequence)
        return True


def _join(parts: Sequence[_Held]) -> _Held:
    return _Held(
        np.concatenate([part.words for part in parts]),
        np.concatenate([part.account for part in parts]),
        np.concatenate([part.batch for part in parts]),
        np.concatenate([part.end_ms for part in parts]),
        np.concatenate([part.sign for part in parts]),
        np.concatenate([part.is_old for part in parts]),
    )
