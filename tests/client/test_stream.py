"""The protocol of numbered batches, without a network."""

import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import DataObject, data, integers

from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import MemoryHold, SpooledBatch
from tokenworks.client.stream import NumberedBatch, UsageStream, Verdict


class MemoryStream(UsageStream):
    """A stream over memory, as a client without a spool has it."""

    def __init__(self) -> None:
        self.hold = MemoryHold()
        super().__init__(self.hold)

    def offer(self, batch: SealedBatch) -> None:
        """Have a batch sent in its turn."""
        self.hold.append([SpooledBatch(batch=batch)], progress={})

    @property
    def held_event_count(self) -> int:
        """Events that are not durable yet."""
        return self.hold.held_event_count


def test_connect__nothing_held_says_zero() -> None:
    """A stream that holds no numbered batch opens with 0, batches without a number included."""
    stream = MemoryStream()
    assert stream.connect() == 0
    stream.offer(_batch(1))
    assert stream.connect() == 0


def test_next_batch__nothing_before_opened() -> None:
    """No batch leaves, and none gets a number, before the meter has named one."""
    stream = MemoryStream()
    stream.offer(_batch(1))
    stream.connect()
    assert stream.next_batch() is None
    stream.opened(next_sequence=7, in_flight_max=4)
    assert _drain(stream) == [7]


def test_next_batch__stops_at_in_flight_max() -> None:
    """No more batches are under way than the meter allows; each ack makes room for another."""
    stream = _opened_with(5, in_flight_max=2)
    assert _drain(stream) == [1, 2]
    assert not stream.has_room
    stream.acknowledged(sequence=1, durable_sequence=0)
    assert _drain(stream) == [3]


def test_next_batch__in_flight_max_of_zero_sends_one() -> None:
    """A meter that allows none still gets one at a time, so that the stream cannot stall."""
    assert _drain(_opened_with(2, in_flight_max=0)) == [1]


def test_acknowledged__lets_go_what_is_durable_only() -> None:
    """A recorded batch is held until it is durable."""
    stream = _opened_with(3)
    assert _drain(stream) == [1, 2, 3]
    stream.acknowledged(sequence=3, durable_sequence=1)
    assert (stream.settled_count, stream.held_event_count) == (1, 2 + 3)
    stream.acknowledged(sequence=3, durable_sequence=3)
    assert (stream.settled_count, stream.held_event_count) == (3, 0)
    assert stream.acknowledged_event_count == 1 + 2 + 3


def test_acknowledged__repeated_counts_once() -> None:
    """An ack that comes again, or late, changes nothing."""
    stream = _opened_with(2)
    _drain(stream)
    for sequence in (2, 2, 1):
        stream.acknowledged(sequence=sequence, durable_sequence=2, set_aside_count=1)
    assert (stream.settled_count, stream.set_aside_event_count) == (2, 1)


def test_acknowledged__durable_beyond_recorded_is_capped() -> None:
    """A batch is never let go before it is recorded, whatever is said to be durable."""
    stream = _opened_with(3)
    _drain(stream)
    stream.acknowledged(sequence=1, durable_sequence=99)
    assert stream.settled_count == 1


@pytest.mark.parametrize("sequence", [3, 99])
def test_acknowledged__number_never_given_reopens(sequence: int) -> None:
    """An ack of a number that was never given out is no ack."""
    stream = _opened_with(2)
    _drain(stream)
    assert stream.acknowledged(sequence=sequence, durable_sequence=0) is Verdict.REOPEN
    assert stream.settled_count == 0


def test_acknowledged__before_opened_reopens() -> None:
    """A meter that acks before it has opened the stream is not believed."""
    stream = MemoryStream()
    stream.connect()
    assert stream.acknowledged(sequence=0, durable_sequence=0) is Verdict.REOPEN


def test_connect__names_the_oldest_held() -> None:
    """A new connection says from which number on everything is still here."""
    stream = _opened_with(3)
    _drain(stream)
    stream.acknowledged(sequence=2, durable_sequence=1)
    stream.disconnect()
    assert stream.connect() == 2


def test_opened__again_sends_the_same_bytes_under_the_same_numbers() -> None:
    """What was under way when the connection broke is repeated unchanged."""
    stream = _opened_with(3)
    first = _drain_batches(stream)
    stream.disconnect()
    stream.connect()
    stream.opened(next_sequence=1, in_flight_max=9)
    assert _drain_batches(stream) == first
    assert stream.resent_count == 3


def test_opened__ahead_skips_what_is_recorded_and_holds_it() -> None:
    """Batches below the named number are not repeated, and held until they are durable."""
    stream = _opened_with(3)
    _drain(stream)
    stream.disconnect()
    stream.connect()
    stream.opened(next_sequence=3, in_flight_max=9)
    assert _drain(stream) == [3]
    assert stream.settled_count == 0
    stream.acknowledged(sequence=3, durable_sequence=3)
    assert stream.settled_count == 3


def test_opened__in_between_goes_back() -> None:
    """After a hole the stream goes on from the number that the meter names."""
    stream = _opened_with(4)
    _drain(stream)
    stream.acknowledged(sequence=1, durable_sequence=1)
    assert stream.opened(next_sequence=2, in_flight_max=9) is Verdict.CONTINUE
    assert _drain(stream) == [2, 3, 4]


def test_opened__ack_of_what_was_to_be_repeated_spares_it() -> None:
    """What is acknowledged before it was sent again is not sent again."""
    stream = _opened_with(3)
    _drain(stream)
    stream.opened(next_sequence=1, in_flight_max=9)
    stream.acknowledged(sequence=2, durable_sequence=0)
    assert _drain(stream) == [3]


def test_opened__behind_what_was_recorded_goes_back() -> None:
    """A meter that lost what was recorded but not durable gets it again."""
    stream = _opened_with(3)
    _drain(stream)
    stream.acknowledged(sequence=3, durable_sequence=1)
    stream.opened(next_sequence=2, in_flight_max=9)
    assert _drain(stream) == [2, 3]


def test_opened__below_the_oldest_held_reopens() -> None:
    """A meter that lost what was durable is told by a new opening, and the loss is counted."""
    stream = _opened_with(4)
    _drain(stream)
    stream.acknowledged(sequence=3, durable_sequence=3)
    assert stream.opened(next_sequence=2, in_flight_max=9) is Verdict.REOPEN
    assert stream.gap_count == 2
    stream.disconnect()
    assert stream.connect() == 4
    assert stream.opened(next_sequence=4, in_flight_max=9) is Verdict.CONTINUE
    assert _drain(stream) == [4]


def test_opened__below_with_nothing_held_goes_on_from_there() -> None:
    """A stream that holds nothing takes the numbers that the meter wants, and counts the loss."""
    stream = _opened_with(3)
    _drain(stream)
    stream.acknowledged(sequence=3, durable_sequence=3)
    stream.disconnect()
    assert stream.connect() == 0
    assert stream.opened(next_sequence=2, in_flight_max=9) is Verdict.CONTINUE
    stream.offer(_batch(1))
    assert _drain(stream) == [2]
    assert (stream.gap_count, stream.resent_count) == (2, 0)


def test_opened__beyond_what_was_given_is_taken_over() -> None:
    """Numbers that we never gave were given by somebody else, perhaps over ours: stop."""
    stream = _opened_with(2)
    _drain(stream)
    stream.disconnect()
    stream.connect()
    assert stream.opened(next_sequence=5, in_flight_max=9) is Verdict.TAKEN_OVER


def test_opened__number_below_one_reopens() -> None:
    """Numbers begin at 1."""
    stream = MemoryStream()
    stream.connect()
    assert stream.opened(next_sequence=0, in_flight_max=9) is Verdict.REOPEN
    assert not stream.is_open


def test_disconnect__stops_sending() -> None:
    """Nothing leaves between two connections."""
    stream = _opened_with(2)
    stream.disconnect()
    assert stream.next_batch() is None
    assert not stream.has_room


def test_stream__delivers_once_and_in_order() -> None:
    """Each batch is recorded once and in order, whatever is cut, lost, repeated or late."""
    run_state_machine_as_test(
        Delivery, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )


class Delivery(RuleBasedStateMachine):
    """A stream and a model of a meter, with cuts, lost acks, slow disks and lost connections."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = MemoryStream()
        self.offered: list[bytes] = []
        self.recorded: list[bytes] = []
        """The model's journal; number n stands at n - 1."""
        self.durable = 0
        self.upstream: list[NumberedBatch] = []
        self.in_flight_max = 1
        self.connected = False

    @initialize(number=integers(0, 5))
    def begin(self, number: int) -> None:
        """An earlier process of this producer has left some batches."""
        self.earlier = [f"earlier {i}".encode() for i in range(number)]
        self.recorded = list(self.earlier)
        self.durable = number

    @rule()
    def offer(self) -> None:
        """The process seals a batch."""
        payload = f"batch {len(self.offered)}".encode()
        self.offered.append(payload)
        self.stream.offer(SealedBatch(payload=payload, event_count=1))

    @precondition(lambda self: not self.connected)
    @rule(in_flight_max=integers(1, 4))
    def connect(self, in_flight_max: int) -> None:
        """A connection is made, and the opening answered."""
        first = self.stream.connect()
        assert first <= len(self.recorded) + 1, "the model never loses what is durable"
        self.in_flight_max = in_flight_max
        self.connected = True
        self.answer_opened()

    @precondition(lambda self: self.connected)
    @rule()
    def send(self) -> None:
        """A batch goes onto the wire."""
        numbered = self.stream.next_batch()
        if numbered is not None:
            self.upstream.append(numbered)

    @precondition(lambda self: self.connected and self.upstream)
    @rule(repeated=integers(1, 2))
    def arrive(self, repeated: int) -> None:
        """A batch arrives, perhaps twice; a hole calls the stream back."""
        numbered = self.upstream.pop(0)
        for _ in range(repeated):
            payload = numbered.batch.payload
            if numbered.sequence == len(self.recorded) + 1:
                self.recorded.append(payload)
            elif numbered.sequence <= len(self.recorded):
                assert self.recorded[numbered.sequence - 1] == payload
            else:
                self.answer_opened()

    @precondition(lambda self: self.connected and self.upstream)
    @rule()
    def lose_one(self) -> None:
        """Something in between drops a batch."""
        self.upstream.pop(0)

    @rule(drawn=data())
    def harden(self, drawn: DataObject) -> None:
        """The disk gets on."""
        self.durable = drawn.draw(integers(self.durable, len(self.recorded)))

    @precondition(lambda self: self.connected)
    @rule(drawn=data())
    def ack(self, drawn: DataObject) -> None:
        """An ack arrives; those before it may have been left out."""
        sequence = drawn.draw(integers(self.durable, len(self.recorded)))
        verdict = self.stream.acknowledged(sequence=sequence, durable_sequence=self.durable)
        assert verdict is Verdict.CONTINUE

    @precondition(lambda self: self.connected)
    @rule(drawn=data())
    def fall_back(self, drawn: DataObject) -> None:
        """The meter's database fails over: what was not durable is gone."""
        kept = drawn.draw(integers(self.durable, len(self.recorded)))
        del self.recorded[kept:]
        self.cut()

    @precondition(lambda self: self.connected)
    @rule()
    def cut(self) -> None:
        """The connection breaks; what is on the wire is gone."""
        self.upstream.clear()
        self.connected = False
        self.stream.disconnect()

    def answer_opened(self) -> None:
        """Name the number that is expected."""
        verdict = self.stream.opened(
            next_sequence=len(self.recorded) + 1, in_flight_max=self.in_flight_max
        )
        assert verdict is Verdict.CONTINUE

    @invariant()
    def recorded_in_order(self) -> None:
        """What is recorded is what was offered, each batch once, in order."""
        ours = self.recorded[len(self.earlier) :] if hasattr(self, "earlier") else []
        assert ours == self.offered[: len(ours)]

    @invariant()
    def let_go_only_when_durable(self) -> None:
        """Nothing was let go that the meter could still lose."""
        earlier = len(self.earlier) if hasattr(self, "earlier") else 0
        assert self.stream.settled_count <= self.durable - earlier
        assert self.stream.held_event_count == len(self.offered) - self.stream.settled_count

    def teardown(self) -> None:
        """In the end, over a connection that works, everything arrives."""
        if self.connected:
            self.cut()
        self.connect(4)
        while True:
            self.send()
            if not self.upstream:
                break
            self.arrive(1)
            self.durable = len(self.recorded)
            self.stream.acknowledged(sequence=self.durable, durable_sequence=self.durable)
        self.durable = len(self.recorded)
        self.stream.acknowledged(sequence=self.durable, durable_sequence=self.durable)
        assert self.recorded == self.earlier + self.offered
        assert self.stream.held_event_count == 0


def _batch(event_count: int) -> SealedBatch:
    return SealedBatch(payload=b"%d" % event_count, event_count=event_count)


def _opened_with(count: int, *, in_flight_max: int = 9) -> MemoryStream:
    """Open a stream from number 1, with batches of 1, 2, 3 … events waiting."""
    stream = MemoryStream()
    for number in range(1, count + 1):
        stream.offer(_batch(number))
    stream.connect()
    assert stream.opened(next_sequence=1, in_flight_max=in_flight_max) is Verdict.CONTINUE
    return stream


def _drain_batches(stream: MemoryStream) -> list[NumberedBatch]:
    return list(iter(stream.next_batch, None))


def _drain(stream: MemoryStream) -> list[int]:
    return [numbered.sequence for numbered in _drain_batches(stream)]
