"""Where sealed batches lie, in order, until the meter has them for good: the port, and memory."""

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenworks.client.columns import SealedBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledBatch:
    """A batch on its way into a hold."""

    batch: SealedBatch
    settles: tuple[int, ...] = ()
    """Keys of running reports that this batch finishes."""


class HoldFull(Exception):
    """There is no room for a batch, and it is the new ones that are dropped."""


class DiskFault(Exception):
    """The disk failed; what was asked for was not done, and may be asked for again later."""


class Hold(Protocol):
    """Batches under local numbers 1, 2, 3 …; `sequence = local + offset`.

    Used by one thread. A local number, once `append` has returned, keeps its bytes.
    """

    @property
    def first(self) -> int:
        """The oldest local number that is kept; equals `next` when none is."""

    @property
    def next(self) -> int:
        """The local number that the next batch gets."""

    @property
    def released(self) -> int:
        """All up to this local number is durable at the meter; it may lag after a restart."""

    @property
    def recovered(self) -> Sequence[tuple[int, SealedBatch]]:
        """Running reports whose final never came, as of the opening: key and last known content.

        They stay open until a batch settles them; keys of new reports are above these.
        """

    @property
    def lost_event_count(self) -> int:
        """Events that were lost to damage or dropped as the oldest, since the opening."""

    @property
    def offset(self) -> int | None:
        """The offset of local numbers to come; None until the first contact with the meter."""

    @property
    def held_event_count(self) -> int:
        """Events above the released number."""

    @property
    def size_bytes(self) -> int:
        """What the batches that are kept take up."""

    def offset_of(self, local: int) -> int | None:
        """Return the offset of a local number; None where it has none yet."""

    def is_doubtful(self, local: int) -> bool:
        """Whether a batch may have been reported under another number before."""

    def set_offset(self, offset: int, *, first_local: int, doubtful_below: int = 0) -> None:
        """Give numbers from `first_local` on their offset, on disk before this returns.

        Those below `doubtful_below` are doubtful. What was said before of all these numbers is
        void. Raises DiskFault: nothing has changed.
        """

    def append(self, batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes]) -> None:
        """Take batches over, numbered from `next` on, and the content of running reports.

        `progress`: by key, the payload of a batch of one event that counts if nothing more comes;
        empty bytes end a report of which nothing counts. Either may be empty. On disk, as the
        policy says, when this returns. Raises HoldFull or DiskFault: nothing was appended.
        """

    def batch(self, local: int) -> SealedBatch | None:
        """Return a batch from `first` to below `next`; None where it was lost: a hole.

        Raises DiskFault where it cannot be read now but may be later (no file descriptor free).
        """

    def event_count(self, local: int) -> int:
        """Return how many events a batch has; 0 for a hole."""

    def release(self, local: int) -> None:
        """Note that all up to this number is durable at the meter, and nothing above it.

        A number lower than before takes that back, as far as the batches are still kept: the
        meter was restored to an older state, and what is above must not be thrown away.
        """

    def close(self) -> None:
        """Write down what is left to write, as well as it goes, and let go of everything."""


class OffsetMap:
    """Offsets by ranges of local numbers: each entry holds from its first number on."""

    def __init__(self, entries: Sequence[tuple[int, int]] = ()) -> None:
        """`entries`: first local number and offset, ascending."""
        self._entries = list(entries)

    @property
    def entries(self) -> Sequence[tuple[int, int]]:
        """First local number and offset of each range, ascending."""
        return tuple(self._entries)

    @property
    def latest(self) -> int | None:
        """The offset of numbers to come."""
        return self._entries[-1][1] if self._entries else None

    def find(self, local: int) -> int | None:
        """Return the offset of a local number; None where it has none."""
        at = bisect_right(self._entries, local, key=lambda entry: entry[0])
        return self._entries[at - 1][1] if at else None

    def extended(self, offset: int, *, first_local: int) -> "OffsetMap":
        """Return the map in which numbers from `first_local` on have another offset."""
        kept = [entry for entry in self._entries if entry[0] < first_local]
        if kept and kept[-1][1] == offset:
            return OffsetMap(kept)
        return OffsetMap([*kept, (first_local, offset)])

    def forget_below(self, local: int) -> None:
        """Drop what only concerns numbers below this one."""
        while len(self._entries) > 1 and self._entries[1][0] <= local:
            del self._entries[0]


@dataclass(frozen=True, slots=True)
class Doubts:
    """Which local numbers are doubtful: half-open ranges, ascending."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, local: int) -> bool:
        return any(first <= local < end for first, end in self.ranges)

    def extended(self, first: int, *, end: int) -> "Doubts":
        """Return them with what is said of all numbers from `first` on: doubtful below `end`."""
        kept = [(low, min(high, first)) for low, high in self.ranges if low < first]
        return Doubts((*kept, (first, end)) if end > first else tuple(kept))

    def above(self, local: int) -> "Doubts":
        """Return them without what only concerns numbers below this one."""
        return Doubts(tuple(each for each in self.ranges if each[1] > local))


class MemoryHold:
    """A hold without a disk: what is released is gone, and there is always room."""

    def __init__(self) -> None:
        self.first = 1
        self.next = 1
        self.released = 0
        self.recovered: Sequence[tuple[int, SealedBatch]] = ()
        self.lost_event_count = 0
        self._batches: deque[SealedBatch] = deque()
        self._offsets = OffsetMap()
        self._held_event_count = 0
        self._size_bytes = 0

    @property
    def offset(self) -> int | None:
        """See `Hold`."""
        return self._offsets.latest

    @property
    def held_event_count(self) -> int:
        """See `Hold`."""
        return self._held_event_count

    @property
    def size_bytes(self) -> int:
        """See `Hold`."""
        return self._size_bytes

    def offset_of(self, local: int) -> int | None:
        """See `Hold`."""
        return self._offsets.find(local)

    def is_doubtful(self, local: int) -> bool:
        """See `Hold`; what never outlived a process has no copies."""
        del local
        return False

    def set_offset(self, offset: int, *, first_local: int, doubtful_below: int = 0) -> None:
        """See `Hold`."""
        del doubtful_below
        self._offsets = self._offsets.extended(offset, first_local=first_local)

    def append(self, batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes]) -> None:
        """See `Hold`; running reports need no place here, they are lost with the process."""
        del progress
        for spooled in batches:
            self._batches.append(spooled.batch)
            self._held_event_count += spooled.batch.event_count
            self._size_bytes += len(spooled.batch.payload)
        self.next += len(batches)

    def batch(self, local: int) -> SealedBatch | None:
        """See `Hold`."""
        return self._batches[local - self.first] if self.first <= local < self.next else None

    def event_count(self, local: int) -> int:
        """See `Hold`."""
        batch = self.batch(local)
        return 0 if batch is None else batch.event_count

    def release(self, local: int) -> None:
        """See `Hold`; nothing can be taken back."""
        while self._batches and self.first <= local:
            batch = self._batches.popleft()
            self.first += 1
            self._held_event_count -= batch.event_count
            self._size_bytes -= len(batch.payload)
        self.released = self.first - 1
        self._offsets.forget_below(self.first)

    def close(self) -> None:
        """See `Hold`."""
