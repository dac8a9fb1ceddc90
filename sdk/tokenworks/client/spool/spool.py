"""The spool: a hold whose batches lie in a folder, so that they outlive the process.

Invariants: a batch is never sent before `append` has returned for it; a number whose append failed
is void in the old file once a newer segment begins at or below it, and nothing is appended before
that is on disk; after a failed write or sync a file is neither written nor synced again, since the
system may have thrown away what it could not write; segments go from the oldest on, so what is
void never outlives what makes it so.
"""

import errno
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Self

from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import DiskFault, Doubts, HoldFull, OffsetMap, SpooledBatch
from tokenworks.client.spool.files import FULL, Files, unusable
from tokenworks.client.spool.manifest import (
    Manifest,
    ensure_reserve,
    read_manifest,
    write_manifest,
)
from tokenworks.client.spool.options import Fsync, SpoolOptions, WhenFull
from tokenworks.client.spool.records import (
    BATCH_OVERHEAD,
    HEAD_SIZE,
    HEADER_SIZE,
    encode_batch,
    encode_progress,
    encode_released,
    read_batch,
)
from tokenworks.client.spool.recovery import Recovered, recover, rewrite_newest
from tokenworks.client.spool.segments import Segment, Shelf
from tokenworks.client.spool.writer import SegmentWriter


class Spool:
    """A hold in a folder."""

    def __init__(
        self,
        files: Files,
        *,
        options: SpoolOptions,
        manifest: Manifest,
        recovered: Recovered,
        current: Segment | None,
    ) -> None:
        """Take over what was found; `open` does all that belongs to it."""
        self._files = files
        self._options = options
        self._manifest = manifest
        self._offsets = OffsetMap(manifest.offsets)
        self._doubts = Doubts(manifest.doubtful)
        self._shelf = Shelf(recovered.segments)
        self._writer = SegmentWriter(
            files,
            salt=manifest.salt,
            is_synced_always=options.fsync is not Fsync.NEVER,
            segment_bytes_max=options.segment_bytes_max,
            current=current,
        )
        self._is_folder_synced = True
        self._is_manifest_sure = True
        self._running = dict(recovered.running)
        self._total_event_count = recovered.total_event_count
        self._cache: OrderedDict[int, SealedBatch] = OrderedDict()
        """The newest payloads, by local number, ascending."""
        self._cached_bytes = 0
        self._released_noted = recovered.released
        self.findings = recovered.findings
        self.next = recovered.next
        oldest = self._shelf.oldest
        self.first = self.next if oldest is None else oldest.first
        self.released = max(recovered.released, self.first - 1)
        self.recovered: Sequence[tuple[int, SealedBatch]] = tuple(
            (key, SealedBatch(payload=payload, event_count=1))
            for key, payload in sorted(self._running.items())
        )
        self.lost_event_count = (
            self.findings.damaged_event_count + self.findings.damaged_report_count
        )
        self._held_event_count = self._shelf.count_events(self.released + 1, below=self.next)

    @classmethod
    def open(cls, files: Files, *, producer: str, options: SpoolOptions) -> Self:
        """Open the spool of a producer, or make it. Raises SpoolUnusable."""
        try:
            return cls._open(files, producer=producer, options=options)
        except OSError as error:
            raise unusable(error) from error

    @classmethod
    def _open(cls, files: Files, *, producer: str, options: SpoolOptions) -> Self:
        found = read_manifest(files, producer=producer)
        if found is None:
            manifest = Manifest(producer=producer, salt=files.draw_salt())
            write_manifest(files, manifest)
        else:
            manifest = found[0]
        recovered = recover(files, salt=manifest.salt)
        ensure_reserve(files)
        current = None
        if recovered.segments:
            current = rewrite_newest(files, recovered, salt=manifest.salt)
        recovered.newest = b""
        if found is not None and not found[1]:
            recovered.findings.is_manifest_damaged = True
            with suppress(OSError):
                write_manifest(files, manifest)
        return cls(files, options=options, manifest=manifest, recovered=recovered, current=current)

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
        """See `Hold`; the bytes of all segments."""
        return self._shelf.size_bytes

    def offset_of(self, local: int) -> int | None:
        """See `Hold`."""
        return self._offsets.find(local)

    def is_doubtful(self, local: int) -> bool:
        """See `Hold`."""
        return local in self._doubts

    def set_offset(self, offset: int, *, first_local: int, doubtful_below: int = 0) -> None:
        """See `Hold`."""
        offsets = self._offsets.extended(offset, first_local=first_local)
        doubts = self._doubts.extended(first_local, end=doubtful_below)
        if offsets.entries == self._offsets.entries and doubts == self._doubts:
            self.ensure_numbers()
            return
        offsets.forget_below(self.first)
        doubts = doubts.above(self.first)
        manifest = replace(self._manifest, offsets=tuple(offsets.entries), doubtful=doubts.ranges)
        self._write_manifest(manifest)
        self._manifest, self._offsets, self._doubts = manifest, offsets, doubts

    def ensure_numbers(self) -> None:
        """Have the numbers on disk that are gone by here: a write that failed may have left others.

        Raises DiskFault: nothing may be sent.
        """
        if not self._is_manifest_sure:
            self._write_manifest(self._manifest)

    def leave_out(self, *, below: int, event_count: int) -> None:
        """Give the next batch this number; those between lie elsewhere, with so many events."""
        if below > self.next:
            self.next = below
            self._total_event_count += event_count

    def append(self, batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes]) -> None:
        """See `Hold`."""
        if not batches and not progress:
            return
        size_bytes = _size_bytes_max(batches, progress=progress)
        self._make_room(size_bytes)
        try:
            self._append(batches, progress=progress, size_bytes=size_bytes)
        except OSError as first_error:
            self._writer.bury()
            if first_error.errno in FULL:
                self._trim(retain_bytes=0)
            try:
                self._append(batches, progress=progress, size_bytes=size_bytes)
            except OSError as error:
                self._writer.bury()
                raise DiskFault(f"nothing was spooled: {error}") from error

    def batch(self, local: int) -> SealedBatch | None:
        """See `Hold`."""
        cached = self._cache.get(local)
        segment = self._shelf.find(local)
        if cached is not None or segment is None:
            return cached
        place = local - segment.first
        start, end = segment.starts[place], segment.ends[place]
        if not start:
            return None
        batch = None
        try:
            data = self._files.read(segment.name, offset=start, size=end - start)
            batch = read_batch(data, local=local, seed=segment.seed)
        except OSError as error:
            if error.errno not in _LOST:
                raise DiskFault(f"batch {local} cannot be read: {error}") from error
        if batch is None:
            self._lose(local, segment=segment)
        return batch

    def event_count(self, local: int) -> int:
        """See `Hold`."""
        segment = self._shelf.find(local)
        return 0 if segment is None else segment.event_counts[local - segment.first]

    def release(self, local: int) -> None:
        """See `Hold`."""
        released = min(max(local, self.first - 1), self.next - 1)
        low, high = sorted((released, self.released))
        event_count = self._shelf.count_events(low + 1, below=high + 1)
        self._held_event_count -= event_count if released > self.released else -event_count
        self.released = released
        self._uncache(below=released + 1)
        self._trim(retain_bytes=self._options.retain_bytes)

    def close(self) -> None:
        """See `Hold`."""
        is_news = self.released != self._released_noted
        self._writer.close(released=self.released if is_news else None)
        self._files.close()

    def _write_manifest(self, manifest: Manifest) -> None:
        """Write a manifest; until that has worked, nobody knows which one is on disk."""
        self._is_manifest_sure = False
        try:
            write_manifest(self._files, manifest)
        except OSError as error:
            raise DiskFault(f"the numbers were not written down for sure: {error}") from error
        self._is_manifest_sure = True

    def _append(
        self,
        batches: Sequence[SpooledBatch],
        *,
        progress: Mapping[int, bytes],
        size_bytes: int,
    ) -> None:
        """Write one append, and note it once it is written. Raises OSError."""
        if not self._writer.has_room(size_bytes, first=self.next):
            self._begin_segment()
        segment = self._writer.current
        assert segment is not None
        seed = segment.seed
        records: list[bytes] = []
        if self.released != self._released_noted:
            records.append(encode_released(self.released, seed=seed))
        records += [encode_progress(k, payload=p, seed=seed) for k, p in progress.items()]
        batch_records = list(self._encoded(batches, seed=seed))
        data = b"".join((*records, *batch_records))
        # A report whose end is sent and then lost here would be found unfinished, and count again.
        self._writer.write(data, is_vital=any(spooled.settles for spooled in batches))
        self._released_noted = self.released
        position = segment.size_bytes + sum(map(len, records))
        self._shelf.grow(segment, size_bytes=len(data))
        self._note_progress(progress)
        for spooled, record in zip(batches, batch_records, strict=True):
            self._note_batch(spooled, segment=segment, start=position, size_bytes=len(record))
            position += len(record)

    def _encoded(self, batches: Sequence[SpooledBatch], *, seed: int) -> Iterator[bytes]:
        total = self._total_event_count
        for local, spooled in enumerate(batches, self.next):
            total += spooled.batch.event_count
            yield encode_batch(
                spooled.batch,
                local=local,
                total_event_count=total,
                settles=spooled.settles,
                seed=seed,
            )

    def _note_progress(self, progress: Mapping[int, bytes]) -> None:
        for key, payload in progress.items():
            if payload:
                self._running[key] = payload
            else:
                self._running.pop(key, None)

    def _note_batch(
        self, spooled: SpooledBatch, *, segment: Segment, start: int, size_bytes: int
    ) -> None:
        batch = spooled.batch
        segment.add(start=start, end=start + size_bytes, event_count=batch.event_count)
        for key in spooled.settles:
            self._running.pop(key, None)
        self._total_event_count += batch.event_count
        self._held_event_count += batch.event_count
        self._cache[self.next] = batch
        self._cached_bytes += len(batch.payload)
        self.next += 1
        while self._cached_bytes > self._options.cache_bytes_max:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1].payload)

    def _uncache(self, *, below: int) -> None:
        while self._cache and next(iter(self._cache)) < below:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1].payload)

    def _begin_segment(self) -> None:
        segment = self._writer.begin(self.next, released=self.released, running=self._running)
        self._released_noted = self.released
        if not len(self._shelf):
            # Numbers before it may have been left out: nothing is kept of them.
            self.first = segment.first
        self._shelf.add(segment)
        ensure_reserve(self._files)

    def _lose(self, local: int, *, segment: Segment) -> None:
        """Note that a batch has become a hole."""
        place = local - segment.first
        event_count = segment.event_counts[place]
        segment.starts[place] = segment.event_counts[place] = 0
        self.lost_event_count += event_count
        if local > self.released:
            self._held_event_count -= event_count

    def _make_room(self, size_bytes: int) -> None:
        """Have room for an append, or raise HoldFull or DiskFault."""
        try:
            while self._is_above_bound(size_bytes):
                oldest = self._shelf.oldest
                if oldest is None or not self._may_go(oldest):
                    raise HoldFull("the spool is full")
                if len(self._shelf) == 1:
                    self._begin_segment()
                self._remove_oldest()
        except OSError as error:
            self._writer.bury()
            raise DiskFault(f"no room could be made: {error}") from error

    def _is_above_bound(self, size_bytes: int) -> bool:
        if not self._writer.has_room(size_bytes, first=self.next):
            size_bytes += HEADER_SIZE + _NOTE_BYTES + _progress_bytes(self._running)
        return self._shelf.size_bytes + size_bytes > self._options.bytes_max

    def _may_go(self, segment: Segment) -> bool:
        if segment.first == segment.end == self.next:
            return False
        is_durable = segment.end <= self.released + 1
        return is_durable or self._options.when_full is WhenFull.DROP_OLDEST

    def _trim(self, *, retain_bytes: int) -> None:
        """Remove what is durable and too much; what cannot be removed now goes later."""
        durable_bytes = 0
        for segment in self._shelf:
            if segment.end > self.released + 1:
                break
            durable_bytes += segment.size_bytes
        with suppress(OSError):
            while len(self._shelf) > 1 and durable_bytes > retain_bytes:
                before = self._shelf.size_bytes
                self._remove_oldest()
                durable_bytes -= before - self._shelf.size_bytes

    def _remove_oldest(self) -> None:
        """Remove the oldest segment for good, never the last. Raises OSError."""
        if not self._is_folder_synced:
            # Should this one go while an older one comes back, what was void would count again.
            self._files.sync_folder()
        oldest = self._shelf.oldest
        assert oldest is not None
        with suppress(FileNotFoundError):
            self._files.remove(oldest.name)
        self._is_folder_synced = False
        unsent = self._shelf.count_events(max(self.released + 1, oldest.first), below=oldest.end)
        self.lost_event_count += unsent
        self._held_event_count -= unsent
        self._shelf.remove_oldest()
        newest = self._shelf.oldest
        assert newest is not None
        self.first = newest.first
        self.released = max(self.released, self.first - 1)
        self._uncache(below=self.first)
        self._files.sync_folder()
        self._is_folder_synced = True


_LOST: Final = frozenset({errno.EIO, errno.ENOENT})
"""How the system says that a file's content is gone; all else may pass."""
_NOTE_BYTES: Final = HEAD_SIZE + 8
_KEY_BYTES: Final = 8


def _progress_bytes(progress: Mapping[int, bytes]) -> int:
    return sum(map(len, progress.values())) + (HEAD_SIZE + _KEY_BYTES) * len(progress)


def _size_bytes_max(batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes]) -> int:
    """Return what an append takes at most."""
    payload_bytes = sum(len(spooled.batch.payload) for spooled in batches)
    key_bytes = sum(_KEY_BYTES * len(spooled.settles) for spooled in batches)
    front_bytes = BATCH_OVERHEAD * len(batches) + _NOTE_BYTES
    return payload_bytes + key_bytes + front_bytes + _progress_bytes(progress)
