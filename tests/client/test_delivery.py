"""What a client survives on its way to the meter, over a real connection."""

import socket
from contextlib import ExitStack
from threading import Event

import grpc
import pytest

from tests.client.conftest import MakeClient, wait_for_state
from tests.client.fake_meter import API_KEY, WAIT_SECONDS, FakeMeter, Refusal
from tokenworks.client import Meter, State


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE"),
        Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED"),
        Refusal(code=grpc.StatusCode.INTERNAL),
    ],
)
def test_stream__failure_is_survived(
    fake_meter: FakeMeter, make_client: MakeClient, refusal: Refusal
) -> None:
    """A call that fails in mid-stream is opened anew by itself, and each event counted once."""
    client = make_client()
    client.record(input=1)
    assert client.flush(WAIT_SECONDS)
    fake_meter.set(refusal=refusal)
    client.record(input=2)
    wait_for_state(client, State.WAITING)
    fake_meter.set(refusal=None)
    assert client.flush(WAIT_SECONDS)
    assert [event["tokens"] for event in fake_meter.events] == [{1: 1}, {1: 2}]


def test_stream__meter_comes_later() -> None:
    """A client that starts before its meter reports as soon as that is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{probe.getsockname()[1]}"
    with Meter(target, api_key=API_KEY, producer="p") as client, ExitStack() as stack:
        client.record()
        wait_for_state(client, State.WAITING)
        fake_meter = stack.enter_context(FakeMeter().serving(target=target))
        assert client.flush(WAIT_SECONDS)
        assert len(fake_meter.events) == 1


def test_stream__refused_keeps_everything(
    fake_meter: FakeMeter, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """With a wrong key nothing is lost and nothing hammers the meter; the log says why."""
    client = make_client(api_key="tw_wrong")
    client.record()
    wait_for_state(client, State.REFUSED)
    assert client.statistics.held == 1
    assert fake_meter.call_count == 1
    assert "reason=API_KEY_UNKNOWN" in caplog.text
    assert "tw_wrong" not in caplog.text


def test_stream__taken_over_stops_for_good(
    fake_meter: FakeMeter, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The older of two processes under one name stops, says so, and lets its waiters go."""
    older = make_client()
    older.record(account="older")
    assert older.flush(WAIT_SECONDS)
    newer = make_client()
    newer.record(account="newer")
    assert newer.flush(WAIT_SECONDS)
    older.record(account="too late")
    assert older.flush(WAIT_SECONDS) is False
    assert older.close(WAIT_SECONDS) is False
    assert older.record() is False
    assert older.statistics.state is State.TAKEN_OVER
    assert older.statistics.dropped == 2
    assert "reason=PRODUCER_TAKEN_OVER" in caplog.text
    assert [event["account"] for event in fake_meter.events] == ["older", "newer"]


def test_stream__set_aside_is_counted_and_logged(
    fake_meter: FakeMeter, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Events in quarantine are acknowledged, and the client says how many there are."""
    fake_meter.set(set_aside_count=1)
    client = make_client()
    client.record()
    assert client.flush(WAIT_SECONDS)
    assert client.statistics.set_aside == 1
    assert client.close(WAIT_SECONDS)
    assert "events_set_aside count=1 total=1" in caplog.text


def test_stream__rolled_back_meter_is_told(fake_meter: FakeMeter, make_client: MakeClient) -> None:
    """A meter that lost durable batches learns of the gap, and later events are counted."""
    client = make_client()
    for i in range(3):
        client.record(input=i + 1)
        assert client.flush(WAIT_SECONDS)
    fake_meter.set(refusal=Refusal(code=grpc.StatusCode.UNAVAILABLE), durable_lag=0)
    client.record(input=4)
    wait_for_state(client, State.WAITING)
    with fake_meter.changed:
        producer = fake_meter.producers["p"]
        producer.roll_back(2)
    fake_meter.set(refusal=None)
    assert client.flush(WAIT_SECONDS)
    assert [event["tokens"] for event in fake_meter.events] == [{1: 1}, {1: 4}]
    assert producer.gaps == [(2, 3)]


def test_stream__full_batches_leave_before_the_interval(
    fake_meter: FakeMeter, make_client: MakeClient
) -> None:
    """Ten thousand events are a batch, however long the interval."""
    client = make_client(flush_interval_seconds=60)
    for _ in range(10_000):
        client.record()
    assert fake_meter.wait_for_events(10_000)
    assert [len(columns.dimensions_index) for columns in fake_meter.columns] == [10_000]


def test_stream__waiting_events_share_batches(
    fake_meter: FakeMeter, make_client: MakeClient
) -> None:
    """While the meter is away events gather, instead of making a batch each interval."""
    fake_meter.set(refusal=Refusal(code=grpc.StatusCode.UNAVAILABLE))
    client = make_client(flush_interval_seconds=0.001)
    waiting = Event()
    for _ in range(20):
        client.record()
        waiting.wait(0.005)
    fake_meter.set(refusal=None)
    assert fake_meter.wait_for_events(20)
    assert len(fake_meter.columns) == 1
