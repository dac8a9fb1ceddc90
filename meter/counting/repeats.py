"""What the journal has twice: event ids of two batches, and numbers of one producer; pure."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from meter.domain.event import SIGN, BoolArray, Int64Array
from meter.domain.interval import INTERVAL_MS
from meter.segment import Segment

Int32Array = npt.NDArray[np.int32]
_Uint64Array = npt.NDArray[np.uint64]
# Ids that are held at a time, 50 bytes each. Above it they are compared with the nearest half only.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The events with ids of one segment, or some of them: n × 2 words of the id, n of all else.

    `mixed` is of id and account, and nearly never the same for two. `index` are the events' places
    in the segment, None where all are held. `is_old` says that an earlier window had them.
    """

    segment: Segment
    shard: int
    position: int
    words: _Uint64Array
    mixed: _Uint64Array
    account: Int32Array
    end_ms: Int64Array
    sign: Int64Array | None
    index: Int64Array | None = None
    is_old: bool = False

    def __len__(self) -> int:
        return len(self.mixed)

    def keep(self, wanted: BoolArray) -> "_Part":
        if wanted.all():
            return self
        places = np.flatnonzero(wanted)
        return replace(
            self,
            words=self.words[places],
            mixed=self.mixed[places],
            account=self.account[places],
            end_ms=self.end_ms[places],
            sign=None if self.sign is None else self.sign[places],
            index=places if self.index is None else self.index[places],
        )

    def signs(self) -> Int64Array:
        return np.ones(len(self), np.int64) if self.sign is None else self.sign

    def place(self, member: int) -> Place:
        """Return the batch of an event."""
        index = member if self.index is None else int(self.index[member])
        ends = np.cumsum([count for _, count in self.segment.origins])
        origin, _ = self.segment.origins[int(np.searchsorted(ends, index, "right"))]
        return Place(
            account_id=origin.account_id,
            producer=origin.producer,
            sequence=origin.sequence,
            shard=self.shard,
            position=self.position,
        )


class EventIds:
    """Finds ids that come twice within a window, or within 15 minutes across its edge."""

    def __init__(self, *, ids_max: int = IDS_MAX) -> None:
        self._ids_max = ids_max
        self._parts: list[_Part] = []
        self._count = 0
        self.seen_count = 0
        self.shortened_count = 0

    def add(
        self,
        segment: Segment,
        accounts: Int32Array,
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
        part = _Part(
            segment=replace(segment, columns={}, tokens={}, event_ids=b"", request_ids=()),
            shard=shard,
            position=position,
            words=words,
            mixed=_mix(words, accounts),
            account=accounts,
            end_ms=end_ms,
            sign=segment.columns.get(SIGN),
        ).keep(((words[:, 0] | words[:, 1]) != 0) & (end_ms >= span_ms[0]) & (end_ms < span_ms[1]))
        if not len(part):
            return
        self._parts.append(part)
        self._count += len(part)
        self.seen_count += len(part)
        if self._count > self._ids_max:
            # Memory is bounded: what ended last is held on to, the rest has been compared.
            self.shortened_count += 1
            yield from self._compare()
            ends = np.concatenate([each.end_ms for each in self._parts])
            half = len(ends) - self._ids_max // 2
            self._keep_since(int(np.partition(ends, half)[half]))

    def end_window(self, end_ms: int) -> Iterator[Repeat]:
        """Yield what was repeated; what may be so by the next window is held."""
        yield from self._compare()
        self._keep_since(end_ms - INTERVAL_MS)

    def _keep_since(self, since_ms: int) -> None:
        kept = [part.keep(part.end_ms >= since_ms) for part in self._parts]
        self._parts = [replace(part, is_old=True) for part in kept if len(part)]
        self._count = sum(len(part) for part in self._parts)

    def _compare(self) -> Iterator[Repeat]:
        if not self._parts:
            return
        mixed = np.concatenate([part.mixed for part in self._parts])
        mixed.sort()
        twice = np.unique(mixed[1:][mixed[1:] == mixed[:-1]])
        if len(twice):
            alike = [part.keep(np.isin(part.mixed, twice)) for part in self._parts]
            yield from _groups([part for part in alike if len(part)])


def _mix(words: _Uint64Array, accounts: Int32Array) -> _Uint64Array:
    first, second, third = (np.uint64(factor) for factor in _SPREAD)
    mixed = words[:, 0] * first
    mixed ^= words[:, 1] * second
    mixed ^= accounts.astype(np.uint64) * third
    return mixed


def _groups(parts: Sequence[_Part]) -> Iterator[Repeat]:
    words = np.concatenate([part.words for part in parts])
    account = np.concatenate([part.account for part in parts])
    end_ms = np.concatenate([part.end_ms for part in parts])
    sign = np.concatenate([part.signs() for part in parts])
    whose = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    is_old = np.array([part.is_old for part in parts])[whose]
    member = np.concatenate([np.arange(len(part)) for part in parts])
    order = np.lexsort((end_ms, account, words[:, 1], words[:, 0]))
    is_next = np.ones(len(order), np.bool_)
    is_next[1:] = (words[order][1:] != words[order][:-1]).any(axis=1)
    is_next[1:] |= account[order][1:] != account[order][:-1]
    begins = np.flatnonzero(is_next)
    # A void takes one away: what it leaves is counted once, and no repeat.
    counted = np.add.reduceat(sign[order], begins)
    is_new = np.logical_or.reduceat(~is_old[order], begins)
    ends = np.append(begins[1:], len(order))
    for group in np.flatnonzero((counted > 1) & is_new).tolist():
        members = [it for it in order[begins[group] : ends[group]].tolist() if sign[it] > 0]
        yield Repeat(
            event_id=words[members[0]].tobytes(),
            account_number=int(account[members[0]]),
            places=[(parts[whose[it]].place(int(member[it])), int(end_ms[it])) for it in members],
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
