"""Batches in planes over a server: counted like any other, set aside like any other."""

from typing import Any

import pytest

from tests.wire.apart import Apart
from tests.wire.session import event, planes, rows, to_plane, to_planes
from tokenworks.meter.v1 import outcome_pb2, usage_pb2

INPUT = usage_pb2.TOKEN_CLASS_INPUT


@pytest.fixture
def session(apart: Apart) -> Apart:
    """A session with one account."""
    return apart


def test_stream__planes_count_once(session: Apart) -> None:
    """A batch in planes is counted; sent again it is not."""
    batch = planes(1, to_planes([session.event(), session.event(), session.event()]))
    for _ in range(2):
        assert not session.exchange(session.opening(), batch)[1].ack.set_aside_count
    assert session.counted() == {("acme", "high", INPUT): 9}


def test_stream__small_batches_in_planes_are_told_apart(session: Apart) -> None:
    """Of those that wait for one commit each has its own answer, also when they are sent again."""
    events = [[session.event()], [session.event("nobody"), session.event()], [session.event()]]
    batches = []
    for number, each in enumerate(events, 1):
        form = to_planes(each)
        for name in ("request_id", "reported_input_count", "reported_output_count"):
            form.ClearField(name)
        batches.append(planes(number, form))
    for listed in ([2], []):
        acks = [it.ack for it in session.exchange(session.opening(), *batches)[1:]]
        assert acks[-1].sequence == 3
        assert [ack.sequence for ack in acks if ack.set_aside_count] == listed
    assert session.counted() == {("acme", "high", INPUT): 9}


def test_stream__event_in_planes_is_set_aside_alone(session: Apart) -> None:
    """One wrong event among others goes to quarantine, with its place; the others count."""
    batch = planes(
        1, to_planes([session.event(), session.event("nobody"), session.event(tokens={INPUT: -1})])
    )
    ack = session.exchange(session.opening(), batch)[1].ack
    assert [(it.index, it.outcome) for it in ack.set_aside] == [
        (1, outcome_pb2.OUTCOME_ACCOUNT_UNKNOWN),
        (2, outcome_pb2.OUTCOME_COUNT_NEGATIVE),
    ]
    assert session.counted() == {("acme", "high", INPUT): 3}


def _form(**changes: Any) -> usage_pb2.UsagePlanes:  # noqa: ANN401
    form = to_planes([event(), event(), event()])
    form.MergeFrom(usage_pb2.UsagePlanes(**changes))
    return form


def _replaced(name: str, column: usage_pb2.PlaneColumn) -> usage_pb2.UsagePlanes:
    form = _form()
    getattr(form, name).CopyFrom(column)
    return form


def _counted(count: int) -> usage_pb2.UsagePlanes:
    form = _form()
    form.event_count = count
    return form


_MALFORMED = {
    "index from the end": _replaced("account_index", to_plane([0, 0, -1])),
    "index of an account that is not there": _replaced("account_index", to_plane([0, 0, 1])),
    "index of a service that is not there": _replaced("service_index", to_plane([0, -1, 0])),
    "column of fewer events": _replaced("duration_ms", to_plane([1, 300])),
    "column of more events": _replaced("end_offset_ms", to_plane([1, 300, 2, 3])),
    "number too wide": _replaced("end_offset_ms", to_plane([0, 2**57, 0])),
    "base too far": _replaced("duration_ms", usage_pb2.PlaneColumn(base=2**61)),
    "class twice": _form(tokens=_form().tokens),
    "too few request ids": _form(request_id=["one more"]),
    "too few event ids": _form(event_ids=b"x" * 17),
}


@pytest.mark.parametrize("name", _MALFORMED)
def test_stream__malformed_planes_are_kept_whole(session: Apart, name: str) -> None:
    """What cannot be read as events is kept under its number, and the stream goes on."""
    _is_kept_whole(session, _MALFORMED[name], outcome="BATCH_MALFORMED")


@pytest.mark.parametrize(
    "form",
    [
        _counted(10_001),
        _counted(-1),
        _form(accounts=[str(number) for number in range(10_001)]),
        _form(services=[usage_pb2.Dimensions(pool=str(it)) for it in range(10_001)]),
    ],
)
def test_stream__too_large_planes_are_kept_whole(
    session: Apart, form: usage_pb2.UsagePlanes
) -> None:
    """More events than a batch may have, or more names, are no batch."""
    _is_kept_whole(session, form, outcome="BATCH_TOO_LARGE")


def test_stream__service_with_an_account_is_kept_whole(session: Apart) -> None:
    """An account stands in its own list alone: else two would say for whom an event is."""
    form = to_planes([event()])
    form.services[0].account = "team"
    _is_kept_whole(session, form, outcome="BATCH_MALFORMED")


def _is_kept_whole(session: Apart, form: usage_pb2.UsagePlanes, *, outcome: str) -> None:
    answers = session.exchange(session.opening(), planes(1, form), rows(2, session.event()))
    aside = answers[1].ack.set_aside[0]
    assert (aside.index, outcome_pb2.Outcome.Name(aside.outcome)) == (-1, f"OUTCOME_{outcome}")
    assert answers[2].ack.durable_sequence == 2
    assert session.counted() == {("acme", "high", INPUT): 3}
