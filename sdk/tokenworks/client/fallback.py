"""A hold on disk that goes on from memory while the disk fails, and back when it works again.

Both share one row of local numbers: what is in memory leaves its numbers out on disk. So a batch
that the disk did not take, and that is found on it after all when the process has died, stands
under the number under which it went out.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import DiskFault, Hold, SpooledBatch


class DiskHold(Hold, Protocol):
    """A hold that can leave numbers out."""

    def leave_out(self, *, below: int, event_count: int) -> None:
        """Number the next batch so; what would have had the numbers between lies elsewhere.

        `event_count`: of all batches that were left out by this.
        """

    def ensure_numbers(self) -> None:
        """Have the numbers on disk that are gone by. Raises DiskFault: nothing may be sent."""


class FallbackHold:
    """Implements `Hold` over another one. It never raises DiskFault for a batch to be appended.

    A batch that finishes a running report which is known on disk never goes to memory: if the
    process died, the report would count a second time. It waits here until the disk takes it.
    """

    def __init__(self, disk: DiskHold) -> None:
        self._disk = disk
        self.next = disk.next
        self._released = disk.released
        self.recovered = disk.recovered
        self.works = True
        """Whether the disk took what it was last given."""
        self.fault = ""
        """What it said when it last did not."""
        self._memory: OrderedDict[int, SealedBatch] = OrderedDict()
        """By local number, ascending; there may be very many of a long fault."""
        self._memory_event_count = 0
        self._left_out_event_count = 0
        """Events of batches that went to memory since the disk last took one."""
        self._waiting: list[SpooledBatch] = []
        self._known = {key for key, _ in disk.recovered}
        """Running reports that a restart would find on disk."""

    @property
    def first(self) -> int:
        """See `Hold`."""
        firsts = [next(iter(self._memory), self.next)]
        if self._disk.size_bytes and self._disk.first < self._disk.next:
            firsts.append(self._disk.first)
        return min(firsts)

    @property
    def released(self) -> int:
        """See `Hold`."""
        return max(self._released, self.first - 1)

    @property
    def offset(self) -> int | None:
        """See `Hold`."""
        return self._disk.offset

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
        return not self._waiting and next(iter(self._memory), self.next) > local

    def offset_of(self, local: int) -> int | None:
        """See `Hold`."""
        return self._disk.offset_of(local)

    def is_doubtful(self, local: int) -> bool:
        """See `Hold`."""
        return self._disk.is_doubtful(local)

    def set_offset(self, offset: int, *, first_local: int, doubtful_below: int = 0) -> None:
        """See `Hold`. Raises DiskFault: a batch that the disk did not take may be there after all.

        Sent from memory and found after a crash without its number, it would get another one.
        """
        self._disk.set_offset(offset, first_local=first_local, doubtful_below=doubtful_below)

    def append(self, batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes]) -> None:
        """See `Hold`; without DiskFault."""
        given = [self._without_unknown(spooled) for spooled in (*self._waiting, *batches)]
        ends = [spooled for spooled in given if spooled.settles]
        others = [spooled for spooled in given if not spooled.settles]
        self._waiting = ends
        fault: DiskFault | None = None
        # Apart: what goes to memory keeps the number that the disk was to have it under.
        if others or progress:
            try:
                self._append_to_disk(others, progress=progress)
            except DiskFault as error:
                fault = error
                for spooled in others:
                    self._remember(spooled.batch)
        if ends:
            try:
                self._append_to_disk(ends, progress={})
            except DiskFault as error:
                fault = error
            else:
                self._waiting = []
        if fault is not None:
            self.works, self.fault = False, str(fault)

    def batch(self, local: int) -> SealedBatch | None:
        """See `Hold`."""
        self._disk.ensure_numbers()
        in_memory = self._memory.get(local)
        return self._disk.batch(local) if in_memory is None else in_memory

    def event_count(self, local: int) -> int:
        """See `Hold`."""
        in_memory = self._memory.get(local)
        return self._disk.event_count(local) if in_memory is None else in_memory.event_count

    def release(self, local: int) -> None:
        """See `Hold`; what was in memory cannot be taken back."""
        self._released = local
        while self._memory and next(iter(self._memory)) <= local:
            self._memory_event_count -= self._memory.popitem(last=False)[1].event_count
        self._disk.release(local)

    def close(self) -> None:
        """See `Hold`."""
        self._disk.close()

    def _append_to_disk(
        self, batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes]
    ) -> None:
        """Raises HoldFull or DiskFault: nothing was appended that may go out."""
        if batches:
            self._disk.leave_out(below=self.next, event_count=self._left_out_event_count)
            self._left_out_event_count = 0
        self._disk.append(batches, progress=progress)
        self.works = True
        self.next += len(batches)
        self._known.update(key for key, payload in progress.items() if payload)
        self._known.difference_update(key for key, payload in progress.items() if not payload)
        self._known.difference_update(key for spooled in batches for key in spooled.settles)

    def _remember(self, batch: SealedBatch) -> None:
        self._memory[self.next] = batch
        self._memory_event_count += batch.event_count
        self._left_out_event_count += batch.event_count
        self.next += 1

    def _without_unknown(self, spooled: SpooledBatch) -> SpooledBatch:
        settles = tuple(key for key in spooled.settles if key in self._known)
        if settles == spooled.settles:
            return spooled
        return SpooledBatch(batch=spooled.batch, settles=settles)
