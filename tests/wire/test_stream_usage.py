"""Numbered batches over a real server: recorded once, whatever is repeated, lost or changed."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from tests.wire.apart import Apart
from tests.wire.producing import beat, find
from tests.wire.session import (
    CALL_SECONDS_MAX,
    columns,
    opening,
    reason_of,
    rows,
    to_columns,
)
from tests.wire.talk import commits_held, record_later, talking, wait_until, waiting_count
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

INPUT = usage_pb2.TOKEN_CLASS_INPUT


@pytest.fixture
def session(apart: Apart) -> Apart:
    """A session with one account."""
    return apart


def test_stream__rows_and_columns_count_once_each(session: Apart) -> None:
    """A batch of rows and one of columns are both acknowledged and both counted."""
    answers = session.exchange(
        session.opening(),
        rows(1, session.event(), session.event()),
        columns(2, to_columns([session.event(), session.event()])),
    )
    assert [answer.WhichOneof("message") for answer in answers] == ["opened", "ack", "ack"]
    assert answers[0].opened.next_sequence == 1
    assert [answer.ack.durable_sequence for answer in answers[1:]] == [1, 2]
    assert session.counted() == {("acme", "high", INPUT): 12}


def test_stream__repeated_batch_is_success_and_counts_once(session: Apart) -> None:
    """The same number with the same bytes is acknowledged again and adds nothing."""
    batch = rows(1, session.event())
    session.exchange(session.opening(), batch)
    answers = session.exchange(session.opening(), batch)
    assert answers[0].opened.next_sequence == 2
    assert answers[1].ack.sequence == 1
    assert answers[1].ack.set_aside_count == 0
    assert session.counted() == {("acme", "high", INPUT): 3}


def test_stream__changed_batch_is_quarantined_whole(session: Apart) -> None:
    """The same number with other bytes is BATCH_CHANGED, kept, and adds nothing."""
    session.exchange(session.opening(), rows(1, session.event()))
    answers = session.exchange(session.opening(), rows(1, session.event(tokens={INPUT: 9})))
    aside = answers[1].ack.set_aside[0]
    assert (aside.index, aside.outcome) == (-1, outcome_pb2.OUTCOME_BATCH_CHANGED)
    assert session.counted() == {("acme", "high", INPUT): 3}


def test_stream__batches_of_one_commit_have_one_ack(session: Apart) -> None:
    """What is recorded together is acknowledged at once, but for a batch that is set aside."""
    with talking(session) as talk:
        talk.say(session.opening("together"))
        assert talk.hear().opened.next_sequence == 1
        with commits_held(session.meter.database_url):
            # Another group, which is held: what comes behind it waits, and is recorded together.
            call = record_later(session, session.event())
            wait_until(lambda: waiting_count(session.meter.database_url))
            wrong = session.event()
            wrong.dimensions.tier = "none such"
            talk.say(*[rows(number, session.event()) for number in (1, 2, 3)], rows(4, wrong))
            talk.say(rows(5, session.event()), rows(6, session.event()), beat(6))
            producer = session.own("together")
            wait_until(lambda: find(session, producer).announced_sequence == 6)
        acks = [talk.hear().ack for _ in range(3)]
        assert len(call.result().outcomes) == 1
    assert [(ack.sequence, ack.set_aside_count) for ack in acks] == [(3, 0), (4, 1), (6, 0)]
    assert find(session, producer).recorded_sequence == 6


def test_stream__hole_sends_back_and_records_nothing_behind_it(session: Apart) -> None:
    """A number ahead of its turn is answered with the expected one; nothing behind it counts."""
    answers = session.exchange(
        session.opening(),
        rows(1, session.event()),
        rows(3, session.event()),
        rows(4, session.event()),
    )
    assert [answer.WhichOneof("message") for answer in answers] == ["opened", "ack", "opened"]
    assert answers[2].opened.next_sequence == 2
    assert session.counted() == {("acme", "high", INPUT): 3}


def test_stream__lost_numbers_are_a_gap(session: Apart) -> None:
    """A producer that no longer holds what is expected goes on, and the gap is seen."""
    session.exchange(session.opening(), rows(1, session.event()))
    answers = session.exchange(session.opening(first_sequence=5), rows(5, session.event()))
    assert answers[0].opened.next_sequence == 5
    assert answers[1].ack.durable_sequence == 5
    assert session.counted() == {("acme", "high", INPUT): 6}


def test_stream__older_instance_is_fenced(session: Apart) -> None:
    """After a newer instance has opened, the older one records nothing and is told to stop."""
    session.exchange(session.opening(instance=b"a" * 16), rows(1, session.event()))
    session.exchange(session.opening(instance=b"b" * 16), rows(2, session.event()))
    with pytest.raises(grpc.RpcError) as failure:
        session.exchange(session.opening(instance=b"a" * 16), rows(3, session.event()))
    code, reason, _ = reason_of(failure.value)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PRODUCER_TAKEN_OVER")
    assert session.counted() == {("acme", "high", INPUT): 6}


def test_stream__fenced_in_mid_stream(session: Apart) -> None:
    """A stream that is open when a newer instance comes records nothing more."""
    opened = threading.Event()

    def messages() -> Iterator[meter_service_pb2.StreamUsageRequest]:
        yield session.opening(instance=b"a" * 16)
        assert opened.wait(CALL_SECONDS_MAX)
        session.exchange(session.opening(instance=b"b" * 16), rows(1, session.event()))
        yield rows(2, session.event())

    answers = session.stream(messages())
    next(answers)
    opened.set()
    with pytest.raises(grpc.RpcError) as failure:
        list(answers)
    assert reason_of(failure.value)[1] == "PRODUCER_TAKEN_OVER"
    assert session.counted() == {("acme", "high", INPUT): 3}


def test_stream__heartbeat_is_answered_with_the_last_number(session: Apart) -> None:
    """A heartbeat is acknowledged with what is durable."""
    beat = meter_service_pb2.StreamUsageRequest(heartbeat=meter_service_pb2.Heartbeat())
    answers = session.exchange(session.opening(), rows(1, session.event()), beat)
    assert (answers[2].ack.sequence, answers[2].ack.durable_sequence) == (1, 1)


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        ([rows(1)], "FAILED_PRECONDITION", "STREAM_NOT_OPENED"),
        ([opening(), opening()], "FAILED_PRECONDITION", "STREAM_NOT_OPENED"),
        ([opening(producer="bad name")], "INVALID_ARGUMENT", "ARGUMENT_INVALID"),
        ([opening(producer="")], "INVALID_ARGUMENT", "ARGUMENT_INVALID"),
        ([opening(instance=b"short")], "INVALID_ARGUMENT", "ARGUMENT_INVALID"),
        ([opening(first_sequence=-1)], "INVALID_ARGUMENT", "ARGUMENT_INVALID"),
        ([opening(), rows(0)], "INVALID_ARGUMENT", "ARGUMENT_INVALID"),
        ([meter_service_pb2.StreamUsageRequest()], "FAILED_PRECONDITION", "STREAM_NOT_OPENED"),
    ],
)
def test_stream__wrong_messages_name_their_reason(
    session: Apart, messages: list[meter_service_pb2.StreamUsageRequest], code: str, reason: str
) -> None:
    """What breaks the protocol ends the stream with its code and reason."""
    with pytest.raises(grpc.RpcError) as failure:
        session.exchange(*messages)
    found, found_reason, _ = reason_of(failure.value)
    assert (found.name, found_reason) == (code, reason)
