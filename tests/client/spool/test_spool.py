"""What a spool, and a hold in memory, do with batches while the disk works."""

import errno
from collections.abc import Callable
from random import Random
from typing import Final

import pytest

from tests.client.spool.disk import Disk
from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import DiskFault, Hold, HoldFull, MemoryHold, SpooledBatch
from tokenworks.client.spool import Fsync, Spool, SpoolOptions, WhenFull

SMALL: Final = SpoolOptions(
    segment_bytes_max=1_000, bytes_max=4_000, retain_bytes=1_500, cache_bytes_max=300
)


def _open(disk: Disk, options: SpoolOptions = SMALL) -> Spool:
    return Spool.open(disk, producer="p", options=options)


def _batch(number: int, *, settles: tuple[int, ...] = ()) -> SpooledBatch:
    payload = b"%04d" % number * 50
    return SpooledBatch(batch=SealedBatch(payload=payload, event_count=number), settles=settles)


def _append(hold: Hold, *numbers: int) -> None:
    hold.append([_batch(number) for number in numbers], progress={})


def _payloads(hold: Hold) -> list[int | None]:
    batches = [hold.batch(local) for local in range(hold.first, hold.next)]
    return [None if batch is None else batch.event_count for batch in batches]


@pytest.mark.parametrize("make", [MemoryHold, lambda: _open(Disk())])
def test_hold__keeps_batches_in_order(make: Callable[[], Hold]) -> None:
    """Both holds number from 1 on, count what is not durable, and know their offsets."""
    hold = make()
    assert (hold.first, hold.next, hold.offset, hold.offset_of(1)) == (1, 1, None, None)
    _append(hold, 1, 2)
    _append(hold, 3)
    assert (hold.first, hold.next, hold.held_event_count) == (1, 4, 6)
    assert _payloads(hold) == [1, 2, 3]
    assert hold.batch(4) is None
    assert (hold.event_count(3), hold.event_count(4)) == (3, 0)
    hold.set_offset(10, first_local=1)
    hold.set_offset(20, first_local=3)
    hold.set_offset(20, first_local=4)
    assert [hold.offset_of(local) for local in (1, 2, 3, 9)] == [10, 10, 20, 20]
    hold.set_offset(30, first_local=2)
    assert [hold.offset_of(local) for local in (1, 2, 3, 9)] == [10, 30, 30, 30]
    assert hold.offset == 30
    hold.release(2)
    assert (hold.released, hold.held_event_count) == (2, 3)
    hold.release(99)
    assert (hold.released, hold.held_event_count) == (3, 0)
    hold.close()


def test_memory_hold__lets_go_at_once() -> None:
    """Without a disk nothing is retained."""
    hold = MemoryHold()
    _append(hold, 1, 2)
    hold.release(1)
    assert (hold.first, hold.batch(1), hold.size_bytes) == (2, None, 200)


def test_open__again() -> None:
    """A spool that is opened again has the same batches under the same numbers, and its offsets."""
    disk = Disk()
    spool = _open(disk)
    for number in range(1, 10):
        _append(spool, number)
    spool.set_offset(5, first_local=1)
    spool.release(3)
    spool.close()
    again = _open(disk)
    assert (again.first, again.next, again.released) == (1, 10, 3)
    assert _payloads(again) == list(range(1, 10))
    assert again.offset_of(9) == 5
    assert again.held_event_count == sum(range(4, 10))
    _append(again, 10)
    assert _payloads(_open(disk)) == list(range(1, 11))


def test_release__retains_as_much_as_asked_for() -> None:
    """Durable batches stay while they are few, the oldest go first, and unsent ones never."""
    spool = _open(Disk())
    for number in range(1, 13):
        _append(spool, number)
    assert spool.first == 1
    spool.release(10)
    assert 1 < spool.first < 10
    assert _payloads(spool) == list(range(spool.first, 13))


def test_release__is_taken_back() -> None:
    """After a restore of the meter what is still kept counts as held, and is not thrown away."""
    spool = _open(Disk())
    for number in range(1, 13):
        _append(spool, number)
    spool.release(10)
    first = spool.first
    spool.release(first)
    assert spool.held_event_count == sum(range(first + 1, 13))
    spool.release(1)
    assert spool.released == first - 1
    _append(spool, 13)
    assert spool.first == first


def test_append__full_drops_the_newest() -> None:
    """A full spool takes nothing new, keeps what it has, and takes more once that is durable."""
    spool = _open(Disk())
    with pytest.raises(HoldFull):
        for number in range(1, 99):
            _append(spool, number)
    held = spool.next - 1
    assert _payloads(spool) == list(range(1, held + 1))
    assert spool.size_bytes <= SMALL.bytes_max
    spool.release(held)
    _append(spool, 100)
    assert spool.batch(held + 1) == _batch(100).batch
    assert spool.lost_event_count == 0


def test_append__full_drops_the_oldest() -> None:
    """With drop_oldest the oldest segment goes, its events are counted, and the bound holds."""
    options = SpoolOptions(
        segment_bytes_max=1_000,
        bytes_max=4_000,
        when_full=WhenFull.DROP_OLDEST,
        retain_bytes=0,
    )
    disk = Disk()
    spool = _open(disk, options)
    for number in range(1, 99):
        _append(spool, number)
        assert spool.size_bytes <= options.bytes_max
        lost = sum(range(1, spool.first))
        assert (spool.lost_event_count, spool.held_event_count) == (
            lost,
            sum(range(spool.first, number + 1)),
        )
    assert spool.first > 1
    assert _payloads(_open(disk)) == list(range(spool.first, 99))


def test_append__one_batch_is_larger_than_all() -> None:
    """What could never fit is refused, whatever the policy."""
    for when_full in WhenFull:
        options = SpoolOptions(segment_bytes_max=100, bytes_max=200, when_full=when_full)
        with pytest.raises(HoldFull):
            _append(_open(Disk(), options), 1)


@pytest.mark.parametrize(("fsync", "count"), [(Fsync.BATCH, 3), (Fsync.EVENT, 3), (Fsync.NEVER, 0)])
def test_append__syncs_as_the_policy_says(fsync: Fsync, count: int) -> None:
    """One sync for each append; with "never" only for a batch that settles a running report."""
    disk = Disk()
    spool = _open(disk, SpoolOptions(fsync=fsync))
    _append(spool, 1)
    before = disk.sync_count
    _append(spool, 2, 3, 4)
    spool.append([], progress={1: b"running"})
    _append(spool, 5)
    spool.append([], progress={})
    assert disk.sync_count - before == count
    spool.append([_batch(6, settles=(1,))], progress={})
    assert disk.sync_count - before == count + 1
    again = _open(disk.after_power_loss(Random(1)))
    assert _payloads(again) == [1, 2, 3, 4, 5, 6]
    assert again.recovered == ()


def test_close__syncs_whatever_the_policy() -> None:
    """A spool that was closed in good order outlives a loss of power."""
    disk = Disk()
    spool = _open(disk, SpoolOptions(fsync=Fsync.NEVER))
    _append(spool, 1, 2)
    spool.release(1)
    spool.close()
    again = _open(disk.after_power_loss(Random(1)))
    assert (_payloads(again), again.released) == ([1, 2], 1)


def test_append__running_reports_outlive_old_segments() -> None:
    """A report that runs longer than segments are kept is still known, and once."""
    disk = Disk()
    spool = _open(disk)
    spool.append([], progress={1: b"old", 2: b"ended", 3: b"settled", 4: b"first"})
    spool.append([_batch(1, settles=(3,))], progress={2: b"", 4: b"last"})
    for number in range(2, 30):
        _append(spool, number)
        spool.release(spool.next - 1)
    assert spool.first > 5
    again = _open(disk.after_kill())
    assert [(key, batch.payload) for key, batch in again.recovered] == [(1, b"old"), (4, b"last")]
    again.append([_batch(1, settles=(1,)), _batch(1, settles=(4,))], progress={})
    assert _open(disk.after_kill()).recovered


def test_append__only_running_reports() -> None:
    """Reports that change all the time without a batch do not fill the disk."""
    disk = Disk()
    spool = _open(disk)
    for number in range(500):
        spool.append([], progress={1: b"%04d" % number * 20})
        assert spool.size_bytes <= 2 * SMALL.segment_bytes_max
    ((key, batch),) = _open(disk.after_kill()).recovered
    assert (key, batch.payload[:4]) == (1, b"0499")


def test_append__full_disk_gives_up_what_is_retained() -> None:
    """On a full disk durable batches make room for new ones."""
    disk = Disk()
    spool = _open(disk, SpoolOptions(segment_bytes_max=1_000, bytes_max=9_000))
    for number in range(1, 13):
        _append(spool, number)
    spool.release(12)
    assert spool.first == 1
    disk.capacity = disk.used_bytes
    _append(spool, 13)
    assert spool.first > 1
    assert spool.batch(13) == _batch(13).batch
    with pytest.raises(DiskFault, match="nothing was spooled"):
        for number in range(14, 99):
            _append(spool, number)
    held = _payloads(spool)
    disk.capacity = None
    _append(spool, 99)
    assert _payloads(_open(disk.after_kill())) == [*held, 99]


@pytest.mark.parametrize("failing", ["append", "sync"])
def test_append__what_failed_is_cut_off(failing: str) -> None:
    """Bytes of a batch that was refused do not stay where a restart would find them."""
    disk = Disk()
    spool = _open(disk)
    _append(spool, 1)
    name = f"{1:020d}.spool"
    before = disk.read(name)
    refused = disk.change_count + (failing == "sync")
    disk.torn_bytes = 100
    # Then comes the truncation, which works, and a new segment, which does not.
    disk.fault = lambda number: None if number in (refused - 1, refused + 1) else errno.EIO
    with pytest.raises(DiskFault):
        _append(spool, 2)
    assert disk.read(name) == before


def test_release__removal_is_for_good_before_the_next() -> None:
    """An old segment whose removal may not last is removed for good before a newer one goes."""
    disk = Disk()
    spool = _open(disk, SpoolOptions(segment_bytes_max=200, bytes_max=9_000, retain_bytes=0))
    for number in range(1, 8):
        _append(spool, number)
    begun, names = disk.change_count, [f"{local:020d}.spool" for local in (1, 2, 3)]
    disk.log.clear()
    disk.fault = lambda number: errno.EIO if number == begun + 1 else None
    spool.release(2)
    assert disk.log == [f"remove {names[0]}"]
    spool.release(3)
    assert disk.log[1:5] == [
        "sync folder",
        f"remove {names[1]}",
        "sync folder",
        f"remove {names[2]}",
    ]


def test_set_offset__full_disk_has_room_for_it() -> None:
    """Numbers can be fixed on a full disk: the reserve is given up for them."""
    disk = Disk()
    spool = _open(disk)
    _append(spool, 1)
    disk.capacity = disk.used_bytes
    spool.set_offset(7, first_local=1)
    assert _open(disk.after_kill()).offset == 7


def test_set_offset__disk_fails() -> None:
    """Numbers that cannot be written down are not used."""
    disk = Disk()
    spool = _open(disk)
    spool.set_offset(7, first_local=1)
    disk.fault = lambda _: errno.EIO
    with pytest.raises(DiskFault, match="numbers"):
        spool.set_offset(8, first_local=1)
    assert spool.offset == 7
    with pytest.raises(DiskFault, match="sure"):
        spool.set_offset(7, first_local=4)
    disk.fault = lambda _: None
    spool.set_offset(7, first_local=4)
    changes = disk.change_count
    spool.set_offset(7, first_local=4)
    assert disk.change_count == changes, "what is said already is not written again"


@pytest.mark.parametrize(
    ("bytes_max", "retain_bytes", "name"),
    [(16 * 1024**2 - 1, 0, "spool_bytes_max"), (1024**3, -1, "spool_retain_bytes")],
)
def test_options__out_of_range(bytes_max: int, retain_bytes: int, name: str) -> None:
    """A size that makes no sense is refused by name."""
    with pytest.raises(ValueError, match=name):
        SpoolOptions(bytes_max=bytes_max, retain_bytes=retain_bytes)
