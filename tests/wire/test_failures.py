"""What goes wrong around a running meter: each failure named, nothing lost or counted twice."""

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import psycopg
import pytest

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.posting import post
from tests.wire.session import Session, event, opening, reason_of, rows
from tests.wire.talk import (
    MEBIBYTE,
    NOT_SERVING,
    SERVING,
    call_of,
    commits_held,
    failure_of,
    health_of,
    info_of,
    read_http,
    record_later,
    talking,
    wait_until,
    waiting_count,
)
from tokenworks.meter.v1 import (
    meter_service_pb2,
    outcome_pb2,
    usage_pb2,
)

INPUT = usage_pb2.TOKEN_CLASS_INPUT
RECORDED = outcome_pb2.OUTCOME_RECORDED


@pytest.fixture
def session(running_meter: RunningMeter) -> Session:
    """A session with one account."""
    session = Session(running_meter)
    session.create_account("acme")
    return session


@pytest.fixture(scope="module")
def shared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session for all who are refused at the door and change nothing."""
    folder = tmp_path_factory.mktemp("shared")
    with cluster.database() as url, running_meter_on(url, folder=folder) as meter:
        session = Session(meter)
        session.create_account("acme")
        yield session


def metadata_of(act: Callable[[], object]) -> dict[str, str]:
    """Return the metadata of the ErrorInfo of what must fail."""
    with pytest.raises(grpc.RpcError) as failure:
        act()
    return dict(info_of(failure.value).metadata)


STORE_AWAY = ("UNAVAILABLE", "STORE_UNAVAILABLE", True)


def test_postgres__stopped_in_mid_stream(private_cluster: Cluster, tmp_path: Path) -> None:
    """Without Postgres nothing is acknowledged; it recovers by itself, and the totals are exact."""
    with private_cluster.database() as url, running_meter_on(url, folder=tmp_path) as meter:
        session = Session(meter)
        session.create_account("acme")
        late = event(tokens={INPUT: 100})
        cloud_event = json.dumps(
            {
                "specversion": "1.0",
                "id": "1",
                "source": "shop",
                "type": "inference.tokens.used",
                "data": {
                    "account": "acme",
                    "model": "m",
                    "tier": "high",
                    "tokens": {"input": 1000},
                },
            }
        ).encode()
        with talking(session) as talk:
            talk.say(opening(), rows(1, event(tokens={INPUT: 1})))
            assert talk.hear().opened.next_sequence == 1
            assert talk.hear().ack.durable_sequence == 1
            private_cluster.stop()
            talk.say(rows(2, event(tokens={INPUT: 10})))
            assert failure_of(talk.hear) == STORE_AWAY
        assert failure_of(lambda: session.record(late)) == STORE_AWAY
        assert failure_of(lambda: session.exchange(opening())) == STORE_AWAY
        posted = post(meter, "/api/v1/events", cloud_event)
        assert (posted.status, posted.reason) == (503, "STORE_UNAVAILABLE")
        assert int(posted.headers["retry-after"]) >= 1
        wait_until(lambda: health_of(session) == NOT_SERVING)
        wait_until(lambda: read_http(meter, "/readyz")[0] == 503)
        assert "database: has not answered for " in read_http(meter, "/readyz")[1]
        assert read_http(meter, "/healthz")[0] == 200
        private_cluster.start()
        wait_until(lambda: health_of(session) == SERVING)
        assert read_http(meter, "/readyz")[0] == 200
        answers = session.exchange(opening(), rows(2, event(tokens={INPUT: 10})))
        assert answers[0].opened.next_sequence == 2
        assert answers[1].ack.durable_sequence == 2
        assert session.record(late) == [RECORDED]
        assert post(meter, "/api/v1/events", cloud_event).status == 204
        assert session.counted() == {("acme", "high", INPUT): 1111}


def big_event(size_bytes: int) -> usage_pb2.UsageEvent:
    """Return an event of about this size."""
    return event(model="m" * size_bytes)


def test_message__too_large(session: Session) -> None:
    """A message above the limit is refused with the limit, on calls and streams, and no retry."""
    limit = 4 * MEBIBYTE
    wanted = ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", False)
    big = big_event(limit)
    assert failure_of(lambda: session.record(big)) == wanted
    assert failure_of(lambda: session.exchange(opening(), rows(1, big))) == wanted
    assert metadata_of(lambda: session.record(big)) == {"limit_bytes": str(limit)}
    # The transport itself refuses what is far too large.
    with pytest.raises(grpc.RpcError) as failure:
        session.record(big_event(3 * limit))
    assert call_of(failure.value).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert session.record(event(model="m" * (limit - 1_000))) == [outcome_pb2.OUTCOME_FIELD_INVALID]


def raw_stream(session: Session, *messages: bytes) -> list[Any]:
    """Send bytes on a stream as they are."""
    call = session.channel.stream_stream(
        "/tokenworks.meter.v1.MeterService/StreamUsage",
        request_serializer=bytes,
        response_deserializer=meter_service_pb2.StreamUsageResponse.FromString,
    )
    return list(call(iter(messages), metadata=session.metadata, timeout=20))


def raw_call(session: Session, name: str, message: bytes) -> Any:  # noqa: ANN401
    """Send bytes in a call as they are."""
    call = session.channel.unary_unary(
        f"/tokenworks.meter.v1.{name}", request_serializer=bytes, response_deserializer=bytes
    )
    return call(message, metadata=session.metadata, timeout=20)


UNREADABLE = ("INVALID_ARGUMENT", "MESSAGE_UNREADABLE", False)
# In the place of the text "high": bytes that are no UTF-8.
NOT_TEXT = b"hi\xff\xfe"


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff",
        b"\x0a",
        bytes(range(256)),
        opening("p1").SerializeToString()[:-1],
        opening("high").SerializeToString().replace(b"high", NOT_TEXT),
        rows(1, event()).SerializeToString().replace(b"high", NOT_TEXT),
    ],
    # An event's id is another one each time: no name for a case that several processes share.
    ids=["no field", "no value", "any bytes", "cut off", "opening", "row"],
)
def test_message__unreadable_on_a_stream(shared: Session, message: bytes) -> None:
    """Bytes that are no message end the stream with their reason; the next one goes on."""
    first = opening().SerializeToString()
    for messages in ([message], [first, message]):
        if messages[0] != message or not message.startswith(b"\x12"):
            assert failure_of(partial(raw_stream, shared, *messages)) == UNREADABLE
    answers = shared.exchange(opening())
    assert answers[0].opened.next_sequence == 1
    assert shared.counted() == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MeterService/RecordUsage", b"\xff\xff\xff"),
        (
            "MeterService/RecordUsage",
            meter_service_pb2.RecordUsageRequest(events=[event()])
            .SerializeToString()
            .replace(b"high", NOT_TEXT),
        ),
        ("MeterService/QueryUsage", b"\x0a\x02\xff\xff"),
        ("AccountService/CreateAccount", b"\x0a\xff"),
    ],
    ids=["no field", "event", "query", "account"],
)
def test_message__unreadable_in_a_call(shared: Session, name: str, message: bytes) -> None:
    """Bytes that are no message of the call are refused with their reason."""
    assert failure_of(lambda: raw_call(shared, name, message)) == UNREADABLE


def rename(database_url: str, table: str, *, to: str) -> None:
    """Break or mend the schema under a running meter."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {to}")


@pytest.mark.parametrize(
    ("table", "act"),
    [
        ("usage", lambda it: it.counted()),
        ("event_claims", lambda it: it.record(event())),
        ("journal", lambda it: it.exchange(opening(), rows(1, event()))),
        ("quarantine", lambda it: it.record(event(tier="gold"))),
    ],
)
def test_internal__has_an_id_and_no_insides(
    session: Session, table: str, act: Callable[[Session], object]
) -> None:
    """A fault of ours is named by an id that the log has; the caller learns nothing else."""
    url = session.meter.database_url
    rename(url, table, to="elsewhere")
    with pytest.raises(grpc.RpcError) as failure:
        act(session)
    assert reason_of(failure.value) == (grpc.StatusCode.INTERNAL, "INTERNAL", False)
    details = call_of(failure.value).details() or ""
    error_id = metadata_of(lambda: act(session))["error_id"]
    log = session.meter.log.read_text("utf-8")
    assert f"error_id='{error_id}'" in log
    assert "UndefinedTable" in log
    shown = details + str(info_of(failure.value))
    for inside in ("relation", "psycopg", "SELECT", "INSERT", table, "Error"):
        assert inside not in shown
    rename(url, "elsewhere", to=table)
    assert session.record(event()) == [RECORDED]
    assert session.counted() == {("acme", "high", INPUT): 3}


SHUTTING_DOWN = ("UNAVAILABLE", "SHUTTING_DOWN", True)


def test_stop__answers_all_that_waits(session: Session) -> None:
    """A stop sends streams and calls away with its reason; what was not acked counts once."""
    url = session.meter.database_url
    waiting = event(tokens={INPUT: 10})
    with talking(session) as talk, talking(session) as idle:
        idle.say(opening("idle"))
        assert idle.hear().opened.next_sequence == 1
        talk.say(opening(), rows(1, event(tokens={INPUT: 1})))
        assert [talk.hear().WhichOneof("message") for _ in range(2)] == ["opened", "ack"]
        with commits_held(url):
            call = record_later(session, waiting)
            talk.say(rows(2, event(tokens={INPUT: 100})))
            wait_until(lambda: waiting_count(url))
            stopping = Thread(target=session.meter.stop)
            stopping.start()
            assert failure_of(idle.hear) == SHUTTING_DOWN
            assert failure_of(call.result) == SHUTTING_DOWN
            assert failure_of(talk.hear) == SHUTTING_DOWN
        stopping.join()
    session.meter.start()
    assert session.record(waiting)[0] in {RECORDED, outcome_pb2.OUTCOME_DUPLICATE}
    again = session.exchange(opening())[0].opened.next_sequence
    assert again in {2, 3}
    if again == 2:
        session.exchange(opening(), rows(2, event(tokens={INPUT: 100})))
    assert session.counted() == {("acme", "high", INPUT): 111}


def test_stop__takes_nothing_more_and_loses_nothing(session: Session) -> None:
    """Of calls that come while a server stops, those that were answered count, and no others."""
    outcomes: list[int] = []
    codes: list[grpc.StatusCode] = []

    def keep_calling() -> None:
        while True:
            try:
                outcomes.extend(record_later(session, event(tokens={INPUT: 1})).result().outcomes)
            except grpc.RpcError as error:
                codes.append(call_of(error).code())
                return

    calling = Thread(target=keep_calling)
    calling.start()
    wait_until(lambda: len(outcomes) > 20)
    assert session.meter.stop() == 0
    calling.join()
    # A call that the transport itself cut off is CANCELLED; either way it may be sent again.
    assert codes[0] in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    session.meter.start()
    counted = session.counted()[("acme", "high", INPUT)]
    # The last call may have been recorded without its answer having come through.
    assert counted - len(outcomes) in {0, 1}


def test_takeover__of_the_shard_sends_the_older_server_to_another(
    session: Session, tmp_path: Path
) -> None:
    """A second server takes a shard over; the first one is fenced, and goes on in another."""
    folder = tmp_path / "second"
    folder.mkdir()
    assert session.record(event(tokens={INPUT: 1})) == [RECORDED]
    url = session.meter.database_url
    with running_meter_on(url, folder=folder, settings={"shard": "0"}) as second:
        newer = Session(second)
        assert newer.record(event(tokens={INPUT: 10})) == [RECORDED]
        again = event(tokens={INPUT: 100})
        with contextlib.suppress(grpc.RpcError):
            # It may have noticed by itself, as it does within a second; else it is told so now.
            session.record(again)
        assert session.record(again) in ([RECORDED], [outcome_pb2.OUTCOME_DUPLICATE])
        assert newer.counted() == session.counted() == {("acme", "high", INPUT): 111}
        with psycopg.connect(url) as connection:
            shards = connection.execute("SELECT shard FROM shards WHERE position > 0 ORDER BY 1")
            assert shards.fetchall() == [(0,), (1,)]
