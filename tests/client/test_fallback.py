"""A disk that fails while events come, and works again: nothing is lost, and no number is twice."""

import errno
from collections.abc import Sequence
from functools import partial

import pytest

from tests.client.spool.disk import Disk
from tokenworks.client.columns import SealedBatch
from tokenworks.client.fallback import FallbackHold
from tokenworks.client.hold import DiskFault, HoldFull, SpooledBatch
from tokenworks.client.spool import Spool, SpoolOptions


def test_append__failing_disk_goes_on_in_memory() -> None:
    """A batch that the disk does not take has its number and its bytes all the same."""
    disk, hold = _hold()
    _append(hold, b"1")
    _break(disk)
    _append(hold, b"2")
    assert (hold.works, hold.memory_event_count) == (False, 1)
    assert "as the test wants it" in hold.fault
    _mend(disk)
    _append(hold, b"3")
    assert hold.works
    assert _payloads(hold) == [b"1", b"2", b"3"]
    assert (hold.is_on_disk(1), hold.is_on_disk(2), hold.is_on_disk(3)) == (True, False, False)


def test_append__what_is_in_memory_leaves_its_numbers_out_on_disk() -> None:
    """After a restart each batch on disk has the number under which it was sent."""
    disk, hold = _hold()
    hold.set_offset(100, first_local=1)
    for text in (b"1", b"2"):
        _append(hold, text)
    _break(disk)
    for text in (b"3", b"4"):
        _append(hold, text)
    _mend(disk)
    _append(hold, b"5")
    numbers = {number + _offset(hold, number): hold.batch(number) for number in range(1, 6)}
    assert sorted(numbers) == [101, 102, 103, 104, 105]
    again = Spool.open(disk.after_kill(), producer="p", options=SpoolOptions())
    assert (again.first, again.next, again.lost_event_count) == (1, 6, 2)
    assert [again.event_count(number) for number in range(1, 6)] == [1, 1, 0, 0, 1]
    for number in (1, 2, 5):
        offset = again.offset_of(number)
        assert offset is not None
        assert again.batch(number) == numbers[number + offset]


def test_append__what_failed_and_is_there_after_all_stands_under_its_number() -> None:
    """A batch that went out from memory is found on disk under the number it went out with."""
    disk, hold = _hold()
    hold.set_offset(100, first_local=1)
    _append(hold, b"1")
    disk.torn_bytes = 10_000
    _break(disk)
    _append(hold, b"2")
    assert not hold.works
    _mend(disk)
    _append(hold, b"3")
    again = Spool.open(disk.after_kill(), producer="p", options=SpoolOptions())
    found = {
        number: batch.payload
        for number in range(again.first, again.next)
        if (batch := again.batch(number)) is not None
    }
    assert found == {1: b"1", 2: b"2", 3: b"3"}


def test_append__end_that_failed_and_is_there_after_all_counts_once() -> None:
    """The end of a report that the disk took when it said that it had not is there once."""
    disk, hold = _hold()
    hold.append([], progress={5: b"so far"})
    disk.torn_bytes = 10_000
    _break(disk)
    hold.append([_spooled(b"end", 5)], progress={})
    _append(hold, b"other")
    _mend(disk)
    _append(hold, b"next")
    again = Spool.open(disk.after_kill(), producer="p", options=SpoolOptions())
    batches = [again.batch(number) for number in range(again.first, again.next)]
    assert [batch.payload for batch in batches if batch].count(b"end") == 1
    assert not again.recovered


def test_append__before_the_first_contact_numbers_are_kept_apart_too() -> None:
    """Where the disk failed before the meter was there, the offset is told for each part."""
    disk, hold = _hold()
    _append(hold, b"1")
    _break(disk)
    _append(hold, b"2")
    _mend(disk)
    _append(hold, b"3")
    hold.set_offset(10, first_local=1)
    assert [_offset(hold, number) for number in (1, 2, 3)] == [10, 10, 10]
    again = Spool.open(disk.after_kill(), producer="p", options=SpoolOptions())
    assert [again.offset_of(number) for number in (1, 3)] == [10, 10]


def test_set_offset__failing_disk_with_something_on_it_refuses() -> None:
    """What is on disk is not sent before its number is there too."""
    disk, hold = _hold()
    _append(hold, b"1")
    _break(disk)
    with pytest.raises(DiskFault):
        hold.set_offset(10, first_local=1)
    assert hold.offset is None


def test_set_offset__failing_disk_with_nothing_on_it_refuses() -> None:
    """What the disk did not take may be there after all: its number has to be there first."""
    disk, hold = _hold()
    _break(disk)
    _append(hold, b"1")
    with pytest.raises(DiskFault):
        hold.set_offset(10, first_local=1)
    _mend(disk)
    hold.set_offset(10, first_local=1)
    _append(hold, b"2")
    again = Spool.open(disk.after_kill(), producer="p", options=SpoolOptions())
    assert (again.first, again.next, again.offset_of(2)) == (2, 3, 10)


def test_set_offset__half_written_holds_up_the_sending() -> None:
    """Numbers that a failed write may have left are replaced by ours before anything goes out."""
    for place in range(8):
        disk, hold = _hold()
        hold.set_offset(10, first_local=1)
        _append(hold, b"1")
        begin = disk.change_count
        disk.fault = partial(_failing_from, begin + place)
        with pytest.raises(DiskFault):
            hold.set_offset(20, first_local=1)
        with pytest.raises(DiskFault):
            hold.batch(1)
        _mend(disk)
        assert hold.batch(1)
        again = Spool.open(disk.after_kill(), producer="p", options=SpoolOptions())
        assert (again.offset_of(1), hold.offset_of(1)) == (10, 10)


def test_release__lets_go_in_memory_and_on_disk() -> None:
    """What is durable takes no room, wherever it lay."""
    disk, hold = _hold()
    _append(hold, b"1")
    _break(disk)
    _append(hold, b"2")
    _mend(disk)
    _append(hold, b"3")
    hold.release(2)
    assert (hold.held_event_count, hold.memory_event_count, hold.released) == (1, 0, 2)
    assert hold.is_on_disk(3)
    hold.release(3)
    assert hold.held_event_count == 0


def test_append__end_of_a_report_on_disk_waits_for_the_disk() -> None:
    """Sent from memory, it would count again as its progress does after a crash."""
    disk, hold = _hold()
    hold.append([], progress={5: b"so far"})
    _break(disk)
    hold.append([_spooled(b"end", 5), _spooled(b"other", 6)], progress={})
    assert _payloads(hold) == [b"other"]
    assert (hold.memory_event_count, hold.volatile_event_count) == (2, 1)
    _mend(disk)
    _append(hold, b"next")
    assert _payloads(hold) == [b"other", b"next", b"end"]
    assert hold.memory_event_count == 1
    assert not Spool.open(disk.after_kill(), producer="p", options=SpoolOptions()).recovered


def test_append__full_disk_keeps_the_end_of_a_report() -> None:
    """A full spool drops events, but the end of a report whose progress it has waits for room."""
    _, hold = _hold(SpoolOptions(bytes_max=2_048, segment_bytes_max=1_024))
    hold.append([], progress={5: b"so far"})
    with pytest.raises(HoldFull):
        for _ in range(9):
            _append(hold, bytes(600))
    with pytest.raises(HoldFull):
        hold.append([_spooled(bytes(600), 5), _spooled(bytes(600))], progress={})
    assert hold.memory_event_count == 1
    hold.release(hold.next - 1)
    hold.append([_spooled(b"next")], progress={})
    assert hold.memory_event_count == 0


@pytest.mark.parametrize("failure_count", range(24))
def test_append__disk_that_took_a_part_does_not_work(failure_count: int) -> None:
    """The disk counts as working only where it took all that it was given."""
    disk, hold = _hold()
    hold.append([], progress={5: b"so far"})
    numbers = list[int]()

    def fail(number: int) -> int | None:
        numbers.append(number)
        return errno.EIO if len(numbers) <= failure_count else None

    disk.fault = fail
    hold.append([_spooled(b"other"), _spooled(b"end", 5)], progress={})
    assert hold.works is (hold.memory_event_count == 0)


def test_first__what_was_left_out_before_all_else_is_not_looked_through() -> None:
    """A disk that failed from the start leaves no row of empty numbers before what is kept."""
    disk, hold = _hold()
    hold.set_offset(0, first_local=1)
    _break(disk)
    for text in (b"1", b"2", b"3"):
        _append(hold, text)
    hold.release(2)
    assert hold.first == 3
    hold.release(3)
    assert hold.first == hold.next == 4
    _mend(disk)
    _append(hold, b"4")
    assert (hold.first, hold.released) == (4, 3)
    again = Spool.open(disk.after_kill(), producer="p", options=SpoolOptions())
    assert (again.first, again.next) == (4, 5)


def test_append__flapping_disk_keeps_all_in_order() -> None:
    """However often the disk comes and goes, batches keep their order and their bytes."""
    disk, hold = _hold()
    texts = [b"%d" % number for number in range(40)]
    for number, text in enumerate(texts):
        (_break if number % 3 == 1 else _mend)(disk)
        _append(hold, text)
    assert _payloads(hold) == texts
    hold.release(30)
    assert _payloads(hold)[-10:] == texts[30:]


def _hold(options: SpoolOptions | None = None) -> tuple[Disk, FallbackHold]:
    disk = Disk()
    spool = Spool.open(disk, producer="p", options=options or SpoolOptions())
    return disk, FallbackHold(spool)


def _failing_from(first: int, change: int) -> int | None:
    return errno.EIO if change >= first else None


def _break(disk: Disk) -> None:
    disk.fault = lambda _: errno.EIO


def _mend(disk: Disk) -> None:
    disk.fault = lambda _: None


def _append(hold: FallbackHold, payload: bytes) -> None:
    hold.append([_spooled(payload)], progress={})


def _spooled(payload: bytes, *settles: int) -> SpooledBatch:
    return SpooledBatch(batch=SealedBatch(payload=payload, event_count=1), settles=settles)


def _payloads(hold: FallbackHold) -> Sequence[bytes]:
    batches = [hold.batch(number) for number in range(hold.first, hold.next)]
    return [batch.payload for batch in batches if batch is not None]


def _offset(hold: FallbackHold, local: int) -> int:
    offset = hold.offset_of(local)
    assert offset is not None
    return offset
