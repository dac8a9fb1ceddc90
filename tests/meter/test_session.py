"""What a stream answers: acks never claim too much, and a database that is older calls back."""

import pytest

from meter.domain.errors import InvalidArgument, MeterError, Reason, Refused, Unavailable
from meter.domain.limits import SEQUENCE_MAX, SEQUENCES_AHEAD_MAX
from meter.journal.commit import Result
from meter.journal.durability import Horizon, Sight
from meter.journal.protocol import ProducerState, Verdict
from meter.journal.session import Ack, Opened, Seen, StreamSession

OURS, NEWER = b"o" * 16, b"n" * 16


def opened_at(sequence: int, *, horizon: Horizon | None = None) -> StreamSession:
    """Return a session whose producer has so many batches on disk."""
    session = StreamSession(producer="p", instance=OURS, horizon=horizon)
    state = ProducerState(instance=OURS, sequence=sequence, digests=b"")
    assert session.opened(state) == Opened(next_sequence=sequence + 1)
    return session


def record(session: StreamSession, *sequences: int) -> None:
    """Let batches be recorded."""
    for sequence in sequences:
        answer = session.answer(sequence, Result(verdict=Verdict.RECORD))
        assert isinstance(answer, Ack)
        assert answer.sequence == sequence


def seen_at(sequence: int, *, instance: bytes = OURS, is_known: bool = True) -> Seen:
    """Return what the database has."""
    return Seen(instance=instance, sequence=sequence, is_known=is_known)


def hole(next_sequence: int) -> Result:
    """Return the result of a batch ahead of its turn."""
    return Result(verdict=Verdict.HOLE, next_sequence=next_sequence)


def reason_of(error: MeterError) -> tuple[type[MeterError], object]:
    """Return the kind of an error and its reason."""
    return type(error), error.reason


TAKEN_OVER = (Refused, Reason.PRODUCER_TAKEN_OVER)
OPEN_ANEW = (Unavailable, Reason.STORE_UNAVAILABLE)


def test_opened__newer_instance_on_disk() -> None:
    """A stream whose instance is not the newest never begins."""
    session = StreamSession(producer="p", instance=OURS)
    with pytest.raises(Refused) as failure:
        session.opened(ProducerState(instance=NEWER, sequence=3, digests=b""))
    assert reason_of(failure.value) == TAKEN_OVER


def test_answer__without_standbys_recorded_is_durable() -> None:
    """An ack's two numbers are the same where nobody waits for a standby."""
    session = opened_at(5)
    record(session, 6, 7)
    assert session.beat() == Ack(sequence=7, durable_sequence=7)
    # A repeat acknowledges itself, and what is durable by now.
    repeated = session.answer(6, Result(verdict=Verdict.REPEATED))
    assert repeated == Ack(sequence=6, durable_sequence=7, set_aside=[])


def test_ack__one_that_says_what_two_do() -> None:
    """The higher number and the later knowledge of what is durable, in whatever order they come."""
    older, newer = Ack(sequence=7, durable_sequence=2), Ack(sequence=9, durable_sequence=4)
    assert older.followed_by(newer) == newer
    repeated = Ack(sequence=3, durable_sequence=5)
    assert older.followed_by(repeated) == Ack(sequence=7, durable_sequence=5)


def test_answer__hole_is_told_once() -> None:
    """What was on its way behind a hole is answered by one call to go back."""
    session = opened_at(5)
    assert session.answer(8, hole(6)) == Opened(next_sequence=6)
    assert session.answer(9, hole(6)) is None
    record(session, 6)
    assert session.answer(9, hole(7)) == Opened(next_sequence=7)
    assert session.rollback_count == 0


def test_answer__hole_below_what_was_acknowledged() -> None:
    """A stream that goes on after a rollback is called back, and no ack claims more any longer."""
    session = opened_at(5)
    record(session, 6, 7, 8)
    assert session.answer(9, hole(7)) == Opened(next_sequence=7)
    assert session.rollback_count == 1
    assert session.beat() == Ack(sequence=6, durable_sequence=6)
    record(session, 7)
    assert session.beat() == Ack(sequence=7, durable_sequence=7)


def test_seen__older_than_acknowledged_calls_an_idle_stream_back() -> None:
    """Nothing was sent, yet the producer hears where to begin anew; once for each rollback."""
    session = opened_at(5)
    record(session, 6, 7)
    assert session.seen(session.mark(), seen_at(7)) is None
    assert session.seen(session.mark(), seen_at(4)) == Opened(next_sequence=5)
    assert session.beat() == Ack(sequence=4, durable_sequence=4)
    assert session.seen(session.mark(), seen_at(4)) is None
    assert session.rollback_count == 1
    # What is on its way still is answered by that call already.
    assert session.answer(8, hole(5)) is None


def test_seen__is_compared_with_what_was_acknowledged_before_the_look() -> None:
    """What was recorded after the look is no rollback, nor is a look that a rollback followed."""
    session = opened_at(5)
    mark = session.mark()
    record(session, 6, 7)
    assert session.seen(mark, seen_at(5)) is None
    late = session.mark()
    session.seen(session.mark(), seen_at(5))
    record(session, 6, 7, 8)
    assert session.seen(late, seen_at(5)) is None
    assert session.beat().sequence == 8


@pytest.mark.parametrize(
    ("found", "ending", "rollback_count"),
    [
        (seen_at(9, instance=NEWER), TAKEN_OVER, 0),
        # Restored to before this instance came: whoever is there, nobody took over.
        (seen_at(2, instance=NEWER, is_known=False), OPEN_ANEW, 1),
        (None, OPEN_ANEW, 1),
    ],
)
def test_seen__ends_a_silent_stream(
    found: Seen | None, ending: tuple[object, object], rollback_count: int
) -> None:
    """A newer instance fences, a database that has forgotten the stream has it open anew."""
    session = opened_at(5)
    with pytest.raises(MeterError) as failure:
        session.seen(session.mark(), found)
    assert reason_of(failure.value) == ending
    assert session.rollback_count == rollback_count


@pytest.mark.parametrize(
    "number", [-1, -(2**63), 5 + SEQUENCES_AHEAD_MAX + 1, SEQUENCE_MAX + 1, 2**63 - 1]
)
def test_heard__absurd_number(number: int) -> None:
    """A number that no producer can have reached is refused, and believed by nobody."""
    session = opened_at(5)
    with pytest.raises(InvalidArgument) as failure:
        session.heard(number)
    assert failure.value.metadata["field"] == "heartbeat.last_sequence"
    assert session.announced_sequence == 5


def test_heard__lower_number_changes_nothing() -> None:
    """What was announced once stays announced."""
    session = opened_at(5)
    for number in (9, 7, 0):
        session.heard(number)
    assert session.announced_sequence == 9
    session.heard(5 + SEQUENCES_AHEAD_MAX)
    assert session.announced_sequence == 5 + SEQUENCES_AHEAD_MAX


def sight(position: int, *, line: str = "1", **flushed: int | None) -> Sight:
    """Return what a round sees."""
    return Sight(line=line, position=position, flushed=flushed)


def test_durable__follows_the_slowest_standby() -> None:
    """A batch is durable once a round that began after it is flushed by all standbys."""
    horizon = Horizon(["a", "b"])
    horizon.take(horizon.begin(), sight(100, a=100, b=100))
    session = opened_at(5, horizon=horizon)
    assert session.beat() == Ack(sequence=5, durable_sequence=0)
    record(session, 6)
    horizon.take(horizon.begin(), sight(200, a=200, b=150))
    record(session, 7)
    assert session.beat() == Ack(sequence=7, durable_sequence=0)
    horizon.take(horizon.begin(), sight(300, a=300, b=250))
    # b has the end that the second round saw, not the third's: 7 may lie behind it.
    assert session.beat() == Ack(sequence=7, durable_sequence=6)
    horizon.take(horizon.begin(), sight(300, a=300, b=300))
    assert session.beat() == Ack(sequence=7, durable_sequence=7)


def test_durable__batch_recorded_while_a_round_looks() -> None:
    """What is recorded after a round has begun is not durable by it, whatever it sees."""
    horizon = Horizon(["a"])
    horizon.take(horizon.begin(), sight(100, a=100))
    session = opened_at(0, horizon=horizon)
    number = horizon.begin()
    record(session, 1)
    horizon.take(number, sight(200, a=200))
    assert session.beat().durable_sequence == 0
    horizon.take(horizon.begin(), sight(200, a=200))
    assert session.beat().durable_sequence == 1


@pytest.mark.parametrize(
    "after", [sight(900, line="2", a=900), sight(150, a=150)], ids=["timeline", "backwards"]
)
def test_durable__another_database_makes_nothing_durable(after: Sight) -> None:
    """After a failover or a restore the stream ends; no later round vouches for what it sent."""
    horizon = Horizon(["a"])
    horizon.take(horizon.begin(), sight(200, a=200))
    session = opened_at(0, horizon=horizon)
    record(session, 1)
    assert horizon.take(horizon.begin(), after)
    assert session.durable_sequence == 0
    with pytest.raises(Unavailable):
        session.beat()
    with pytest.raises(Unavailable):
        session.answer(2, Result(verdict=Verdict.RECORD))
    with pytest.raises(Unavailable):
        session.seen(session.mark(), seen_at(1))
    anew = opened_at(1, horizon=horizon)
    horizon.take(horizon.begin(), after)
    assert anew.durable_sequence == 1
    assert session.durable_sequence == 0


def test_durable__goes_back_with_a_rollback() -> None:
    """What the database has lost is not durable any more, and is again only by a new round."""
    horizon = Horizon(["a"])
    horizon.take(horizon.begin(), sight(100, a=100))
    session = opened_at(5, horizon=horizon)
    record(session, 6, 7)
    horizon.take(horizon.begin(), sight(200, a=200))
    assert session.durable_sequence == 7
    session.seen(session.mark(), seen_at(4))
    assert session.beat() == Ack(sequence=4, durable_sequence=4)
    record(session, 5)
    assert session.durable_sequence == 4
    horizon.take(horizon.begin(), sight(300, a=300))
    assert session.durable_sequence == 5
