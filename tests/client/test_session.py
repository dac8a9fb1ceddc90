"""The sender's decisions, step by step: no thread, no network, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.client.spool.disk import Disk
from tokenworks.client.columns import SealedBatch
from tokenworks.client.fallback import FallbackHold
from tokenworks.client.hold import Hold, MemoryHold, SpooledBatch
from tokenworks.client.messages import Acknowledged, Opened
from tokenworks.client.retry import BROKEN, ENDED, FORKED, RENEWED, Backoff, Failure, Fate
from tokenworks.client.session import Action, Answer, Connect, Cut, Pace, Send, Session, Wake, Wish
from tokenworks.client.spool import Spool, SpoolOptions
from tokenworks.client.vocabulary import State
from tokenworks.meter.v1.meter_service_pb2 import StreamUsageRequest
from tokenworks.meter.v1.usage_pb2 import UsageColumns

PACE: Final = Pace(flush_interval=0.5, heartbeat_min=1.0, heartbeat_idle=10.0, silence_max=30.0)
OPENED: Final = Opened(next_sequence=1, in_flight_max=4)


@dataclass(slots=True)
class Told:
    """What an operator would hear."""

    states: list[State] = field(default_factory=list)
    failures: list[Failure | None] = field(default_factory=list)
    set_aside: int = 0

    def state_entered(self, state: State, failure: Failure | None) -> None:
        """See `Telling`."""
        self.states.append(state)
        self.failures.append(failure)

    def events_set_aside(self, *, outcomes: Sequence[str], count: int) -> None:
        """See `Telling`."""
        del outcomes
        self.set_aside = count


def test_advance__connects_and_says_when_to_come_again() -> None:
    """The first turn opens a connection, and asks for the next turn when sealing is due."""
    session = _session()
    connect, wake = session.advance(0.0)
    assert isinstance(connect, Connect)
    opening = StreamUsageRequest.FromString(connect.opening).open
    assert (opening.producer, opening.instance, opening.first_sequence) == ("p", b"i" * 16, 0)
    assert wake == Wake(time=0.5)


def test_advance__sends_what_was_taken() -> None:
    """A batch goes out under the number that the meter has named."""
    session = _streaming()
    session.take([_spooled(1)])
    assert _sent(session.advance(0.1)) == ["batch 1"]


def test_renew__comes_anew() -> None:
    """What the client shows has changed: a connection is given up, a long wait for one ends."""
    session = _streaming()
    session.renew(1.0)
    actions = session.advance(1.0)
    assert actions[0] == Cut()
    assert session.state is State.CONNECTING
    refused = Failure(fate=Fate.RETRY_SLOWLY, code="UNAUTHENTICATED", reason="", detail="")
    session = _streaming()
    session.ended(refused, 1.0)
    assert not any(isinstance(it, Connect) for it in session.advance(1.1))
    session.renew(1.1)
    assert any(isinstance(it, Connect) for it in session.advance(1.1))
    assert RENEWED.fate is Fate.RETRY


def test_ended__in_good_order_is_no_trouble() -> None:
    """The meter ends a stream after some minutes; only when the next one fails is it away."""
    told = Told()
    session = _streaming(told=told)
    session.ended(ENDED, 1.0)
    session.advance(1.0)
    session.advance(2.0)
    session.ended(BROKEN, 2.0)
    assert told.states[-3:] == [State.STREAMING, State.CONNECTING, State.WAITING]
    assert told.failures[-2:] == [ENDED, BROKEN]


def test_ended__waits_longer_each_time() -> None:
    """Attempts are spread by what is drawn, doubling; the time of the next is said."""
    session = _session()
    wakes = []
    now = 0.0
    for _ in range(2):
        assert isinstance(session.advance(now)[0], Connect)
        session.ended(ENDED, now)
        actions = session.advance(now)
        assert actions[0] == Cut()
        wake = actions[-1]
        assert isinstance(wake, Wake)
        wakes.append(round(wake.time - now, 3))
        now = wake.time
    assert wakes == [0.1, 0.2], "as much as may be, which is what is drawn here"


def test_hear__of_a_connection_that_was_given_up_counts_nothing() -> None:
    """What still comes after a cut opens nothing and acknowledges nothing."""
    session = _session()
    session.advance(0.0)
    session.ended(ENDED, 0.0)
    session.hear(OPENED, 0.01)
    assert not session.stream.is_open
    session.ended(ENDED, 0.02)
    assert session.state is State.WAITING


def test_advance__silence_cuts() -> None:
    """A connection on which nothing is heard is left at its time, not before."""
    session = _streaming()
    assert Cut() not in session.advance(29.9)
    assert session.advance(30.0)[0] == Cut()
    assert session.state is State.WAITING


def test_advance__heartbeat_says_how_far_numbers_were_given() -> None:
    """A sign of life carries the highest number that a batch has, sent or not."""
    session = _streaming(in_flight_max=1)
    session.take([_spooled(1), _spooled(1), _spooled(1)])
    assert _sent(session.advance(1.0)) == ["batch 1", "heartbeat 3"]
    assert _sent(session.advance(1.5)) == []
    assert _sent(session.advance(2.0)) == ["heartbeat 3"]


def test_advance__compares_without_heartbeats() -> None:
    """While a comparison is under way nothing else may be answered."""
    disk = Disk()
    session = _on_disk(disk)
    session.advance(0.0)
    session.hear(OPENED, 0.0)
    session.take([_spooled(1)])
    assert _sent(session.advance(0.1)) == ["batch 1"]
    again = _on_disk(disk)
    again.advance(0.0)
    again.hear(Opened(next_sequence=2, in_flight_max=4), 0.0)
    assert _sent(again.advance(5.0)) == ["batch 1"]
    again.hear(Acknowledged(sequence=1, durable_sequence=1), 5.1)
    assert again.state is State.STREAMING
    assert again.stream.settled_count == 1


def test_hear__forked_stops_and_says_so() -> None:
    """A spool whose numbers cannot be told from its copy's stops for good."""
    disk = Disk()
    session = _on_disk(disk)
    session.advance(0.0)
    session.hear(OPENED, 0.0)
    session.take([_spooled(1), _spooled(1)])
    session.advance(0.1)
    told = Told()
    again = _on_disk(disk, told=told)
    again.advance(0.0)
    again.hear(Opened(next_sequence=34, in_flight_max=4), 0.0)
    assert _sent(again.advance(0.0)) == ["batch 2"]
    again.hear(Acknowledged(sequence=2, durable_sequence=2, is_changed=True), 0.0)
    assert _sent(again.advance(0.0)) == ["batch 1"]
    again.hear(Opened(next_sequence=34, in_flight_max=4), 0.0)
    actions = list(again.advance(0.0))
    assert again.is_stopped
    assert again.state is State.TAKEN_OVER
    assert told.failures[-1] is FORKED
    assert actions == [Cut()], "and nothing wakes it again"


def test_hear__taken_over_stops() -> None:
    """What a newer instance has cannot be taken back: the end."""
    session = _streaming()
    session.ended(Failure(fate=Fate.STOP, code="X", reason="PRODUCER_TAKEN_OVER", detail=""), 0.0)
    assert session.is_stopped
    assert list(session.advance(9.0)) == [Cut()]


@pytest.mark.parametrize("is_spooled", [False, True])
def test_is_sealing_due__away_from_the_meter(is_spooled: bool) -> None:  # noqa: FBT001
    """To disk events go each interval, into memory only when they could leave."""
    session = _on_disk(Disk()) if is_spooled else _session()
    assert not session.is_sealing_due(0.4)
    assert session.is_sealing_due(0.5) is is_spooled


def test_advance__wish_for_the_meter_waits_for_durable() -> None:
    """A wish comes true when all that was sealed at its time is durable, and is told once."""
    session, answers = _streaming(), list[bool]()
    session.wish(Wish(answer=_into(answers)))
    assert session.is_sealing_due(0.0)
    session.take([_spooled(1)])
    session.sealed(0.0)
    session.advance(0.0)
    session.hear(Acknowledged(sequence=1, durable_sequence=0), 0.1)
    session.advance(0.1)
    assert answers == []
    session.hear(Acknowledged(sequence=1, durable_sequence=1), 0.2)
    session.advance(0.2)
    session.advance(0.3)
    assert answers == [True]


def test_advance__wish_for_the_disk_needs_no_meter() -> None:
    """What the spool has taken is safe, whether the meter is there or not."""
    session, answers = _on_disk(Disk()), list[bool]()
    session.wish(Wish(answer=_into(answers), is_for_disk=True))
    session.take([_spooled(1)])
    session.sealed(0.0)
    session.advance(0.0)
    assert answers == [True]


def test_stop__lets_everybody_go() -> None:
    """Nobody waits for a sender that has stopped."""
    session, answers = _session(), list[bool]()
    session.wish(Wish(answer=_into(answers)))
    session.stop()
    assert answers == [False]


def test_take__full_hold_drops_and_refuses() -> None:
    """What finds no room is counted as dropped, and no wish that includes it comes true."""
    options = SpoolOptions(bytes_max=2_048, segment_bytes_max=1_024)
    session, answers = _on_disk(Disk(), options=options), list[bool]()
    for _ in range(5):
        session.take([_spooled(7, size=600)])
    session.wish(Wish(answer=_into(answers), is_for_disk=True))
    session.take([_spooled(7, size=600)])
    session.advance(0.0)
    assert answers == [False]
    assert session.dropped_event_count % 7 == 0
    assert session.dropped_event_count >= 21


def test_session__recovered_reports_are_sent_once() -> None:
    """What a running report last said becomes a batch at the next start, and at no further one."""
    disk = Disk()
    _on_disk(disk).take([], progress={5: _payload(4), 6: _payload(5)})
    for restored in (2, 2):
        session = _on_disk(disk)
        assert session.restored_event_count == restored
    session.advance(0.0)
    session.hear(OPENED, 0.0)
    assert _sent(session.advance(0.0)) == ["batch 1", "batch 2"]


def _session(hold: Hold | None = None, *, told: Told | None = None) -> Session:
    return Session(
        hold or MemoryHold(),
        producer="p",
        instance=b"i" * 16,
        pace=PACE,
        backoff=Backoff(draw=max),
        telling=told or Told(),
        now=0.0,
        is_on_disk=hold.is_on_disk if isinstance(hold, FallbackHold) else None,
    )


def _on_disk(
    disk: Disk, *, told: Told | None = None, options: SpoolOptions | None = None
) -> Session:
    spool = Spool.open(disk, producer="p", options=options or SpoolOptions())
    return _session(FallbackHold(spool), told=told)


def _streaming(*, in_flight_max: int = 4, told: Told | None = None) -> Session:
    session = _session(told=told)
    session.advance(0.0)
    session.hear(Opened(next_sequence=1, in_flight_max=in_flight_max), 0.0)
    return session


def _spooled(event_count: int, *, size: int = 2) -> SpooledBatch:
    return SpooledBatch(batch=SealedBatch(payload=_payload(size), event_count=event_count))


def _payload(size: int) -> bytes:
    return UsageColumns(request_id=["x" * size]).SerializeToString()


def _sent(actions: Sequence[Action]) -> list[str]:
    messages = [StreamUsageRequest.FromString(a.message) for a in actions if isinstance(a, Send)]
    return [
        f"batch {message.batch.sequence}"
        if message.WhichOneof("message") == "batch"
        else f"heartbeat {message.heartbeat.last_sequence}"
        for message in messages
    ]


def _into(answers: list[bool]) -> Answer:
    def answer(*, reached: bool) -> None:
        answers.append(reached)

    return answer
