"""Requests that several report, over the wire: counted once, whoever comes first."""

import uuid
from pathlib import Path

import pytest

from tests.wire.apart import Apart
from tests.wire.session import rows
from tokenworks.client import Meter
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

INPUT = usage_pb2.TOKEN_CLASS_INPUT
RECORDED = outcome_pb2.OUTCOME_RECORDED
DUPLICATE = outcome_pb2.OUTCOME_DUPLICATE
OBSERVED = outcome_pb2.OUTCOME_OBSERVED
CONFLICT = outcome_pb2.OUTCOME_CONFLICT
TIER_UNKNOWN = outcome_pb2.OUTCOME_TIER_UNKNOWN
HELD = meter_service_pb2.QUARANTINE_STATE_HELD


@pytest.fixture
def session(apart: Apart) -> Apart:
    """A session with one account."""
    return apart


def report(
    session: Apart, *events: usage_pb2.UsageEvent, source: int = usage_pb2.SOURCE_ASGI
) -> list[int]:
    """Report events of a source by a call, and return their outcomes."""
    request = meter_service_pb2.RecordUsageRequest(events=events)
    request.source = source  # type: ignore[assignment]
    return list(session.call("RecordUsage", request).outcomes)


def test_record_usage__request_of_two_sources_is_counted_once(session: Apart) -> None:
    """The second report of a request is success and counts nothing; sent again both are known."""
    request_id = str(uuid.uuid4())
    first = session.event(event_id=str(uuid.uuid4()), request_id=request_id)
    second = session.event(event_id=str(uuid.uuid4()), request_id=request_id)
    assert report(session, first) == [RECORDED]
    assert report(session, second, source=usage_pb2.SOURCE_SPAN) == [OBSERVED]
    assert report(session, first) == [DUPLICATE]
    assert report(session, second, source=usage_pb2.SOURCE_SPAN) == [DUPLICATE]
    assert session.counted() == {("acme", "high", INPUT): 3}


def batch(
    sequence: int, *events: usage_pb2.UsageEvent, source: int = usage_pb2.SOURCE_PROXY
) -> meter_service_pb2.StreamUsageRequest:
    """Return a batch of a source."""
    message = rows(sequence, *events)
    message.batch.rows.source = source  # type: ignore[assignment]
    return message


def test_stream__counts_a_request_that_nobody_has_reported(session: Apart) -> None:
    """Of a stream's events those that a call has reported are left out, and the others counted."""
    known, new = str(uuid.uuid4()), str(uuid.uuid4())
    tokens = {INPUT: 5}
    assert report(session, session.event(request_id=known)) == [RECORDED]
    events = [
        session.event(event_id="", request_id=known, tokens=tokens),
        session.event(event_id="", request_id=new, tokens=tokens),
        session.event(event_id="", tokens=tokens),
    ]
    answers = session.exchange(session.opening(), batch(1, *events))
    assert answers[-1].ack.sequence == 1
    assert not answers[-1].ack.set_aside_count
    assert session.counted() == {("acme", "high", INPUT): 3 + 5 + 5}
    assert report(session, session.event(request_id=new)) == [OBSERVED]


def test_correct__of_a_batch_with_events_left_out(session: Apart) -> None:
    """An event is found by its place as it was sent, behind one that was not counted."""
    known = str(uuid.uuid4())
    report(session, session.event(request_id=known))
    left_out = session.event(event_id="", request_id=known)
    sent = [left_out, *(session.event(event_id="", tokens={INPUT: n}) for n in (10, 100))]
    session.exchange(session.opening(), batch(1, *sent))
    place = meter_service_pb2.EventPlace(producer=session.own("p1"), sequence=1, index=2)
    request = meter_service_pb2.CorrectUsageRequest(place=place, reason="twice")
    correction = session.call("CorrectUsage", request).correction
    assert correction.before.tokens[0].count == 100
    assert correction.place == place
    assert session.counted() == {("acme", "high", INPUT): 13}


def test_client__source_is_kept_in_its_spool(session: Apart, tmp_path: Path) -> None:
    """What a client with a source took down before it died is counted once by request, too."""
    known, new = str(uuid.uuid4()), str(uuid.uuid4())
    report(session, session.event(request_id=known))
    for _ in range(2):
        client = Meter(
            "127.0.0.1:1",
            api_key=session.meter.api_key,
            producer=session.own("p"),
            account=session.own("acme"),
            model="m",
            tier="high",
            spool=tmp_path,
            source="proxy",
        )
        for request_id in (known, new):
            client.record(input=7, request_id=request_id)
        assert client.sync()
        client.close(timeout_seconds=0)
    with Meter(
        session.meter.target,
        api_key=session.meter.api_key,
        producer=session.own("p"),
        spool=tmp_path,
    ) as client:
        assert client.flush()
    assert session.counted() == {("acme", "high", INPUT): 3 + 7}
