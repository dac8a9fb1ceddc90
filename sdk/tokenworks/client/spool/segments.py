"""What a spool remembers of its segments, and how it reads them when it is opened."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tokenworks.client.spool.files import Files, Reason, SpoolUnusable
from tokenworks.client.spool.manifest import segment_first, segment_name
from tokenworks.client.spool.records import (
    BATCH_OVERHEAD,
    HEADER_SIZE,
    VERSION,
    Kind,
    Stretch,
    is_torn,
    read_batch_head,
    read_header,
    read_number,
    read_progress_payload,
    read_settles,
    seed_of,
    walk,
)


class Segment:
    """Where the batches of one file lie; 12 bytes a batch, since there may be millions."""

    __slots__ = ("ends", "event_counts", "first", "seed", "size_bytes", "starts")

    def __init__(self, first: int, *, seed: int) -> None:
        self.first = first
        self.seed = seed
        self.starts = array("I")
        """Where each batch's record begins; 0 for a hole."""
        self.ends = array("I")
        self.event_counts = array("I")
        self.size_bytes = 0

    @property
    def name(self) -> str:
        """The name of its file."""
        return segment_name(self.first)

    @property
    def end(self) -> int:
        """The local number after its last one."""
        return self.first + len(self.starts)

    def add(self, *, start: int, end: int, event_count: int) -> None:
        """Note the next batch."""
        self.starts.append(start)
        self.ends.append(end)
        self.event_counts.append(event_count)

    def void(self, local: int) -> None:
        """Make a hole of one batch, if it is here."""
        place = local - self.first
        if 0 <= place < len(self.starts):
            self.starts[place] = self.ends[place] = self.event_counts[place] = 0

    def cut(self, local: int) -> int:
        """Forget batches from a local number on; returns how many events they had."""
        kept = max(local - self.first, 0)
        event_count = sum(self.event_counts[kept:])
        for column in (self.starts, self.ends, self.event_counts):
            del column[kept:]
        return event_count


class Shelf:
    """The segments of a spool, the oldest first; there may be holes in them and between them."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._segments = list(segments)
        self.size_bytes = sum(segment.size_bytes for segment in self._segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def oldest(self) -> Segment | None:
        """The segment that goes first."""
        return self._segments[0] if self._segments else None

    def add(self, segment: Segment) -> None:
        """Put a segment at the end; it stands in for one that begins with the same number."""
        if self._segments and self._segments[-1].first == segment.first:
            self.size_bytes -= self._segments.pop().size_bytes
        self._segments.append(segment)
        self.size_bytes += segment.size_bytes

    def grow(self, segment: Segment, *, size_bytes: int) -> None:
        """Note that so many bytes were appended to a segment."""
        segment.size_bytes += size_bytes
        self.size_bytes += size_bytes

    def remove_oldest(self) -> None:
        """Forget the oldest segment."""
        self.size_bytes -= self._segments.pop(0).size_bytes

    def find(self, local: int) -> Segment | None:
        """Return the segment in which a local number lies; None where it is in none."""
        at = bisect_right(self._segments, local, key=lambda segment: segment.first) - 1
        if at < 0 or local >= self._segments[at].end:
            return None
        return self._segments[at]

    def count_events(self, low: int, *, below: int) -> int:
        """Return how many events the batches from `low` to below `below` have."""
        at = max(bisect_right(self._segments, low, key=lambda segment: segment.first) - 1, 0)
        count = 0
        for segment in self._segments[at:]:
            if segment.first >= below:
                break
            place = slice(max(low - segment.first, 0), max(below - segment.first, 0))
            count += sum(segment.event_counts[place])
        return count


@dataclass(slots=True, kw_only=True)
class Findings:
    """What was wrong with a spool when it was opened."""

    damaged_batch_count: int = 0
    """Numbers whose batch cannot be read any more."""
    damaged_event_count: int = 0
    """Events of those, as far as the records around them tell."""
    damaged_report_count: int = 0
    """Running reports that may have been sent with a batch that is lost: they do not count."""
    damaged_header_count: int = 0
    """Segments whose header was damaged; nothing is lost by that."""
    torn_bytes: int = 0
    """Bytes of a last record that was never finished."""
    is_manifest_damaged: bool = False
    """One of the two copies could not be read."""


@dataclass(slots=True, kw_only=True)
class Reading:
    """What one segment says."""

    segment: Segment
    running: dict[int, bytes] = field(default_factory=dict)
    """The content of running reports that are open at its end, by key."""
    doubtful_count: int = 0
    """Running reports that a damaged record may have settled."""
    released: int = 0
    total_before: int | None = None
    """Events of all batches before its first one; None where it has none that can be read."""
    first_batch: int = 0
    """The local number of its first batch that can be read."""
    total: int = 0
    """Events of all batches up to its last one."""
    settled: list[tuple[int, Sequence[int]]] = field(default_factory=list)
    """Local numbers of batches that finish running reports, and the keys of those."""
    heard: set[int] = field(default_factory=set)
    """Keys of the running reports whose content it has."""
    losses: list[tuple[int, int]] = field(default_factory=list)
    """For each of its holes: the local number after it, and how many events it had."""
    torn_bytes: int = 0
    has_header: bool = True


# A damaged number would otherwise ask for memory without end.
_HOLES_PER_BYTE: Final = 1 / BATCH_OVERHEAD


def read_segment(data: bytes, *, first: int, salt: int) -> Reading:
    """Read the bytes of a segment. Raises SpoolUnusable where another version wrote it."""
    header = read_header(data)
    if header is not None and header.version != VERSION:
        raise SpoolUnusable(
            f"segment {segment_name(first)} has version {header.version}, this client knows "
            f"{VERSION}: let the client that wrote it send what it holds",
            reason=Reason.OTHER_VERSION,
        )
    seed = seed_of(first, salt=salt)
    reading = Reading(segment=Segment(first, seed=seed), has_header=header is not None)
    reading.segment.size_bytes = len(data)
    doubtful: set[int] = set()
    for stretch in walk(data, seed=seed):
        if stretch.is_whole:
            _take(reading, data=data, stretch=stretch, doubtful=doubtful)
        elif is_torn(data, stretch, seed=seed):
            reading.torn_bytes = stretch.end - stretch.start
        elif stretch.kind in (Kind.DAMAGED, Kind.BATCH, Kind.ENDED):
            # It may have settled any of the reports that were open. Sending those could count
            # them twice, so they are given up unless they are heard of again.
            doubtful.update(reading.running)
    for key in doubtful:
        del reading.running[key]
    reading.doubtful_count = len(doubtful)
    return reading


def read_segments(files: Files, *, salt: int) -> Iterator[tuple[Reading, bytes]]:
    """Yield what each segment says, and its bytes, from the oldest on. Raises OSError."""
    firsts = [first for name in files.names() if (first := segment_first(name)) is not None]
    for first in sorted(firsts):
        data = files.read(segment_name(first))
        yield read_segment(data, first=first, salt=salt), data


def whole_batches(data: bytes, *, segment: Segment) -> Sequence[bytes]:
    """Return the records of the batches that a segment has."""
    places = zip(segment.starts, segment.ends, strict=True)
    return [data[start:end] for start, end in places if start]


def _take(reading: Reading, *, data: bytes, stretch: Stretch, doubtful: set[int]) -> None:
    if stretch.kind == Kind.BATCH:
        _take_batch(reading, data=data, stretch=stretch, doubtful=doubtful)
    elif stretch.kind == Kind.PROGRESS:
        key = read_number(data, stretch.body)
        reading.running[key] = read_progress_payload(data, stretch)
        reading.heard.add(key)
        doubtful.discard(key)
    elif stretch.kind == Kind.ENDED:
        key = read_number(data, stretch.body)
        reading.running.pop(key, None)
        doubtful.discard(key)
    elif stretch.kind == Kind.RELEASED:
        reading.released = read_number(data, stretch.body)


def _take_batch(reading: Reading, *, data: bytes, stretch: Stretch, doubtful: set[int]) -> None:
    head = read_batch_head(data, stretch.body)
    segment = reading.segment
    hole_count = head.local - segment.end
    if hole_count < 0 or hole_count > len(data) * _HOLES_PER_BYTE:
        return
    before = head.total_event_count - head.event_count
    if reading.total_before is None:
        reading.total_before, reading.first_batch = before, head.local
    elif before > reading.total:
        reading.losses.append((head.local, before - reading.total))
    for _ in range(hole_count):
        segment.add(start=0, end=0, event_count=0)
    segment.add(start=stretch.start, end=stretch.end, event_count=head.event_count)
    reading.total = head.total_event_count
    if head.settle_count:
        keys = read_settles(data, stretch.body)
        reading.settled.append((head.local, keys))
        for key in keys:
            reading.running.pop(key, None)
            doubtful.discard(key)


assert HEADER_SIZE > 0, "no record begins at 0, which stands for a hole"
