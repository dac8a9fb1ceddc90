"""Requests that several report, over the wire: counted once, whoever comes first."""

import json
import uuid
from pathlib import Path

import grpc
import pytest

from meter.sources.rereading import find_reread
from tests.wire.apart import Apart
from tests.wire.session import columns, reason_of, rows, to_columns
from tokenworks.client import Meter
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

INPUT = usage_pb2.TOKEN_CLASS_INPUT
RECORDED = outcome_pb2.OUTCOME_RECORDED
DUPLICATE = outcome_pb2.OUTCOME_DUPLICATE
REUSED = outcome_pb2.OUTCOME_REQUEST_ID_REUSED
OBSERVED = outcome_pb2.OUTCOME_OBSERVED
HELD = meter_service_pb2.QUARANTINE_STATE_HELD


@pytest.fixture
def session(apart: Apart) -> Apart:
    """A session with one account."""
    return apart


def report(
    session: Apart, *events: usage_pb2.UsageEvent, source: int = usage_pb2.SOURCE_PROXY
) -> list[int]:
    """Report events of a source, the best unless said otherwise, and return their outcomes."""
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
    sequence: int, *events: usage_pb2.UsageEvent, source: int = usage_pb2.SOURCE_ASGI
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
            source="asgi",
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


def test_client__usage_object_is_kept(session: Apart, tmp_path: Path) -> None:
    """What a provider said comes through a client's spool, its counts alone, and is read again."""
    known, new = str(uuid.uuid4()), str(uuid.uuid4())
    report(session, session.event(request_id=known))
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    with Meter(
        session.meter.target,
        api_key=session.meter.api_key,
        producer=session.own("p"),
        account=session.own("acme"),
        model="m",
        tier="high",
        spool=tmp_path,
        source="asgi",
    ) as client:
        for request_id in (known, new, ""):
            said = {**usage, "prompt": "a secret"}
            assert client.record_usage(said, profile="openai", request_id=request_id)
        assert client.flush()
    for request_id, is_counted in ((known, False), (new, True)):
        request = meter_service_pb2.ListObservationsRequest(request_id=request_id)
        shown = session.call("ListObservations", request).observations[-1]
        assert (shown.is_counted, shown.profile) == (is_counted, "events/1")
        original = json.loads(shown.raw)
        assert original == {"convention": "openai", **usage}
        assert find_reread(shown.profile, original) == {1: 6, 2: 4, 7: 5}


def test_stream__usage_that_cannot_be_read(session: Apart) -> None:
    """Events are counted whatever stands where their usage objects should, which is not kept."""
    request_id = str(uuid.uuid4())
    message = columns(1, to_columns([session.event(event_id="", request_id=request_id)]))
    message.batch.columns.source = usage_pb2.SOURCE_ASGI
    message.batch.columns.usage = b"a secret"
    answers = session.exchange(session.opening(), message)
    assert not answers[-1].ack.set_aside_count
    assert session.counted() == {("acme", "high", INPUT): 3}
    request = meter_service_pb2.ListObservationsRequest(request_id=request_id)
    assert session.call("ListObservations", request).observations[-1].raw == ""


def test_release__is_a_report_of_its_source(session: Apart) -> None:
    """What was set aside, by a call and by a stream, is released as the report that it was."""
    request_id = str(uuid.uuid4())
    called = session.event("late", request_id=request_id, tokens={INPUT: 7})
    streamed = session.event("late", event_id="", request_id=request_id, tokens={INPUT: 9})
    assert report(session, called) == [outcome_pb2.OUTCOME_ACCOUNT_UNKNOWN]
    session.exchange(session.opening(), batch(1, session.event(event_id=""), streamed))
    session.create_account("late")
    for entry in session.quarantine(state=HELD):
        request = meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=entry.quarantine_id)
        session.call("ReleaseQuarantine", request)
    assert report(session, called) == [DUPLICATE]
    assert session.counted() == {("acme", "high", INPUT): 3, ("late", "high", INPUT): 7}


def test_record_usage__request_id_sent_again_is_no_request_for_nothing(session: Apart) -> None:
    """Another request under an id is set aside, once; released, it is a request of its own."""
    request_id = str(uuid.uuid4())
    first, again = (
        session.event(event_id=str(uuid.uuid4()), request_id=request_id, tokens={INPUT: count})
        for count in (3, 7)
    )
    span = session.event(event_id=str(uuid.uuid4()), request_id=request_id, tokens={INPUT: 7})
    assert report(session, first, again) == [RECORDED, REUSED]
    assert report(session, again, first) == [DUPLICATE, DUPLICATE]
    assert report(session, span, source=usage_pb2.SOURCE_SPAN) == [OBSERVED]
    assert session.counted() == {("acme", "high", INPUT): 3}
    (entry,) = session.quarantine()
    assert (entry.outcome, entry.source) == (REUSED, usage_pb2.SOURCE_PROXY)
    assert entry.event.event_id == again.event_id
    assert entry.event.request_id.startswith(f"{request_id}~")
    request = meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=entry.quarantine_id)
    session.call("ReleaseQuarantine", request)
    assert session.counted() == {("acme", "high", INPUT): 10}
    assert report(session, again) == [DUPLICATE]
    assert session.quarantine(state=HELD) == []
    assert session.counted() == {("acme", "high", INPUT): 10}


def test_stream__request_id_sent_again_is_no_request_for_nothing(session: Apart) -> None:
    """In a stream, too; what is set aside is named by its place, and released from there."""
    request_id = str(uuid.uuid4())
    events = [
        session.event(event_id="", request_id=request_id, tokens={INPUT: count}) for count in (3, 7)
    ]
    later = session.event(event_id="", request_id=request_id, tokens={INPUT: 20})
    answers = session.exchange(session.opening(), batch(1, *events), batch(2, later))
    asides = [list(answer.ack.set_aside) for answer in answers[1:]]
    assert [[(it.index, it.outcome) for it in each] for each in asides] == [
        [(1, REUSED)],
        [(0, REUSED)],
    ]
    assert session.counted() == {("acme", "high", INPUT): 3}
    held = session.quarantine(state=HELD)
    assert len({it.event.request_id for it in held}) == 2
    for entry in held:
        request = meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=entry.quarantine_id)
        session.call("ReleaseQuarantine", request)
    assert session.counted() == {("acme", "high", INPUT): 30}


def test_record_usage__of_an_unknown_source(session: Apart) -> None:
    """A number that names no source is refused: what it reports could not be told from others."""
    with pytest.raises(grpc.RpcError) as failure:
        report(session, session.event(), source=99)
    assert reason_of(failure.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "ARGUMENT_INVALID")


def test_stream__of_an_unknown_source_is_kept_whole(session: Apart) -> None:
    """A newer client's source is not guessed at: its batch waits for a person, or a newer meter."""
    answers = session.exchange(session.opening(), batch(1, session.event(), source=99))
    (aside,) = answers[-1].ack.set_aside
    assert (aside.index, aside.outcome) == (-1, outcome_pb2.OUTCOME_BATCH_MALFORMED)
