"""The rows of the client's spool: what spooling costs, and how long a full one takes to open."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.measurement import Measurement, check_answer
from benchmarks.workload import MODELS, Batches, lengths
from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import HoldFull, SpooledBatch
from tokenworks.client.spool import Folder, Fsync, Spool, SpoolOptions

_LARGE: Final = 10_000
_SMALL: Final = 10
_BYTES_MAX: Final = 1024**3


def measure_append(seconds: float) -> Measurement:
    """Append batches of 10,000 events, each on disk before the next, beside bare syncs."""
    large, source = _batches(_LARGE)
    small, _ = _batches(_SMALL)
    with _folder() as folder:
        rate = _append(folder / "large", large, seconds=seconds / 2)
        small_rate = _append(folder / "small", small, seconds=seconds / 4)
        bound = _bare_syncs(folder / "bare", large, seconds=seconds / 4)
    return Measurement(
        value=rate,
        bound=bound,
        bound_of="write + fdatasync of the same bytes to one file, batches/s",
        workload=f"{seconds / 2:g} s, batches of {_LARGE:,} events, {len(large[0].payload):,}"
        f" bytes, {source}, fsync batch",
        notes={
            "events_per_second": rate * _LARGE,
            "megabytes_per_second": rate * len(large[0].payload) / 1e6,
            f"batches_per_second_of_{_SMALL}_events": small_rate,
        },
    )


def measure_open(seconds: float) -> Measurement:
    """Open a spool of 1 GiB, with batches of 10,000 and then of 10 events, beside bare reading."""
    size_bytes = int(min(seconds / 10, 1) * _BYTES_MAX)
    large, source = _batches(_LARGE)
    small, _ = _batches(_SMALL)
    with _folder() as folder:
        bound = _fill_and_read(folder / "large", large, size_bytes=size_bytes)
        value = _open(folder / "large")
        _fill_and_read(folder / "small", small, size_bytes=size_bytes)
        small_value = _open(folder / "small")
    return Measurement(
        value=value,
        bound=bound,
        bound_of="reading the same bytes, s",
        workload=f"{size_bytes:,} bytes in the page cache, batches of {_LARGE:,} events, {source}",
        notes={
            f"seconds_with_batches_of_{_SMALL}_events": small_value,
            f"batches_of_{_SMALL}_events": size_bytes / (len(small[0].payload) + 45),
        },
    )


def _batches(events: int) -> tuple[list[SealedBatch], str]:
    pairs, source = lengths()
    built = Batches(seed=1, events=events, model=MODELS[0], pairs=pairs, count=8)
    return [SealedBatch(payload=payload, event_count=events) for payload in built.payloads], source


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder on the disk of the tree: the system's own may be in memory."""
    build = Path("build")
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as name:
        yield Path(name)


def _append(path: Path, batches: list[SealedBatch], *, seconds: float) -> float:
    """Return how many batches a second were spooled; as after each, all before is durable."""
    spool = Spool.open(Folder.open(path), producer="p", options=SpoolOptions())
    begun = time.perf_counter()
    for number in count():
        spool.append([SpooledBatch(batch=batches[number % len(batches)])], progress={})
        spool.release(spool.next - 2)
        elapsed = time.perf_counter() - begun
        if elapsed >= seconds:
            break
    check_answer(counted=spool.next - 1, sent=number + 1)
    spool.close()
    return (number + 1) / elapsed


def _bare_syncs(path: Path, batches: list[SealedBatch], *, seconds: float) -> float:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    begun = time.perf_counter()
    for number in count(1):
        os.write(descriptor, batches[number % len(batches)].payload)
        os.fdatasync(descriptor)
        if time.perf_counter() - begun >= seconds:
            break
    os.close(descriptor)
    return number / (time.perf_counter() - begun)


def _fill_and_read(path: Path, batches: list[SealedBatch], *, size_bytes: int) -> float:
    """Fill a spool, and return how long reading its files takes, in seconds."""
    options = SpoolOptions(fsync=Fsync.NEVER, bytes_max=max(size_bytes, 16 * 1024**2))
    spool = Spool.open(Folder.open(path), producer="p", options=options)
    many = [SpooledBatch(batch=batch) for batch in batches] * (
        64 * 1024 // len(batches[0].payload) or 1
    )
    try:
        while spool.size_bytes < size_bytes:
            spool.append(many, progress={})
    except HoldFull:
        pass
    spool.close()
    begun = time.perf_counter()
    for segment in path.glob("*.spool"):
        segment.read_bytes()
    return time.perf_counter() - begun


def _open(path: Path) -> float:
    """Return how long a spool takes to open, in seconds."""
    begun = time.perf_counter()
    spool = Spool.open(Folder.open(path), producer="p", options=SpoolOptions())
    elapsed = time.perf_counter() - begun
    check_answer(counted=spool.held_event_count > 0, sent=True)
    check_answer(counted=spool.lost_event_count, sent=0)
    spool.close()
    return elapsed
