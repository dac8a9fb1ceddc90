"""What a spool finds when it is opened: batches, running reports, and what was damaged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokenworks.client.spool.files import Files, SpoolUnusable, put
from tokenworks.client.spool.manifest import read_manifest
from tokenworks.client.spool.records import encode_header, encode_progress, encode_released
from tokenworks.client.spool.segments import (
    Findings,
    Reading,
    Segment,
    read_segment,
    read_segments,
    whole_batches,
)


@dataclass(slots=True, kw_only=True)
class Recovered:
    """The state of a spool as its files say."""

    segments: list[Segment] = field(default_factory=list)
    running: dict[int, bytes] = field(default_factory=dict)
    """The content of running reports that are open, by key."""
    released: int = 0
    next: int = 1
    total_event_count: int = 0
    """Events of all batches since the spool was made."""
    findings: Findings = field(default_factory=Findings)
    newest: bytes = b""
    """The bytes of the newest segment."""


def recover(files: Files, *, salt: int) -> Recovered:
    """Read all segments, the oldest first. Raises SpoolUnusable, and OSError."""
    recovered = Recovered()
    losses: list[tuple[int, int]] = []
    settled: dict[int, int] = {}
    for reading, data in read_segments(files, salt=salt):
        _void(recovered, first=reading.segment.first)
        losses += _losses(recovered, reading=reading)
        _void_unsent(recovered, reading=reading, settled=settled)
        recovered.segments.append(reading.segment)
        recovered.next = reading.segment.end
        # Each segment begins with all that is open, so the newest one says it alone.
        recovered.running = reading.running
        recovered.released = reading.released
        recovered.newest = data
        if reading.total_before is not None:
            recovered.total_event_count = reading.total
        recovered.findings.torn_bytes = reading.torn_bytes
        recovered.findings.damaged_report_count = reading.doubtful_count
        recovered.findings.damaged_header_count += not reading.has_header
    # What was released was recorded, so its number is taken whatever became of its bytes.
    recovered.next = max(recovered.next, recovered.released + 1)
    recovered.findings.damaged_batch_count = _hole_count(recovered)
    recovered.findings.damaged_event_count = sum(
        event_count for end, event_count in losses if end > recovered.released + 1
    )
    return recovered


def holds_unsent(files: Files) -> bool:
    """Whether a spool has anything that the meter may not have; False where it cannot be read."""
    try:
        found = read_manifest(files)
        if found is None:
            return False
        recovered = recover(files, salt=found[0].salt)
    except (OSError, SpoolUnusable):
        return False
    return recovered.released < recovered.next - 1 or bool(recovered.running)


def begin(
    segment: Segment,
    *,
    salt: int,
    records: Sequence[bytes] = (),
    released: int,
    running: Mapping[int, bytes],
) -> bytes:
    """Return what a segment consists of when it is made, and note its size.

    All running reports that are open are in it, so that older segments may go.
    """
    seed = segment.seed
    open_reports = [encode_progress(k, payload=p, seed=seed) for k, p in running.items()]
    note = encode_released(released, seed=seed)
    data = b"".join((encode_header(segment.first, salt=salt), *records, note, *open_reports))
    segment.size_bytes = len(data)
    return data


def rewrite_newest(files: Files, recovered: Recovered, *, salt: int) -> Segment | None:
    """Write the newest segment anew, without what is torn or damaged; None where that failed.

    It takes the old one's place in `recovered`. Raises OSError where it can neither be written nor
    read.

    Nobody knows what a process that died had left unwritten, and whether the system was told: a
    file that was written anew and synced is as the disk has it, and can be gone on with.
    """
    old = recovered.segments[-1]
    records = whole_batches(recovered.newest, segment=old)
    new = Segment(old.first, seed=old.seed)
    position = len(encode_header(old.first, salt=salt))
    for start, end, event_count in zip(old.starts, old.ends, old.event_counts, strict=True):
        size = end - start
        new.add(
            start=position if size else 0,
            end=position + size if size else 0,
            event_count=event_count,
        )
        position += size
    data = begin(
        new, salt=salt, records=records, released=recovered.released, running=recovered.running
    )
    try:
        put(files, new.name, data=data)
    except OSError:
        # Either of the two may stand there now.
        there = files.read(new.name)
        recovered.segments[-1] = read_segment(there, first=new.first, salt=salt).segment
        return None
    recovered.segments[-1] = new
    return new


def _void(recovered: Recovered, *, first: int) -> None:
    """Forget batches from a number on: a newer segment begins there.

    Their append failed, so they were never sent, and came again in the newer one.
    """
    for segment in reversed(recovered.segments):
        if segment.end <= first:
            return
        recovered.total_event_count -= segment.cut(first)


def _void_unsent(recovered: Recovered, *, reading: Reading, settled: dict[int, int]) -> None:
    """Forget batches that end running reports of which a newer segment still knows.

    Their append failed, though they are there; they never went out. `settled` has the local number
    of the batch that ended each report so far.
    """
    ended = {key: local for local, keys in reading.settled for key in keys}
    for key in (reading.heard | ended.keys()) & settled.keys():
        for segment in recovered.segments:
            segment.void(settled[key])
    settled.update(ended)


def _losses(recovered: Recovered, *, reading: Reading) -> list[tuple[int, int]]:
    """Return the holes in a segment, and between it and the one before, with their events."""
    losses = reading.losses
    if recovered.segments and reading.total_before is not None:
        before = reading.total_before - recovered.total_event_count
        if before > 0:
            losses = [(reading.first_batch, before), *losses]
    return losses


def _hole_count(recovered: Recovered) -> int:
    """Return how many numbers above the released one have no batch."""
    low = recovered.released + 1
    if recovered.segments:
        low = max(low, recovered.segments[0].first)
    kept = sum(
        sum(map(bool, segment.starts[max(low - segment.first, 0) :]))
        for segment in recovered.segments
    )
    return max(recovered.next - low - kept, 0)
