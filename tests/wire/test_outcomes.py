"""Every outcome, provoked from outside in both forms, in its written precedence."""

import time
from typing import Any

import pytest

from tests.wire.apart import Apart
from tests.wire.session import columns, event, rows, to_columns
from tokenworks.meter.v1 import account_service_pb2, meter_service_pb2, outcome_pb2, usage_pb2

INPUT = usage_pb2.TOKEN_CLASS_INPUT
OUTPUT = usage_pb2.TOKEN_CLASS_OUTPUT
DAY_MS = 86_400_000


def in_ms(delta_ms: int) -> int:
    """Return the time `delta_ms` from now."""
    return time.time_ns() // 10**6 + delta_ms


@pytest.fixture
def session(apart: Apart) -> Apart:
    """A session with an open and a closed account."""
    apart.create_account("gone")
    request = account_service_pb2.CloseAccountRequest(account=apart.own("gone"))
    apart.call("CloseAccount", request)
    return apart


# One row a rule: what is sent, and what the meter says of it.
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("RECORDED", {}),
    ("RECORDED", {"tokens": {}}),
    ("RECORDED", {"model": "NaN", "request_id": "1e999"}),
    ("RECORDED", {"end_ms": lambda: in_ms(-34 * DAY_MS)}),
    ("RECORDED", {"end_ms": lambda: in_ms(4 * 60_000)}),
    ("RECORDED", {"tokens": {INPUT: 1_000_000_000}}),
    ("RECORDED", {"reported_input_count": 3, "reported_output_count": 0}),
    ("FIELD_INVALID", {"model": ""}),
    ("FIELD_INVALID", {"model": "m" * 129}),
    ("FIELD_INVALID", {"model": "m" * 1_000_000}),
    ("FIELD_INVALID", {"model": "a\nb"}),
    ("FIELD_INVALID", {"pool": "p\0"}),
    ("FIELD_INVALID", {"region": "r" * 65}),
    ("FIELD_INVALID", {"request_id": "r" * 129}),
    ("FIELD_INVALID", {"duration_ms": -1}),
    ("FIELD_INVALID", {"attempt": 1001}),
    ("ACCOUNT_UNKNOWN", {"account": "nobody"}),
    ("ACCOUNT_CLOSED", {"account": "gone", "end_ms": lambda: in_ms(60_000)}),
    ("TIER_UNKNOWN", {"tier": "gold"}),
    ("TIER_UNKNOWN", {"tier": ""}),
    ("MODE_UNKNOWN", {"mode": 9}),
    ("FINISH_UNKNOWN", {"finish": 9}),
    ("FINISH_UNKNOWN", {"finish": -1}),
    ("QUALITY_UNKNOWN", {"quality": 9}),
    ("CLASS_UNKNOWN", {"tokens": {99: 1}}),
    ("CLASS_UNKNOWN", {"tokens": {0: 1}}),
    ("TIME_IN_FUTURE", {"end_ms": lambda: in_ms(6 * 60_000)}),
    ("TIME_TOO_OLD", {"end_ms": lambda: in_ms(-36 * DAY_MS)}),
    ("COUNT_NEGATIVE", {"tokens": {INPUT: -1}}),
    ("COUNT_ABOVE_LIMIT", {"tokens": {INPUT: 1_000_000_001}}),
    ("COUNT_ABOVE_LIMIT", {"tokens": {INPUT: 2**63 - 1}}),
    ("COUNT_NEGATIVE", {"tokens": {INPUT: -(2**63)}}),
    ("COUNT_MISMATCH", {"reported_input_count": 4}),
    ("COUNT_MISMATCH", {"reported_output_count": 1}),
    # Where several apply, the lower number is answered.
    ("FIELD_INVALID", {"account": "nobody", "attempt": -1}),
    ("ACCOUNT_UNKNOWN", {"account": "nobody", "tier": "gold", "tokens": {INPUT: -1}}),
    ("TIER_UNKNOWN", {"tier": "gold", "mode": 9, "finish": 9}),
    ("CLASS_UNKNOWN", {"tokens": {99: -5}}),
    ("TIME_TOO_OLD", {"end_ms": lambda: in_ms(-36 * DAY_MS), "tokens": {INPUT: -1}}),
]


def build(session: Apart, changes: dict[str, Any]) -> usage_pb2.UsageEvent:
    """Return the event of a row of the table, timed now."""
    fields = {name: value() if callable(value) else value for name, value in changes.items()}
    return session.event(fields.pop("account", "acme"), **fields)


def wanted() -> list[int]:
    """Return the outcome numbers of the table."""
    return [outcome_pb2.Outcome.Value(f"OUTCOME_{name}") for name, _ in EVENTS]


def test_record__every_rule(session: Apart) -> None:
    """A call answers each event with the outcome of its rule, in order."""
    assert session.record(*(build(session, changes) for _, changes in EVENTS)) == wanted()


@pytest.mark.parametrize("form", ["rows", "columns"])
def test_stream__every_rule(session: Apart, form: str) -> None:
    """A stream's ack lists exactly the events that are set aside; the others count."""
    events = [build(session, changes) for _, changes in EVENTS]
    batch = rows(1, *events) if form == "rows" else columns(1, to_columns(events))
    ack = session.exchange(session.opening(), batch)[1].ack
    listed = {item.index: item.outcome for item in ack.set_aside}
    assert listed == {place: code for place, code in enumerate(wanted()) if code >= 10}
    assert ack.set_aside_count == len(listed)
    assert session.counted() == {("acme", "high", INPUT): 3 * 5 + 1_000_000_000}


def test_record__duplicate_and_conflict(session: Apart) -> None:
    """An id counts once: the same content again is success, other content is kept aside."""
    first = session.event(tokens={INPUT: 5, OUTPUT: 7})
    reordered = usage_pb2.UsageEvent()
    reordered.CopyFrom(first)
    del reordered.tokens[:]
    reordered.tokens.extend(reversed(first.tokens))
    other = usage_pb2.UsageEvent()
    other.CopyFrom(first)
    other.tokens[0].count = 6
    conflict = outcome_pb2.OUTCOME_CONFLICT
    duplicate = outcome_pb2.OUTCOME_DUPLICATE
    recorded = outcome_pb2.OUTCOME_RECORDED
    assert session.record(first, first, other) == [recorded, duplicate, conflict]
    assert session.record(reordered, other) == [duplicate, conflict]
    assert session.counted() == {("acme", "high", INPUT): 5, ("acme", "high", OUTPUT): 7}


def test_record__id_is_required(session: Apart) -> None:
    """A call's event without an id, with a huge one or a class twice is FIELD_INVALID."""
    twice = session.event()
    twice.tokens.append(twice.tokens[0])
    outcomes = session.record(session.event(event_id=""), session.event(event_id="x" * 65), twice)
    assert outcomes == [outcome_pb2.OUTCOME_FIELD_INVALID] * 3
    assert session.counted() == {}


def test_record__key_of_a_subtree_reports_only_there(session: Apart) -> None:
    """An account outside the key's subtree is set aside, in calls and on streams."""
    session.create_account("team", parent="acme")
    scope = account_service_pb2.Scope(
        role=account_service_pb2.ROLE_PRODUCER, account=session.own("team")
    )
    key = session.call(
        "CreateApiKey",
        account_service_pb2.CreateApiKeyRequest(account=scope.account, scopes=[scope]),
    )
    limited = session.with_key(key.secret)
    outside = outcome_pb2.OUTCOME_ACCOUNT_OUT_OF_SCOPE
    inner, outer = session.event("team"), session.event("acme")
    assert limited.record(inner, outer) == [outcome_pb2.OUTCOME_RECORDED, outside]
    batch = rows(1, session.event("acme"), session.event("team"))
    ack = limited.exchange(session.opening(), batch)[1].ack
    assert [(item.index, item.outcome) for item in ack.set_aside] == [(0, outside)]


def _columns(**changes: Any) -> usage_pb2.UsageColumns:  # noqa: ANN401
    form = to_columns([event(), event(), event()])
    for name, value in changes.items():
        field = getattr(form, name)
        del field[:]
        field.extend(value)
    return form


def _class_twice() -> usage_pb2.UsageColumns:
    form = _columns()
    form.tokens.append(form.tokens[0])
    return form


def _bad_ids() -> usage_pb2.UsageColumns:
    form = _columns()
    form.event_ids = b"x" * 17
    return form


@pytest.mark.parametrize(
    ("form", "outcome"),
    [
        (_columns(end_offset_ms=[1, 2]), "BATCH_MALFORMED"),
        (_columns(duration_ms=[1]), "BATCH_MALFORMED"),
        (_columns(dimensions_index=[0, 0, 1]), "BATCH_MALFORMED"),
        (_columns(dimensions_index=[0, -1, 0]), "BATCH_MALFORMED"),
        (_columns(request_id=["a", "b"]), "BATCH_MALFORMED"),
        (_class_twice(), "BATCH_MALFORMED"),
        (_bad_ids(), "BATCH_MALFORMED"),
        (_columns(dimensions_index=[0] * 10_001), "BATCH_TOO_LARGE"),
        (
            _columns(dimensions=[usage_pb2.Dimensions(pool=str(i)) for i in range(10_001)]),
            "BATCH_TOO_LARGE",
        ),
    ],
)
def test_stream__unusable_batch_is_kept_whole(
    session: Apart, form: usage_pb2.UsageColumns, outcome: str
) -> None:
    """What cannot be read as events is quarantined under its number, and the stream goes on."""
    answers = session.exchange(session.opening(), columns(1, form), rows(2, session.event()))
    aside = answers[1].ack.set_aside[0]
    assert (aside.index, outcome_pb2.Outcome.Name(aside.outcome)) == (-1, f"OUTCOME_{outcome}")
    assert answers[2].ack.durable_sequence == 2
    assert session.counted() == {("acme", "high", INPUT): 3}


def test_stream__too_many_rows_are_kept_whole(session: Apart) -> None:
    """More rows than a batch may have are BATCH_TOO_LARGE."""
    batch = rows(1, *[session.event(event_id="")] * 10_001)
    ack = session.exchange(session.opening(), batch)[1].ack
    assert ack.set_aside[0].outcome == outcome_pb2.OUTCOME_BATCH_TOO_LARGE


def test_stream__numbers_sent_one_by_one_are_read_too(session: Apart) -> None:
    """proto3 allows unpacked numbers: a client that writes them so is counted all the same."""
    form = to_columns([session.event(), session.event()])
    unpacked = usage_pb2.UsageColumns()
    unpacked.base_time.CopyFrom(form.base_time)
    unpacked.dimensions.extend(form.dimensions)
    index = b"".join(b"\x18" + bytes([value]) for value in form.dimensions_index)
    offsets = b"".join(b"\x20" + bytes([value]) for value in form.end_offset_ms)
    token = b"\x08\x01" + b"".join(b"\x10" + bytes([value]) for value in form.tokens[0].counts)
    raw = unpacked.SerializeToString() + index + offsets + b"\x32" + bytes([len(token)]) + token
    batch = columns(1, usage_pb2.UsageColumns.FromString(raw)).SerializeToString()
    assert len(meter_service_pb2.StreamUsageRequest.FromString(batch).batch.columns.tokens) == 1
    prefix = usage_pb2.UsageBatch(sequence=1).SerializeToString()
    body = prefix + b"\x1a" + bytes([len(raw)]) + raw
    call = session.channel.stream_stream(
        "/tokenworks.meter.v1.MeterService/StreamUsage",
        request_serializer=bytes,
        response_deserializer=meter_service_pb2.StreamUsageResponse.FromString,
    )
    messages = [session.opening().SerializeToString(), b"\x12" + bytes([len(body)]) + body]
    answers = list(call(iter(messages), metadata=session.metadata, timeout=20))
    assert answers[1].ack.set_aside_count == 0
    assert session.counted() == {("acme", "high", INPUT): 6}
