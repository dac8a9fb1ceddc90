"""What a spool makes of bytes that have rotted, were torn, or are not its own."""

import errno
import json
from random import Random
from typing import Final
from zlib import crc32

import pytest

from tests.client.spool.disk import SALT, Disk
from tests.client.spool.script import PRODUCER, Truth, Work, check
from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import DiskFault, SpooledBatch
from tokenworks.client.spool import Reason, Spool, SpoolOptions, SpoolUnusable
from tokenworks.client.spool.manifest import MANIFEST_NAMES
from tokenworks.client.spool.records import encode_batch, encode_header, seed_of

OPTIONS: Final = SpoolOptions(segment_bytes_max=700, bytes_max=100_000, cache_bytes_max=0)
FIRST: Final = f"{1:020d}.spool"


def _filled() -> tuple[Disk, Truth]:
    """A spool of several segments, with running reports, of a process that was killed."""
    disk, truth = Disk(), Truth()
    work = Work(disk, truth=truth, start=1, options=OPTIONS)
    work.run(14)
    return disk.after_kill(), truth


def _open(disk: Disk, *, producer: str = PRODUCER) -> Spool:
    return Spool.open(disk, producer=producer, options=OPTIONS)


def _found(spool: Spool) -> dict[int, bytes]:
    batches = {local: spool.batch(local) for local in range(spool.first, spool.next)}
    return {local: batch.payload for local, batch in batches.items() if batch is not None}


def _segments(disk: Disk) -> list[str]:
    return sorted(name for name in disk.names() if name.endswith(".spool"))


def _check_damaged(disk: Disk, *, truth: Truth, is_newest: bool) -> None:
    """One damaged place costs one batch at most, and says which; nothing else changes."""
    spool = _open(disk)
    found = _found(spool)
    lost = truth.returned.keys() - found.keys()
    assert len(lost) <= 1
    assert found.items() <= truth.returned.items()
    findings = spool.findings
    is_tail = is_newest and lost == {max(truth.returned)}
    if not is_tail:
        lost_unsent = [local for local in lost if local > spool.released]
        assert findings.damaged_batch_count == len(lost_unsent)
        assert findings.damaged_event_count == sum(lost_unsent)
    recovered = {key: batch.payload for key, batch in spool.recovered}
    assert recovered.items() <= truth.running.items()
    assert is_newest or recovered == truth.running
    assert spool.lost_event_count == (findings.damaged_event_count + findings.damaged_report_count)


def _flip_some(*, step: int) -> int:
    disk, truth = _filled()
    random = Random(step)
    count = 0
    for name in _segments(disk):
        bit_count = 8 * len(disk.read(name))
        for start in range(0, bit_count, step):
            bit = min(start + random.randrange(step), bit_count - 1)
            _check_damaged(
                disk.flipped(name, bit), truth=truth, is_newest=name == _segments(disk)[-1]
            )
            count += 1
    return count


def test_open__one_bit_has_flipped() -> None:
    """A flipped bit anywhere costs one batch at most, counted, and never counts one twice."""
    assert _flip_some(step=24) > 500


@pytest.mark.stacks
def test_open__each_bit_has_flipped() -> None:
    """The same for each single bit of a spool."""
    assert _flip_some(step=1) > 10_000


@pytest.mark.parametrize("name", MANIFEST_NAMES)
def test_open__manifest_has_rotted(name: str) -> None:
    """A bit of either copy of the manifest costs nothing, and the copy is mended."""
    disk, truth = _filled()
    for bit in range(0, 8 * len(disk.read(name)), 5):
        damaged = disk.flipped(name, bit)
        spool = _open(damaged)
        assert spool.findings.is_manifest_damaged
        check(spool, truth=truth)
        assert not _open(damaged.after_kill()).findings.is_manifest_damaged


def test_open__tail_is_torn_at_every_byte() -> None:
    """Cut off anywhere, the newest segment gives all that was whole, and is healed for good."""
    disk, truth = _filled()
    name = _segments(disk)[-1]
    data = disk.read(name)
    for size in range(len(data)):
        torn = disk.with_file(name, data[:size])
        spool = _open(torn)
        found = _found(spool)
        assert found == {n: p for n, p in truth.returned.items() if n < spool.next}
        assert spool.findings.damaged_batch_count == 0
        assert spool.lost_event_count == 0
        again = _open(torn.after_kill())
        assert _found(again) == found
        assert again.findings.torn_bytes == 0


def test_open__sector_is_zero_anywhere() -> None:
    """A place of 64 bytes that is lost costs what lay there; all else is still sent once."""
    disk, truth = _filled()
    for name in _segments(disk):
        data = disk.read(name)
        for start in range(0, len(data), 32):
            hurt = data[:start] + bytes(len(data[start : start + 64])) + data[start + 64 :]
            spool = _open(disk.with_file(name, hurt))
            found = _found(spool)
            assert found.items() <= truth.returned.items()
            assert len(truth.returned) - len(found) <= 3
            recovered = {key: batch.payload for key, batch in spool.recovered}
            assert recovered.items() <= truth.running.items()


def test_open__segment_is_gone() -> None:
    """A segment that somebody removed is a hole; what is around it is there."""
    disk, truth = _filled()
    first, second, third = _segments(disk)[:3]
    spool = _open(disk.with_file(second, None))
    low, high = int(second[:20]), int(third[:20])
    assert truth.returned.keys() - _found(spool).keys() == set(range(low, high))
    assert first in disk.names()
    unsent = range(max(low, spool.released + 1), high)
    assert spool.findings.damaged_batch_count == len(unsent)


def test_open__number_that_was_released_is_not_given_again() -> None:
    """What was released was recorded, so its number is taken though its bytes have rotted."""
    disk = Disk()
    spool = _open(disk)
    _append(spool, b"one", b"two")
    spool.release(2)
    spool.close()
    place = disk.read(FIRST).index(b"two")
    again = _open(disk.flipped(FIRST, 8 * place))
    assert (again.next, again.lost_event_count, again.held_event_count) == (3, 0, 0)
    _append(again, b"three")
    assert _found(again) == {1: b"one", 3: b"three"}


def test_open__reported_content_looks_like_a_record() -> None:
    """A payload in the form of a record does not become one when what is around it rots."""
    forged = encode_batch(
        SealedBatch(payload=b"forged", event_count=9), local=2, total_event_count=10, settles=(),
        seed=seed_of(1, salt=SALT + 1),
    )  # fmt: skip
    disk = Disk()
    _append(_open(disk), forged, b"after")
    start = disk.read(FIRST).index(forged)
    # The head of the record around it.
    spool = _open(disk.flipped(FIRST, 8 * (start - 40)))
    assert _found(spool) == {2: b"after"}


def test_batch__has_rotted_since() -> None:
    """A batch that cannot be read any more is a hole, counted once."""
    disk = Disk()
    spool = _open(disk)
    _append(spool, b"one", b"two")
    data = disk.read(FIRST)
    place = data.index(b"one")
    disk._seen[FIRST].seen[place] ^= 1  # noqa: SLF001 - behind the spool's back
    assert [spool.batch(1), spool.batch(1)] == [None, None]
    assert (spool.lost_event_count, spool.held_event_count, spool.event_count(1)) == (1, 1, 0)
    assert spool.batch(2) is not None


def test_batch__disk_does_not_answer() -> None:
    """A batch whose bytes the disk has lost is a hole; one that it may give later is not."""
    disk = Disk()
    spool = _open(disk)
    _append(spool, b"one")
    disk.read_errno = errno.EMFILE
    with pytest.raises(DiskFault, match="batch 1"):
        spool.batch(1)
    disk.read_errno = errno.EIO
    assert spool.batch(1) is None
    assert spool.lost_event_count == 1


def _manifest(**fields: object) -> bytes:
    values: dict[str, object] = {"version": 1, "producer": PRODUCER, "salt": SALT}
    values |= {"offsets": [], "doubtful": []} | fields
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return json.dumps(values | {"checksum": crc32(text.encode())}).encode()


def _disk_with(files: dict[str, bytes]) -> Disk:
    disk = Disk()
    for name, data in files.items():
        disk = disk.with_file(name, data)
    return disk


def _segment_of_version(version: int) -> bytes:
    header = bytearray(encode_header(1, salt=SALT))
    header[8:12] = version.to_bytes(4, "little")
    return bytes(header[:-4]) + crc32(header[:-4]).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("files", "reason", "advice"),
    [
        (dict.fromkeys(MANIFEST_NAMES, _manifest(version=2)), Reason.OTHER_VERSION, "version 2"),
        ({MANIFEST_NAMES[0]: b'{"version": 9}'}, Reason.OTHER_VERSION, "version 9"),
        (
            {MANIFEST_NAMES[0]: _manifest(), FIRST: _segment_of_version(3)},
            Reason.OTHER_VERSION,
            "version 3",
        ),
        ({MANIFEST_NAMES[0]: _manifest(producer="q")}, Reason.OTHER_PRODUCER, "'q'"),
        (dict.fromkeys(MANIFEST_NAMES, b"{"), Reason.DAMAGED_MANIFEST, "put one of them back"),
        (dict.fromkeys(MANIFEST_NAMES, b""), Reason.DAMAGED_MANIFEST, "put one of them back"),
        (dict.fromkeys(MANIFEST_NAMES, b"[1]"), Reason.DAMAGED_MANIFEST, "put one of them back"),
        ({FIRST: b"anything"}, Reason.DAMAGED_MANIFEST, "put one of them back"),
        ({"photo.jpg": b"\xff\xd8"}, Reason.FOREIGN, "photo.jpg"),
    ],
)
def test_open__folder_is_of_no_use(files: dict[str, bytes], reason: Reason, advice: str) -> None:
    """What is not this producer's spool of this version is refused, and left as it is."""
    disk = _disk_with(files)
    with pytest.raises(SpoolUnusable, match=advice) as refused:
        _open(disk)
    assert refused.value.reason is reason
    assert disk.change_count == 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EROFS, Reason.READ_ONLY),
        (errno.EACCES, Reason.READ_ONLY),
        (errno.ENOSPC, Reason.NO_SPACE),
        (errno.EDQUOT, Reason.NO_SPACE),
        (errno.EIO, Reason.DISK),
    ],
)
def test_open__disk_fails(code: int, reason: Reason) -> None:
    """A disk on which no spool can be made is named with its fault."""
    disk = Disk()
    disk.fault = lambda _: code
    with pytest.raises(SpoolUnusable) as refused:
        _open(disk)
    assert refused.value.reason is reason


def test_open__half_made() -> None:
    """A spool that was never finished being made is made now."""
    disk = _disk_with({"new.tmp": b'{"vers', "lock": b""})
    spool = _open(disk)
    _append(spool, b"one")
    assert _found(_open(disk.after_kill())) == {1: b"one"}


def test_open__full_disk_has_batches() -> None:
    """A spool on a full disk gives what it holds, and says later that it cannot take more."""
    disk, truth = _filled()
    disk.fault = lambda _: errno.ENOSPC
    spool = _open(disk)
    check(spool, truth=truth)
    with pytest.raises(DiskFault):
        _append(spool, b"new")


def _append(spool: Spool, *payloads: bytes) -> None:
    batches = [SealedBatch(payload=payload, event_count=1) for payload in payloads]
    spool.append([SpooledBatch(batch=batch) for batch in batches], progress={})
