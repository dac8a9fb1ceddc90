"""What heartbeats announce, and what becomes of it."""

import pytest

from meter.domain.limits import BATCHES_IN_FLIGHT_MAX, SEQUENCES_AHEAD_MAX
from tests.wire.apart import Apart
from tests.wire.producing import beat, find
from tests.wire.session import rows
from tests.wire.talk import (
    commits_held,
    failure_of,
    record_later,
    talking,
    wait_until,
    waiting_count,
)

OLDER, NEWER = b"o" * 16, b"n" * 16
INVALID = ("INVALID_ARGUMENT", "ARGUMENT_INVALID", False)


def test_announced__lost_with_its_spool(apart: Apart) -> None:
    """A newer instance that holds nothing leaves a gap of what was announced and never came."""
    apart.exchange(apart.opening("spool", instance=OLDER), rows(1, apart.event()), beat(4))
    answers = apart.exchange(apart.opening("spool", instance=NEWER), rows(5, apart.event()))
    assert answers[0].opened.next_sequence == 5
    assert answers[1].ack.durable_sequence == 5
    found = find(apart, apart.own("spool"))
    assert found.missing_batch_count == 3
    assert [(gap.first_sequence, gap.last_sequence) for gap in found.gaps] == [(2, 4)]


def test_heartbeat__is_heard_behind_batches_in_flight(apart: Apart) -> None:
    """While commits stall behind 16 batches, what is announced is written all the same."""
    url = apart.meter.database_url
    with talking(apart) as talk:
        talk.say(apart.opening("stalled"))
        assert talk.hear().opened.next_sequence == 1
        with commits_held(url):
            # A group of its own, so that no commit holds the producer yet.
            call = record_later(apart, apart.event())
            wait_until(lambda: waiting_count(url))
            talk.say(
                *[rows(number, apart.event()) for number in range(1, BATCHES_IN_FLIGHT_MAX + 1)]
            )
            talk.say(*map(beat, range(17, 81)))
            wait_until(lambda: find(apart, apart.own("stalled")).announced_sequence == 80)
            assert find(apart, apart.own("stalled")).recorded_sequence == 0
            # One batch more than may be in flight is not taken, nor read what is behind it.
            talk.say(rows(BATCHES_IN_FLIGHT_MAX + 1, apart.event()), beat(90))
            with talking(apart) as other:
                other.say(apart.opening("beside"))
                assert other.hear().opened.next_sequence == 1
                other.say(beat(5))
                wait_until(lambda: find(apart, apart.own("beside")).announced_sequence == 5)
            assert find(apart, apart.own("stalled")).announced_sequence == 80
        assert talk.hear_of(BATCHES_IN_FLIGHT_MAX).sequence == BATCHES_IN_FLIGHT_MAX
        assert len(call.result().outcomes) == 1
        wait_until(lambda: find(apart, apart.own("stalled")).announced_sequence == 90)
        recorded = BATCHES_IN_FLIGHT_MAX + 1
        wait_until(lambda: find(apart, apart.own("stalled")).recorded_sequence == recorded)


@pytest.mark.parametrize("number", [-1, SEQUENCES_AHEAD_MAX + 2, 2**53, 2**63 - 1, -(2**63)])
def test_heartbeat__absurd_number_is_refused(apart: Apart, number: int) -> None:
    """What no producer can have reached ends the stream, and leaves no trace."""
    name = f"absurd{number}"
    assert failure_of(lambda: apart.exchange(apart.opening(name), beat(number))) == INVALID
    answers = apart.exchange(apart.opening(name, instance=NEWER))
    assert answers[0].opened.next_sequence == 1


def test_heartbeat__lower_number_is_answered(apart: Apart) -> None:
    """A heartbeat that announces less than before is a sign of life like any other."""
    answers = apart.exchange(apart.opening("lower"), rows(1, apart.event()), beat(1), beat(0))
    assert [answer.ack.sequence for answer in answers[1:]] == [1, 1, 1]
