"""A stream on which a test says one thing after the other, and calls that it lets wait."""

import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc
import psycopg
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from prometheus_client.parser import text_string_to_metric_families

from tests.running_meter import RunningMeter
from tests.wire.session import LOOK_SECONDS, Response, Session, event, opening, reason_of, rows
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

WAIT_SECONDS_MAX = 60.0
MEBIBYTE = 1024 * 1024
SERVING = int(health_pb2.HealthCheckResponse.SERVING)
NOT_SERVING = int(health_pb2.HealthCheckResponse.NOT_SERVING)


class Talk:
    """An open stream; what is said is sent at once, what is heard is the next answer."""

    def __init__(self, session: Session) -> None:
        self._said: SimpleQueue[Any] = SimpleQueue()
        self._heard = session.stream(iter(self._said.get, None))

    def say(self, *messages: Any) -> None:  # noqa: ANN401
        """Send messages."""
        for message in messages:
            self._said.put(message)

    def hear(self) -> Response:
        """Return the next answer; raises what ends the stream."""
        return next(self._heard)

    def hear_of(self, sequence: int) -> meter_service_pb2.BatchAck:
        """Hear acks until all up to a number is recorded, however many that are; return the last.

        Batches that one commit records have one ack together.
        """
        ack = self.hear().ack
        while ack.sequence < sequence:
            ack = self.hear().ack
        return ack

    def cut(self) -> None:
        """Cancel the call, as a process does that dies."""
        self._heard.cancel()  # type: ignore[attr-defined]

    def end(self) -> None:
        """Send nothing more."""
        self._said.put(None)


@contextlib.contextmanager
def talking(session: Session) -> Iterator[Talk]:
    """A stream for the time of the block."""
    talk = Talk(session)
    try:
        yield talk
    finally:
        talk.end()


def health_of(session: Session, service: str = "tokenworks.meter.v1.MeterService") -> int:
    """Return the state that load balancers see."""
    check = session.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    request = health_pb2.HealthCheckRequest(service=service)
    answer: health_pb2.HealthCheckResponse = check(request, timeout=10, wait_for_ready=True)
    return int(answer.status)


def is_recording(session: Session) -> bool:
    """Tell whether the meter records again: a stream may open before what writes has noticed."""
    try:
        session.exchange(opening("probe"), rows(1, event(tokens={usage_pb2.TOKEN_CLASS_INPUT: 0})))
    except grpc.RpcError:
        return False
    return True


def read_http(meter: RunningMeter, path: str) -> tuple[int, str]:
    """Return status and body of a page of the HTTP port."""
    try:
        with urllib.request.urlopen(f"http://{meter.http}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def read_metric(meter: RunningMeter, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels; 0 when there is none."""
    page = read_http(meter, "/metrics")[1]
    # Without what is not asked for, which takes the parser long.
    samples = "\n".join(line for line in page.splitlines() if line.startswith(name))
    families = text_string_to_metric_families(samples)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def call_of(error: object) -> grpc.Call:
    """Return a failed call as what it also is."""
    assert isinstance(error, grpc.Call)
    return error


def info_of(error: object) -> error_details_pb2.ErrorInfo:
    """Return the ErrorInfo of a failed call."""
    trailing = dict(call_of(error).trailing_metadata() or ())
    raw = trailing["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(raw).details[0].Unpack(info)
    return info


def wait_until(holds: Callable[[], object]) -> None:
    """Return when something holds; fails after a minute."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def commits_held(database_url: str) -> Iterator[None]:
    """Keep every commit of the journal waiting for the time of the block."""
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM shards FOR UPDATE")
        yield


@contextlib.contextmanager
def counting_held(database_url: str) -> Iterator[None]:
    """Keep counting waiting for the time of the block."""
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM counting FOR UPDATE")
        yield


def waiting_count(database_url: str) -> int:
    """Return how many connections wait for a lock of another one."""
    question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with psycopg.connect(database_url) as connection:
        ((count,),) = connection.execute(question).fetchall()
    return int(count)


def failure_of(act: Callable[[], object]) -> tuple[str, str, bool]:
    """Return code, reason and whether to retry, of what must fail."""
    with pytest.raises(grpc.RpcError) as failure:
        act()
    code, reason, has_retry = reason_of(failure.value)
    return code.name, reason, has_retry


def record_later(session: Session, *events: usage_pb2.UsageEvent) -> Any:  # noqa: ANN401
    """Start a call and return its future."""
    method = session.channel.unary_unary(
        "/tokenworks.meter.v1.MeterService/RecordUsage",
        request_serializer=meter_service_pb2.RecordUsageRequest.SerializeToString,
        response_deserializer=meter_service_pb2.RecordUsageResponse.FromString,
    )
    request = meter_service_pb2.RecordUsageRequest(events=events)
    return method.future(request, metadata=session.metadata, timeout=60)
