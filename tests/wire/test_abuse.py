"""What a wrong or hostile reporter sends: it harms nobody else, and nothing is claimed falsely."""

import time
from typing import Any

import grpc
import psycopg
import pytest

from tests.running_meter import RunningMeter
from tests.wire.apart import Apart
from tests.wire.session import (
    CALL_SECONDS_MAX,
    Session,
    columns,
    event,
    opening,
    reason_of,
    rows,
    to_columns,
)
from tokenworks.meter.v1 import (
    account_service_pb2,
    meter_service_pb2,
    outcome_pb2,
    usage_pb2,
)

INPUT = usage_pb2.TOKEN_CLASS_INPUT


@pytest.fixture
def session(apart: Apart) -> Apart:
    """A session with one account."""
    return apart


@pytest.fixture
def whole(running_meter: RunningMeter) -> Session:
    """A session on a meter of its own, with one account."""
    session = Session(running_meter)
    session.create_account("acme")
    return session


def test_stream__number_inside_a_gap_is_not_acknowledged(session: Apart) -> None:
    """What was passed over and comes later cannot be compared: it is sent on, never acked."""
    session.exchange(session.opening(), rows(1, session.event()))
    session.exchange(session.opening(first_sequence=10), rows(10, session.event()))
    answers = session.exchange(
        session.opening(), rows(5, session.event()), rows(11, session.event())
    )
    assert [answer.WhichOneof("message") for answer in answers] == ["opened", "opened", "ack"]
    assert answers[1].opened.next_sequence == 11
    assert session.counted() == {("acme", "high", INPUT): 9}


def test_stream__key_that_may_not_report_opens_nothing(session: Apart) -> None:
    """A key that only reads can neither fence a producer nor fill the quarantine."""
    scope = account_service_pb2.Scope(
        role=account_service_pb2.ROLE_READER, account=session.own("acme")
    )
    request = account_service_pb2.CreateApiKeyRequest(account=scope.account, scopes=[scope])
    reader = session.with_key(session.call("CreateApiKey", request).secret)
    with pytest.raises(grpc.RpcError) as failure:
        reader.exchange(session.opening(first_sequence=10**12))
    assert reason_of(failure.value)[:2] == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    with pytest.raises(grpc.RpcError) as failure:
        reader.record(session.event("nobody"))
    assert reason_of(failure.value)[1] == "SCOPE_MISSING"


def test_stream__changed_batch_is_kept_once(session: Apart) -> None:
    """However often the changed bytes come, there is one entry, so a release counts them once."""
    session.exchange(session.opening(), rows(1, session.event()))
    changed = rows(1, session.event(tokens={INPUT: 50}))
    entries = {
        session.exchange(session.opening(), changed)[1].ack.set_aside[0].quarantine_id
        for _ in range(3)
    }
    assert len(entries) == 1
    request = meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=entries.pop())
    session.call("ReleaseQuarantine", request)
    assert session.counted() == {("acme", "high", INPUT): 53}


def test_release__event_of_a_released_batch_stays_releasable(session: Apart) -> None:
    """An event without an id that a released batch set aside again is released like any other."""
    session.exchange(session.opening(), rows(1, session.event()))
    batch = rows(1, session.event("later", event_id=""))
    first = session.exchange(session.opening(), batch)[1].ack.set_aside[0].quarantine_id
    release = meter_service_pb2.ReleaseQuarantineRequest
    session.call("ReleaseQuarantine", release(quarantine_id=first))
    session.create_account("later")
    held = session.quarantine(state=meter_service_pb2.QUARANTINE_STATE_HELD)
    assert [(entry.producer, entry.outcome) for entry in held] == [
        (session.own("p1"), outcome_pb2.OUTCOME_ACCOUNT_UNKNOWN)
    ]
    session.call("ReleaseQuarantine", release(quarantine_id=held[0].quarantine_id))
    assert session.counted() == {("acme", "high", INPUT): 3, ("later", "high", INPUT): 3}


def test_stream__odd_event_id_does_not_block(session: Apart) -> None:
    """An id that looks like hex with gaps is an id like any other."""
    odd = session.event(event_id="de ad be ef de ad be ef de ad be")
    answers = session.exchange(session.opening(), rows(1, odd), rows(2, session.event()))
    assert [answer.ack.set_aside_count for answer in answers[1:]] == [0, 0]
    assert session.record(odd) == [outcome_pb2.OUTCOME_RECORDED]


def test_stream__huge_string_is_not_multiplied(whole: Session) -> None:
    """One long name that many events share is cut before it is kept with each of them."""
    events = [event(model="m" * 500_000, event_id="") for _ in range(2)]
    form = to_columns(events)
    form = usage_pb2.UsageColumns(
        base_time=form.base_time,
        dimensions=form.dimensions,
        dimensions_index=[0] * 2_000,
        end_offset_ms=[0] * 2_000,
        tokens=form.tokens,
    )
    del form.tokens[0].counts[:]
    form.tokens[0].counts.extend([1] * 2_000)
    ack = whole.exchange(opening(), columns(1, form))[1].ack
    assert ack.set_aside_count == 2_000
    with psycopg.connect(whole.meter.database_url) as connection:
        kept = connection.execute("SELECT sum(octet_length(payload)) FROM quarantine").fetchone()
    assert kept is not None
    assert kept[0] < 2_000 * 1_000


def test_stream__unreadable_dimensions_are_kept_whole(session: Apart) -> None:
    """Columns whose dimensions are no text go to quarantine under their number."""
    broken = (
        columns(1, to_columns([session.event()]))
        .SerializeToString()
        .replace(b"high", b"hi\xff\xfe")
    )
    call = session.channel.stream_stream(
        "/tokenworks.meter.v1.MeterService/StreamUsage",
        request_serializer=bytes,
        response_deserializer=meter_service_pb2.StreamUsageResponse.FromString,
    )
    messages = [
        session.opening().SerializeToString(),
        broken,
        rows(2, session.event()).SerializeToString(),
    ]
    answers = list(call(iter(messages), metadata=session.metadata, timeout=CALL_SECONDS_MAX))
    assert answers[1].ack.set_aside[0].outcome == outcome_pb2.OUTCOME_BATCH_MALFORMED
    assert session.counted() == {("acme", "high", INPUT): 3}


@pytest.mark.parametrize(
    ("name", "request_message"),
    [
        ("QueryUsage", meter_service_pb2.QueryUsageRequest(model="a\0b")),
        ("QueryUsage", meter_service_pb2.QueryUsageRequest(tier="t" * 33)),
        ("ListQuarantine", meter_service_pb2.ListQuarantineRequest(page_token="9" * 100)),
        ("RejectQuarantine", meter_service_pb2.RejectQuarantineRequest(reason="a\0b")),
    ],
)
def test_call__odd_text_is_refused(session: Apart, name: str, request_message: Any) -> None:  # noqa: ANN401
    """What the database could not take is a wrong argument, not a fault of the server."""
    with pytest.raises(grpc.RpcError) as failure:
        session.call(name, request_message)
    assert reason_of(failure.value)[1] == "ARGUMENT_INVALID"


def test_stream__too_many_token_classes(session: Apart) -> None:
    """A batch with more classes than there can be is kept whole, and a call is refused."""
    many = session.event(tokens=dict.fromkeys(range(1000, 1100), 1))
    ack = session.exchange(session.opening(), rows(1, many))[1].ack
    assert ack.set_aside[0].outcome == outcome_pb2.OUTCOME_BATCH_TOO_LARGE
    ack = session.exchange(session.opening(), columns(2, to_columns([many])))[1].ack
    assert ack.set_aside[0].outcome == outcome_pb2.OUTCOME_BATCH_TOO_LARGE
    with pytest.raises(grpc.RpcError) as failure:
        session.record(many)
    assert reason_of(failure.value)[1] == "ARGUMENT_INVALID"


def test_stream__lost_dimensions_stop_counting_loudly(whole: Session) -> None:
    """Events whose dimensions are gone from the database are not passed over: counting waits."""
    with psycopg.connect(whole.meter.database_url, autocommit=True) as connection:
        connection.execute("BEGIN; LOCK TABLE counting IN EXCLUSIVE MODE")
        whole.exchange(opening(), rows(1, event()))
        connection.execute("UPDATE dimensions SET dimension_id = DEFAULT")
        connection.execute("COMMIT")
        deadline = time.monotonic() + CALL_SECONDS_MAX
        while "which does not exist" not in whole.meter.log.read_text("utf-8"):
            assert time.monotonic() < deadline
        assert connection.execute("SELECT position FROM counting").fetchone() == (0,)
