"""A full buffer: streams feel it, calls are refused, memory stays, nothing is lost."""

import socket
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from meter.domain.limits import CONNECTION_STREAMS_MAX
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import (
    MEBIBYTE,
    commits_held,
    failure_of,
    read_metric,
    record_later,
    talking,
    wait_until,
    waiting_count,
)
from tokenworks.meter.v1 import (
    outcome_pb2,
    usage_pb2,
)

INPUT = usage_pb2.TOKEN_CLASS_INPUT
RECORDED = outcome_pb2.OUTCOME_RECORDED
OVERLOADED = ("RESOURCE_EXHAUSTED", "OVERLOADED", True)


@pytest.fixture
def small_meter(database_url: str, tmp_path: Path) -> Iterator[RunningMeter]:
    """A meter whose buffer is as small as may be."""
    settings = {"buffer_bytes_max": str(MEBIBYTE)}
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as meter:
        yield meter


def resident_bytes(meter: RunningMeter) -> int:
    """Return the memory of the meter's process."""
    process = meter._process  # noqa: SLF001  nobody else needs its number
    assert process is not None
    pages = Path(f"/proc/{process.pid}/statm").read_text("ascii").split()[1]
    return int(pages) * 4096


def fill_buffer(session: Session) -> list[Any]:
    """Make calls that wait until the buffer is full; return them."""
    name, calls = "tokenworks_buffer_bytes", list[Any]()
    while (filled := read_metric(session.meter, name)) < MEBIBYTE:
        calls.append(record_later(session, *[event() for _ in range(1_000)]))
        wait_until(partial(_is_above, session.meter, name, filled))
    wait_until(lambda: waiting_count(session.meter.database_url))
    return calls


def _is_above(meter: RunningMeter, name: str, bound: float) -> bool:
    return read_metric(meter, name) > bound


def test_overload__is_refused_early_and_memory_stays(small_meter: RunningMeter) -> None:
    """A full buffer refuses calls and streams, keeps its size, and loses nothing that it took."""
    session = Session(small_meter)
    session.create_account("acme")
    fat = [event(request_id="r" * 128, tokens={INPUT: 1}) for _ in range(1_000)]
    with commits_held(small_meter.database_url):
        taken = fill_buffer(session)
        refused = [failure_of(lambda: session.record(*fat)) for _ in range(20)]
        before = resident_bytes(small_meter)
        refused += [failure_of(lambda: session.record(*fat)) for _ in range(200)]
        batch = rows(1, *fat)
        refused += [failure_of(lambda: session.exchange(opening(), batch))]
        grown = resident_bytes(small_meter) - before
        assert set(refused) == {OVERLOADED}
        assert grown < 32 * MEBIBYTE
        assert not any(call.done() for call in taken)
    for call in taken:
        assert set(call.result().outcomes) == {RECORDED}
    assert session.exchange(opening(), batch)[1].ack.durable_sequence == 1
    assert session.counted() == {("acme", "high", INPUT): 1_000 + 3_000 * len(taken)}


def test_overload__stream_feels_the_push_back_first(small_meter: RunningMeter) -> None:
    """While the buffer is full a stream waits, and goes on when there is room again."""
    session = Session(small_meter)
    session.create_account("acme")
    with talking(session) as talk:
        talk.say(opening())
        assert talk.hear().opened.next_sequence == 1
        with commits_held(small_meter.database_url):
            taken = fill_buffer(session)
            talk.say(rows(1, event()))
            for _ in range(50):
                assert failure_of(lambda: session.record(event())) == OVERLOADED
        assert talk.hear().ack.durable_sequence == 1
    assert {outcome for call in taken for outcome in call.result().outcomes} == {RECORDED}
    assert session.counted() == {("acme", "high", INPUT): 3 + 3_000 * len(taken)}


def test_connection__is_told_how_many_streams_it_has(shared_meter: RunningMeter) -> None:
    """The server's first frame says how many streams and calls one connection may have."""
    host, _, port = shared_meter.target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as peer, peer.makefile("rb") as it:
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        head = it.read(9)
        assert head[3] == 4, "SETTINGS"
        told = dict(struct.iter_unpack(">HI", it.read(int.from_bytes(head[:3]))))
    assert told[3] == CONNECTION_STREAMS_MAX, "SETTINGS_MAX_CONCURRENT_STREAMS"


def test_bounds__hold_back_a_key_that_calls_too_often(database_url: str, tmp_path: Path) -> None:
    """Calls above a key's pace are answered all the same, later; the metric and the log tell."""
    settings = {"calls_per_second_max": "4"}
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as meter:
        session = Session(meter)
        session.create_account("acme")
        calls = [record_later(session, event()) for _ in range(8)]
        assert {outcome for call in calls for outcome in call.result().outcomes} == {RECORDED}
        assert read_metric(meter, "tokenworks_bounds_reached_total", bound="calls") >= 1
        assert "bound_reached bound='calls' key_id='key_" in meter.log.read_text("utf-8")
