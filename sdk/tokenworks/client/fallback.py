"""A hold on disk that goes on from memory while the disk fails, and back when it works again.

Both share one row of local numbers. The disk's own numbers lag behind by what went to memory, and
its offset is raised by as much, so that on disk too every batch stands under its number.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import DiskFault, Doubts, Hold, HoldFull, OffsetMap, SpooledBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Local numbers from `first` on that lie on disk, under numbers lower by `shift`."""

    first: int
    shift: int


class FallbackHold:
    """Implements `Hold` over another one. It never raises DiskFault for a batch to be appended.

    A batch that finishes a running report which is known on disk never goes to memory: if the
    process died, the report would count a second time. It waits here until the disk takes it.
    """

    def __init__(self, disk: Hold) -> None:
        self._disk = disk
        self._begin = self.next = disk.next
        self._released = disk.released
        self.recovered = disk.recovered
        self.works = True
        """Whether the disk took what it was last given."""
        self.fault = ""
        """What it said when it last did not."""
        self._runs = [_Run(first=min(disk.first, disk.next), shift=0)]
        self._ends = [disk.next]
        """The local number behind each run."""
        self._memory: dict[int, SealedBatch] = {}
        self._memory_event_count = 0
        self._is_offset_unsaid = False
        self._offsets = OffsetMap([] if disk.offset is None else [(disk.next, disk.offset)])
        self._doubts = Doubts()
        self._waiting: list[SpooledBatch] = []
        self._known = {key for key, _ in disk.recovered}
        """Running reports that a restart would find on disk."""

    @property
    def first(self) -> int:
        """See `Hold`."""
        firsts = [self.next, *list(self._memory)[:1]]
        if self._disk.first < self._disk.next:
            firsts.append(self._disk.first + self._shift_of_disk(self._disk.first))
        return min(firsts)

    @property
    def released(self) -> int:
        """See `Hold`."""
        return max(self._released, self.first - 1)

    @property
    def offset(self) -> int | None:
        """See `Hold`."""
        return self._offsets.latest

    @property
    def memory_event_count(self) -> int:
        """Events that only this process has."""
        waiting = sum(spooled.batch.event_count for spooled in self._waiting)
        return self._memory_event_count + waiting

    @property
    def volatile_event_count(self) -> int:
        """Events that are lost with this process; of those that wait, the progress would count."""
        return self._memory_event_count

    @property
    def held_event_count(self) -> int:
        """See `Hold`."""
        return self._disk.held_event_count + self.memory_event_count

    @property
    def size_bytes(self) -> int:
        """See `Hold`."""
        return self._disk.size_bytes

    @property
    def lost_event_count(self) -> int:
        """See `Hold`."""
        return self._disk.lost_event_count

    def is_on_disk(self, local: int) -> bool:
        """Whether all up to this local number would be there after a restart."""
        return not self._waiting and all(number > local for number in self._memory)

    def offset_of(self, local: int) -> int | None:
        """See `Hold`."""
        return self._disk.offset_of(local) if local < self._begin else self._offsets.find(local)

    def is_doubtful(self, local: int) -> bool:
        """See `Hold`."""
        return self._disk.is_doubtful(local) if local < self._begin else local in self._doubts

    def set_offset(self, offset: int, *, first_local: int, doubtful_below: int = 0) -> None:
        """See `Hold`. Raises DiskFault where a batch on disk would lack its number."""
        for run, end in zip(self._runs, self._ends, strict=True):
            if first_local < end or run is self._runs[-1]:
                first = max(run.first, first_local) - run.shift
                try:
                    self._disk.set_offset(
                        offset + run.shift,
                        first_local=first,
                        doubtful_below=doubtful_below - run.shift,
                    )
                except DiskFault:
                    if first_local < end:
                        raise
                    # Nothing on disk is concerned yet: said again before the next batch.
                    self._is_offset_unsaid = True
        self._offsets = self._offsets.extended(offset, first_local=first_local)
        self._doubts = self._doubts.extended(first_local, end=doubtful_below)

    def append(self, batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes]) -> None:
        """See `Hold`; without DiskFault."""
        batches = [self._without_unknown(spooled) for spooled in (*self._waiting, *batches)]
        if not batches and not progress:
            return
        self._waiting.clear()
        try:
            self._append_to_disk(batches, progress=progress)
        except HoldFull:
            self._waiting = [spooled for spooled in batches if spooled.settles]
            raise
        except DiskFault as error:
            self.works, self.fault = False, str(error)
            for spooled in batches:
                if spooled.settles:
                    self._waiting.append(spooled)
                else:
                    self._memory[self.next] = spooled.batch
                    self._memory_event_count += spooled.batch.event_count
                    self.next += 1
        else:
            self.works = True

    def batch(self, local: int) -> SealedBatch | None:
        """See `Hold`."""
        in_memory = self._memory.get(local)
        if in_memory is not None:
            return in_memory
        on_disk = self._disk_number(local)
        return None if on_disk is None else self._disk.batch(on_disk)

    def event_count(self, local: int) -> int:
        """See `Hold`."""
        in_memory = self._memory.get(local)
        if in_memory is not None:
            return in_memory.event_count
        on_disk = self._disk_number(local)
        return 0 if on_disk is None else self._disk.event_count(on_disk)

    def release(self, local: int) -> None:
        """See `Hold`; what was in memory cannot be taken back."""
        self._released = local
        for number in [number for number in self._memory if number <= local]:
            self._memory_event_count -= self._memory.pop(number).event_count
        # Below the first run too: there all of it is taken back.
        at = max(bisect_right(self._runs, local, key=lambda run: run.first) - 1, 0)
        self._disk.release(min(local, self._ends[at] - 1) - self._runs[at].shift)

    def close(self) -> None:
        """See `Hold`."""
        self._disk.close()

    def _append_to_disk(
        self, batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes]
    ) -> None:
        shift = self.next - self._disk.next
        is_new_run = shift != self._runs[-1].shift
        if batches and (is_new_run or self._is_offset_unsaid):
            if self._offsets.latest is not None:
                first = self._disk.next
                self._disk.set_offset(self._offsets.latest + shift, first_local=first)
            self._is_offset_unsaid = False
            if is_new_run:
                self._begin_run(_Run(first=self.next, shift=shift))
        self._disk.append(batches, progress=progress)
        self.next += len(batches)
        self._ends[-1] = self.next if batches else self._ends[-1]
        self._known.update(key for key, payload in progress.items() if payload)
        self._known.difference_update(key for key, payload in progress.items() if not payload)
        self._known.difference_update(key for spooled in batches for key in spooled.settles)

    def _without_unknown(self, spooled: SpooledBatch) -> SpooledBatch:
        settles = tuple(key for key in spooled.settles if key in self._known)
        if settles == spooled.settles:
            return spooled
        return SpooledBatch(batch=spooled.batch, settles=settles)

    def _disk_number(self, local: int) -> int | None:
        at = bisect_right(self._runs, local, key=lambda run: run.first) - 1
        if at < 0:
            return None
        return local - self._runs[at].shift if local < self._ends[at] else None

    def _shift_of_disk(self, number: int) -> int:
        at = bisect_right(self._runs, number, key=lambda run: run.first - run.shift) - 1
        return self._runs[max(at, 0)].shift

    def _begin_run(self, run: _Run) -> None:
        # One that has stayed empty, for the disk failed again, or that is let go, is forgotten.
        kept = [
            (old, end)
            for old, end in zip(self._runs, self._ends, strict=True)
            if old.first < end and end > self.first
        ]
        self._runs = [*(old for old, _ in kept), run]
        self._ends = [*(end for _, end in kept), run.first]
