"""What was set aside: listed, released once and then counted, or rejected and never."""

import time
from typing import Any

import grpc
import pytest

from tests.running_meter import RunningMeter
from tests.wire.apart import Apart
from tests.wire.session import Session, columns, event, reason_of, rows, to_columns
from tests.wire.talk import info_of
from tokenworks.meter.v1 import (
    account_service_pb2,
    meter_service_pb2,
    outcome_pb2,
    usage_pb2,
)

INPUT = usage_pb2.TOKEN_CLASS_INPUT
DAY_MS = 86_400_000
HELD = meter_service_pb2.QUARANTINE_STATE_HELD
RELEASED = meter_service_pb2.QUARANTINE_STATE_RELEASED
REJECTED = meter_service_pb2.QUARANTINE_STATE_REJECTED
Entry = meter_service_pb2.QuarantineEntry


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


def entries(session: Session, **changes: Any) -> list[Entry]:  # noqa: ANN401
    """Return a page of all entries."""
    request = meter_service_pb2.ListQuarantineRequest(**changes)
    return list(session.call("ListQuarantine", request).entries)


def release(session: Session, quarantine_id: int) -> Entry:
    """Release an entry."""
    request = meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=quarantine_id)
    entry: Entry = session.call("ReleaseQuarantine", request).entry
    return entry


def reject(session: Session, quarantine_id: int, *, reason: str = "a test run") -> Entry:
    """Reject an entry."""
    request = meter_service_pb2.RejectQuarantineRequest(quarantine_id=quarantine_id, reason=reason)
    entry: Entry = session.call("RejectQuarantine", request).entry
    return entry


def refusal(act: Any) -> tuple[str, str, str]:  # noqa: ANN401
    """Return code, reason and outcome of what must fail."""
    with pytest.raises(grpc.RpcError) as failure:
        act()
    code, reason, _ = reason_of(failure.value)
    return code.name, reason, info_of(failure.value).metadata.get("outcome", "")


def test_stream__doubtful_batch_is_kept_and_may_be_released(session: Apart) -> None:
    """A batch that a producer cannot vouch for has its number, and counts once a person says so."""
    doubtful = rows(1, session.event(), session.event())
    doubtful.batch.is_doubtful = True
    answers = session.exchange(session.opening(), doubtful, doubtful, rows(2, session.event()))
    asides = [list(answer.ack.set_aside) for answer in answers[1:]]
    assert [aside[0].outcome for aside in asides[:1]] == [outcome_pb2.OUTCOME_BATCH_DOUBTFUL]
    assert not any(asides[1:]), "its repetition is kept once"
    assert answers[-1].ack.sequence == 2
    assert session.counted() == {("acme", "high", INPUT): 3}
    (entry,) = session.quarantine(state=HELD)
    assert (entry.sequence, entry.index) == (1, -1)
    assert release(session, entry.quarantine_id).state == RELEASED
    assert session.counted() == {("acme", "high", INPUT): 9}


REFUSED = ("FAILED_PRECONDITION", "RELEASE_REFUSED", "")


def test_list__shows_what_was_sent(session: Apart) -> None:
    """Entries of calls, rows and columns have the event, its place and whence it came."""
    sent = [session.event("nobody", tokens={INPUT: 7}, request_id="r-1") for _ in range(3)]
    session.record(session.event(), sent[0])
    answers = session.exchange(
        session.opening(),
        rows(1, session.event(), session.event(), sent[1]),
        columns(2, to_columns([sent[2]])),
    )
    found = session.quarantine()
    assert [item.state for item in found] == [HELD] * 3
    producer = session.own("p1")
    places = [(item.producer, item.sequence, item.index) for item in found]
    assert places == [("", 0, 1), (producer, 1, 2), (producer, 2, 0)]
    listed = [item.quarantine_id for answer in answers[1:] for item in answer.ack.set_aside]
    assert [item.quarantine_id for item in found[1:]] == listed
    for item, original in zip(found, sent, strict=True):
        assert item.outcome == outcome_pb2.OUTCOME_ACCOUNT_UNKNOWN
        assert item.event.tokens == original.tokens
        assert item.event.request_id == "r-1"
        assert item.event.event_id.replace("-", "") == original.event_id
        assert item.event.end_time.ToMilliseconds() == original.end_time.ToMilliseconds()
        assert item.size_bytes > 0
        assert item.key_id.startswith("key_")
        assert abs(item.received_time.ToSeconds() - time.time()) < 3600
    assert session.counted() == {("acme", "high", INPUT): 9}


def test_list__pages_and_states(whole: Session) -> None:
    """Pages follow each other without gap or repeat, and a state shows its entries alone."""
    whole.record(*[event("nobody") for _ in range(7)])
    ids = [item.quarantine_id for item in entries(whole)]
    reject(whole, ids[3])
    found: list[int] = []
    token = ""
    sizes = []
    while True:
        page = whole.call(
            "ListQuarantine",
            meter_service_pb2.ListQuarantineRequest(page_size=3, page_token=token),
        )
        found += [item.quarantine_id for item in page.entries]
        sizes.append(len(page.entries))
        token = page.next_page_token
        if not token:
            break
    assert (found, sizes) == (ids, [3, 3, 1])
    assert [item.quarantine_id for item in entries(whole, state=REJECTED)] == [ids[3]]
    assert [item.quarantine_id for item in entries(whole, state=HELD)] == ids[:3] + ids[4:]


@pytest.mark.parametrize(
    "changes", [{"page_size": -1}, {"page_size": 1001}, {"page_token": "x"}, {"state": 9}]
)
def test_list__wrong_arguments(session: Apart, changes: dict[str, Any]) -> None:
    """A page that cannot be is refused."""
    assert refusal(lambda: entries(session, **changes))[:2] == (
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    )


def test_release__of_a_call_after_the_cause_is_mended(session: Apart) -> None:
    """An event whose account was missing counts once it exists and the entry is released."""
    sent = session.event("late", tokens={INPUT: 7})
    session.record(sent)
    (entry,) = session.quarantine()
    still = ("FAILED_PRECONDITION", "RELEASE_REFUSED", "ACCOUNT_UNKNOWN")
    assert refusal(lambda: release(session, entry.quarantine_id)) == still
    assert session.quarantine()[0].state == HELD
    session.create_account("late")
    assert release(session, entry.quarantine_id).state == RELEASED
    assert refusal(lambda: release(session, entry.quarantine_id)) == REFUSED
    assert refusal(lambda: reject(session, entry.quarantine_id)) == REFUSED
    # Its producer may well send it again: it has its id.
    assert session.record(sent) == [outcome_pb2.OUTCOME_DUPLICATE]
    assert session.counted() == {("late", "high", INPUT): 7}


def test_release__of_a_stream(session: Apart) -> None:
    """An event of a stream counts when it is released, beside its batch, which counts once."""
    batch = rows(1, session.event(), session.event("late", tokens={INPUT: 7}))
    session.exchange(session.opening(), batch)
    session.create_account("late")
    (entry,) = session.quarantine()
    assert release(session, entry.quarantine_id).state == RELEASED
    session.exchange(session.opening(), batch)
    assert session.counted() == {("acme", "high", INPUT): 3, ("late", "high", INPUT): 7}


def test_release__is_not_bound_by_the_late_limit(session: Apart) -> None:
    """What came too late counts when a person says so, in its own interval."""
    end_ms = time.time_ns() // 10**6 - 36 * DAY_MS
    session.record(session.event(end_ms=end_ms, tokens={INPUT: 7}))
    (entry,) = session.quarantine()
    assert entry.outcome == outcome_pb2.OUTCOME_TIME_TOO_OLD
    release(session, entry.quarantine_id)
    assert session.counted() == {("acme", "high", INPUT): 7}


def test_release__of_a_conflict_is_refused(session: Apart) -> None:
    """An id counts once: its other content can only be rejected."""
    first, other = (
        session.event(event_id="conflict"),
        session.event(event_id="conflict", tokens={INPUT: 9}),
    )
    session.record(first, other)
    (entry,) = session.quarantine()
    conflict = ("FAILED_PRECONDITION", "RELEASE_REFUSED", "CONFLICT")
    assert refusal(lambda: release(session, entry.quarantine_id)) == conflict
    assert reject(session, entry.quarantine_id).state == REJECTED
    assert session.counted() == {("acme", "high", INPUT): 3}


@pytest.mark.parametrize("form", ["rows", "columns"])
def test_release__of_a_changed_batch(session: Apart, form: str) -> None:
    """A whole batch counts when it is released, event by event; what is wrong in it is kept."""
    session.exchange(session.opening(), rows(1, session.event()))
    sent = [
        session.event(tokens={INPUT: 10}),
        session.event("nobody"),
        session.event(tokens={INPUT: 100}),
    ]
    changed = rows(1, *sent) if form == "rows" else columns(1, to_columns(sent))
    session.exchange(session.opening(), changed)
    (entry,) = session.quarantine()
    assert (entry.outcome, entry.index) == (outcome_pb2.OUTCOME_BATCH_CHANGED, -1)
    assert not entry.HasField("event")
    release(session, entry.quarantine_id)
    assert [(item.state, item.outcome) for item in session.quarantine()] == [
        (RELEASED, outcome_pb2.OUTCOME_BATCH_CHANGED),
        (HELD, outcome_pb2.OUTCOME_ACCOUNT_UNKNOWN),
    ]
    assert refusal(lambda: release(session, entry.quarantine_id)) == REFUSED
    assert session.counted() == {("acme", "high", INPUT): 113}


def test_release__of_what_is_no_batch_is_refused(session: Apart) -> None:
    """A batch that cannot be read as events stays what it is."""
    form = to_columns([session.event(), session.event()])
    form.end_offset_ms.append(1)
    session.exchange(session.opening(), columns(1, form))
    (entry,) = session.quarantine()
    malformed = ("FAILED_PRECONDITION", "RELEASE_REFUSED", "BATCH_MALFORMED")
    assert refusal(lambda: release(session, entry.quarantine_id)) == malformed
    assert session.quarantine()[0].state == HELD


def test_reject__is_never_counted(session: Apart) -> None:
    """A rejected entry stays as it is, with its reason, and cannot be released any more."""
    session.record(session.event("late"))
    session.create_account("late")
    (entry,) = session.quarantine()
    assert reject(session, entry.quarantine_id).state == REJECTED
    assert refusal(lambda: release(session, entry.quarantine_id)) == REFUSED
    assert refusal(lambda: reject(session, entry.quarantine_id)) == REFUSED
    assert session.counted() == {}


@pytest.mark.parametrize("reason", ["", "r" * 201])
def test_reject__needs_a_reason(session: Apart, reason: str) -> None:
    """A rejection without a reason, or with a treatise, is refused."""
    session.record(session.event("late"))
    (entry,) = session.quarantine()
    found = refusal(lambda: reject(session, entry.quarantine_id, reason=reason))
    assert found[:2] == ("INVALID_ARGUMENT", "ARGUMENT_INVALID")
    assert session.quarantine()[0].state == HELD


@pytest.mark.parametrize("quarantine_id", [0, -1, 999_999_999, 2**63 - 1])
def test_decide__on_no_entry(session: Apart, quarantine_id: int) -> None:
    """An entry that does not exist is not found."""
    wanted = ("NOT_FOUND", "QUARANTINE_NOT_FOUND", "")
    assert refusal(lambda: release(session, quarantine_id)) == wanted
    assert refusal(lambda: reject(session, quarantine_id)) == wanted


def test_quarantine__is_the_operators(session: Apart) -> None:
    """Whoever is no operator of the whole installation sees and decides nothing."""
    session.record(session.event("late"))
    (entry,) = session.quarantine()
    scopes = [
        account_service_pb2.Scope(role=role, account=account)
        for role, account in [
            (account_service_pb2.ROLE_PRODUCER, ""),
            (account_service_pb2.ROLE_READER, ""),
            (account_service_pb2.ROLE_ADMIN, ""),
            (account_service_pb2.ROLE_OPERATOR, session.own("acme")),
        ]
    ]
    key = session.call("CreateApiKey", account_service_pb2.CreateApiKeyRequest(scopes=scopes))
    other = session.with_key(key.secret)
    for act in (
        other.quarantine,
        lambda: release(other, entry.quarantine_id),
        lambda: reject(other, entry.quarantine_id),
    ):
        assert refusal(act) == ("PERMISSION_DENIED", "SCOPE_MISSING", "")
    assert session.quarantine()[0].state == HELD
