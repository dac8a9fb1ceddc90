"""The rules of numbers over a spool: what a restart, a clone and a rollback do to them."""

from collections.abc import Sequence

import pytest

from tests.client.spool.disk import Disk
from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import Hold, MemoryHold, SpooledBatch
from tokenworks.client.spool import Spool, SpoolOptions, WhenFull
from tokenworks.client.stream import UsageStream, Verdict

SMALL = SpoolOptions(bytes_max=8_192, segment_bytes_max=1_024, retain_bytes=1_000_000)


def test_connect__restart_names_the_oldest_kept() -> None:
    """A restart opens with the oldest number that it still has, though all may be recorded."""
    disk = _reported(3)
    assert UsageStream(_open(disk)).connect() == 1


def test_connect__spool_that_never_met_the_meter_says_zero() -> None:
    """Numbers that the meter has not named yet are not given out."""
    disk = Disk()
    _offer(_open(disk), 3)
    assert UsageStream(_open(disk)).connect() == 0


def test_opened__offset_is_on_disk_before_the_first_batch() -> None:
    """A process that dies right after its first contact sends under the same numbers again."""
    disk = Disk()
    hold = _open(disk)
    stream = UsageStream(hold)
    _offer(hold, 2)
    stream.connect()
    stream.opened(next_sequence=7, in_flight_max=9)
    first = _drain(stream)
    stream = UsageStream(_open(disk.after_kill()))
    stream.connect()
    stream.opened(next_sequence=7, in_flight_max=9)
    assert first == _drain(stream) == [(7, b"1"), (8, b"2")]


def test_opened__restart_compares_the_newest_recorded_first() -> None:
    """What the meter has is proved to be ours before anything new is sent."""
    stream = _restarted(_reported(3), next_sequence=3)
    assert _drain(stream) == [(2, b"2")]
    assert stream.acknowledged(sequence=2, durable_sequence=2) is Verdict.CONTINUE
    assert _drain(stream) == [(3, b"3")]
    assert stream.settled_count == 2


def test_opened__restart_with_all_durable_compares_what_is_kept() -> None:
    """What was durable may have gone with a restored database, and a copy have used its numbers."""
    disk = _reported(3, durable=3)
    hold = _open(disk)
    _offer(hold, 1, begin=4)
    stream = UsageStream(hold)
    stream.connect()
    stream.opened(next_sequence=4, in_flight_max=9)
    assert _drain(stream) == [(3, b"3")]
    stream.acknowledged(sequence=3, durable_sequence=3)
    assert _drain(stream) == [(4, b"4")]


def test_opened__nothing_recorded_after_a_restart_sends_all() -> None:
    """Without a recorded number there is nothing to compare."""
    assert _drain(_restarted(_reported(2), next_sequence=1)) == [(1, b"1"), (2, b"2")]


def test_acknowledged__changed_walks_back_until_one_is_ours() -> None:
    """Numbers that a clone has used go to quarantine one by one; what comes next goes behind."""
    disk = _reported(4)
    hold = _open(disk)
    stream = UsageStream(hold)
    stream.connect()
    stream.opened(next_sequence=8, in_flight_max=9)
    for number in (4, 3):
        assert _drain(stream) == [(number, b"%d" % number)]
        stream.acknowledged(sequence=number, durable_sequence=7, set_aside_count=1, is_changed=True)
    assert _drain(stream) == [(2, b"2")]
    stream.acknowledged(sequence=2, durable_sequence=7)
    assert hold.released == 4
    _offer(hold, 1, begin=5)
    assert _drain(stream) == [(8, b"5")]
    assert stream.set_aside_event_count == 4 + 3
    assert stream.gap_count == 0


def test_acknowledged__all_changed_begins_behind() -> None:
    """A clone that has used all our numbers has all our batches in quarantine, and we go on."""
    stream = _restarted(_reported(2), next_sequence=3)
    for number in (2, 1):
        assert _drain(stream) == [(number, b"%d" % number)]
        stream.acknowledged(sequence=number, durable_sequence=2, is_changed=True)
    assert stream.settled_count == 2
    assert stream.last_sequence == 2


def test_acknowledged__new_numbers_survive_the_next_restart() -> None:
    """Where new batches begin after a clone is on disk before they are sent."""
    disk = _reported(2)
    hold = _open(disk)
    stream = UsageStream(hold)
    stream.connect()
    stream.opened(next_sequence=6, in_flight_max=9)
    _drain(stream)
    stream.acknowledged(sequence=2, durable_sequence=5)
    _offer(hold, 1, begin=3)
    assert _drain(stream) == [(6, b"3")]
    again = _restarted(disk.after_kill(), next_sequence=6)
    assert _drain(again) == [(2, b"2")]
    again.acknowledged(sequence=2, durable_sequence=5)
    assert _drain(again) == [(6, b"3")]


def test_opened__too_old_to_compare_is_doubtful() -> None:
    """Where the meter cannot compare any more, what it may have goes out marked; new does not."""
    disk = _reported(2)
    hold = _open(disk)
    stream = UsageStream(hold)
    stream.connect()
    stream.opened(next_sequence=99, in_flight_max=9)
    assert _drain(stream) == [(2, b"2")]
    assert stream.opened(next_sequence=99, in_flight_max=9) is Verdict.CONTINUE
    _offer(hold, 1, begin=3)
    sent = [stream.next_batch() for _ in range(3)]
    assert [(each.sequence, each.is_doubtful) for each in sent if each] == [
        (99, True), (100, True), (101, False),
    ]  # fmt: skip
    again = _restarted(disk.after_kill(), next_sequence=100)
    compared = again.next_batch()
    assert compared is not None
    assert (compared.sequence, compared.is_doubtful) == (99, True), "its bytes are the same"


def test_opened__older_copy_is_doubtful() -> None:
    """A spool that was always written first and is behind is a copy: the meter keeps it aside."""
    hold = _open(_reported(2))
    stream = UsageStream(hold, doubts_when_behind=True)
    stream.connect()
    _offer(hold, 1, begin=3)
    stream.opened(next_sequence=5, in_flight_max=9)
    assert _drain(stream) == [(2, b"2")]
    stream.acknowledged(sequence=2, durable_sequence=4)
    _offer(hold, 1, begin=4)
    sent = [stream.next_batch() for _ in range(2)]
    assert [(each.sequence, each.is_doubtful) for each in sent if each] == [(5, True), (6, False)]


def test_opened__differing_and_too_old_is_forked() -> None:
    """A copy that went its own way for longer than the meter can compare: a person decides."""
    stream = _restarted(_reported(2), next_sequence=99)
    assert _drain(stream) == [(2, b"2")]
    stream.acknowledged(sequence=2, durable_sequence=98, set_aside_count=1, is_changed=True)
    assert _drain(stream) == [(1, b"1")]
    assert stream.opened(next_sequence=99, in_flight_max=9) is Verdict.FORKED


def test_acknowledged__says_nothing_of_what_is_no_longer_kept() -> None:
    """After a rollback a low ack does not cover numbers whose batches are gone meanwhile."""
    hold = MemoryHold()
    stream = UsageStream(hold)
    _offer(hold, 6)
    stream.connect()
    stream.opened(next_sequence=1, in_flight_max=9)
    _drain(stream)
    stream.acknowledged(sequence=6, durable_sequence=0)
    stream.opened(next_sequence=3, in_flight_max=9)
    hold.release(4)
    stream.acknowledged(sequence=2, durable_sequence=2)
    assert [_drain(stream), stream.must_reopen] == [[], True]
    assert stream.connect() == 5


def test_opened__older_meter_is_refilled() -> None:
    """A meter that was restored to an older state gets what it had acknowledged for good."""
    disk = _reported(5, durable=5)
    hold = _open(disk)
    stream = UsageStream(hold)
    stream.connect()
    stream.opened(next_sequence=6, in_flight_max=9)
    assert stream.opened(next_sequence=3, in_flight_max=9) is Verdict.CONTINUE
    assert hold.released == 2
    assert [number for number, _ in _drain(stream)] == [3, 4, 5]
    stream.acknowledged(sequence=5, durable_sequence=5)
    assert hold.released == 5
    assert (stream.gap_count, stream.settled_count) == (0, 0), "these were durable before"


def test_opened__older_than_all_kept_passes_over() -> None:
    """What is no longer kept is a gap, and what is kept is refilled."""
    options = SpoolOptions(bytes_max=8_192, segment_bytes_max=1_024, retain_bytes=0)
    disk = _reported(30, durable=30, options=options, size=100)
    hold = _open(disk, options)
    assert 1 < hold.first <= 30
    stream = UsageStream(hold)
    stream.connect()
    assert stream.opened(next_sequence=1, in_flight_max=99) is Verdict.REOPEN
    assert stream.gap_count == hold.first - 1
    stream.disconnect()
    assert stream.connect() == hold.first
    stream.opened(next_sequence=hold.first, in_flight_max=99)
    assert [number for number, _ in _drain(stream)] == list(range(hold.first, 31))


def test_next_batch__hole_is_passed_over_once_all_before_is_recorded() -> None:
    """A batch that the disk lost becomes a gap at the meter, behind which all goes on."""
    stream = UsageStream(_WithHole.open(_reported(4), producer="p", options=SMALL))
    stream.connect()
    stream.opened(next_sequence=1, in_flight_max=9)
    assert _drain(stream) == [(1, b"1"), (2, b"2")]
    stream.acknowledged(sequence=1, durable_sequence=1)
    assert [_drain(stream), stream.must_reopen] == [[], False]
    stream.acknowledged(sequence=2, durable_sequence=2)
    assert [_drain(stream), stream.must_reopen] == [[], True]
    assert [stream.connect(), stream.missing_from] == [4, 3]
    stream.opened(next_sequence=4, in_flight_max=9)
    assert _drain(stream) == [(4, b"4")]


def test_opened__restored_meter_is_refilled_before_a_hole() -> None:
    """A meter that came back older meanwhile does not pass over what is held before the hole."""
    stream = UsageStream(_WithHole.open(_reported(4), producer="p", options=SMALL))
    stream.connect()
    stream.opened(next_sequence=1, in_flight_max=9)
    _drain(stream)
    stream.acknowledged(sequence=2, durable_sequence=2)
    assert _drain(stream) == []
    assert [stream.connect(), stream.missing_from] == [4, 3]
    stream.opened(next_sequence=2, in_flight_max=9)
    assert _drain(stream) == [(2, b"2")]
    assert [stream.connect(), stream.missing_from] == [1, 0]


def test_opened__behind_a_hole_what_is_before_it_is_compared() -> None:
    """The hole's number may be somebody else's: what lies before it shows whose they are."""
    stream = UsageStream(_WithHole.open(_reported(4), producer="p", options=SMALL))
    stream.connect()
    stream.opened(next_sequence=4, in_flight_max=9)
    assert _drain(stream) == [(2, b"2")]
    stream.acknowledged(sequence=2, durable_sequence=3)
    assert _drain(stream) == [(4, b"4")]


def test_next_batch__oldest_dropped_becomes_a_gap() -> None:
    """What a full spool has dropped as the oldest is known to be missing."""
    options = SpoolOptions(bytes_max=4_096, segment_bytes_max=1_024, when_full=WhenFull.DROP_OLDEST)
    hold = _open(Disk(), options)
    stream = UsageStream(hold)
    stream.connect()
    stream.opened(next_sequence=1, in_flight_max=99)
    for number in range(1, 41):
        hold.append([SpooledBatch(batch=_batch(number, size=100))], progress={})
    assert hold.first > 1
    assert _drain(stream) == []
    assert stream.must_reopen
    assert stream.connect() == hold.first
    stream.opened(next_sequence=hold.first, in_flight_max=99)
    assert [number for number, _ in _drain(stream)] == list(range(hold.first, 41))


@pytest.mark.parametrize("next_sequence", [0, -5])
def test_opened__number_below_one_is_not_believed(next_sequence: int) -> None:
    """Numbers begin at 1, for a spool too."""
    stream = UsageStream(_open(_reported(2)))
    stream.connect()
    assert stream.opened(next_sequence=next_sequence, in_flight_max=9) is Verdict.REOPEN


class _WithHole(Spool):
    """A spool that has lost one batch."""

    lost = 3

    def batch(self, local: int) -> SealedBatch | None:
        """None for the lost one."""
        return None if local == self.lost else super().batch(local)

    def event_count(self, local: int) -> int:
        """0 for the lost one."""
        return 0 if local == self.lost else super().event_count(local)


def _batch(number: int, *, size: int = 0) -> SealedBatch:
    return SealedBatch(payload=(b"%d" % number).ljust(size), event_count=number)


def _open(disk: Disk, options: SpoolOptions = SMALL) -> Spool:
    return Spool.open(disk, producer="p", options=options)


def _offer(hold: Hold, count: int, *, begin: int = 1, size: int = 0) -> None:
    for number in range(begin, begin + count):
        hold.append([SpooledBatch(batch=_batch(number, size=size))], progress={})


def _reported(
    count: int, *, durable: int = 0, options: SpoolOptions = SMALL, size: int = 0
) -> Disk:
    """A disk on which batches of 1, 2, 3 … events lie that were sent from number 1 on."""
    disk = Disk()
    hold = _open(disk, options)
    stream = UsageStream(hold)
    stream.connect()
    stream.opened(next_sequence=1, in_flight_max=count)
    for number in range(1, count + 1):
        _offer(hold, 1, begin=number, size=size)
        _drain(stream)
        stream.acknowledged(sequence=number, durable_sequence=min(number, durable))
    hold.close()
    return disk


def _restarted(disk: Disk, *, next_sequence: int) -> UsageStream:
    stream = UsageStream(_open(disk))
    stream.connect()
    assert stream.opened(next_sequence=next_sequence, in_flight_max=9) is Verdict.CONTINUE
    return stream


def _drain(stream: UsageStream) -> Sequence[tuple[int, bytes]]:
    return [(n.sequence, n.batch.payload.strip()) for n in iter(stream.next_batch, None)]
