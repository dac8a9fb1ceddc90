"""Rows of calls: what a meter records by event id, beside the bare thing under it."""

import subprocess
import sys
import threading
import time
import uuid
from typing import Any

import grpc
import psycopg

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import Plant, running_plant
from benchmarks.streams import MACHINE
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name, lengths
from tokenworks.meter.v1 import meter_service_pb2, meter_service_pb2_grpc, usage_pb2

_CALL_EVENTS = 1_000
_BOUND_SECONDS_MAX = 5.0


def measure_events(seconds: float) -> Measurement:
    """Record calls of 1,000 events by id, beside bare INSERT … ON CONFLICT of as many ids."""
    with running_plant() as plant:
        sent = [0] * 4
        took = _in_threads(plant, _send_calls, sent, seconds=seconds, events=_CALL_EVENTS)
        plant.wait_until_counted(seconds=60)
        counted = plant.query("SELECT coalesce(sum(request_count), 0) FROM usage")[0]
        check_answer(counted=counted, sent=sum(sent))
        bound = _insert_rate(plant, seconds=min(seconds, _BOUND_SECONDS_MAX))
    return Measurement(
        value=sum(sent) / took,
        bound=bound,
        bound_of="INSERT … ON CONFLICT DO NOTHING of 1,000 ids a statement, one connection",
        workload=f"{seconds:g} s, 4 callers, RecordUsage of {_CALL_EVENTS} events with ids; "
        f"{MACHINE}",
    )


def measure_unary(seconds: float) -> Measurement:
    """Record one event a call from many callers, beside a bare echo under the same load."""
    with running_plant() as plant:
        sent = [0] * 32
        took = _in_threads(plant, _send_calls, sent, seconds=seconds, events=1)
        plant.wait_until_counted(seconds=60)
        counted = plant.query("SELECT coalesce(sum(request_count), 0) FROM usage")[0]
        check_answer(counted=counted, sent=sum(sent))
        bound = _echo_rate(plant, seconds=min(seconds, _BOUND_SECONDS_MAX))
    return Measurement(
        value=sum(sent) / took,
        bound=bound,
        bound_of="asyncio grpcio echo of the same message, same callers, calls/s",
        workload=f"{seconds:g} s, 32 callers, RecordUsage of one event with an id, the key's bound"
        f" of calls lifted; {MACHINE}",
    )


def _in_threads(plant: Plant, send: Any, sent: list[int], *, seconds: float, events: int) -> float:  # noqa: ANN401
    # Before the clock starts: the trace of lengths takes longer to read than a second.
    requests = [_call(events, model=model) for model in MODELS]
    begin = time.monotonic()
    threads = [
        threading.Thread(
            target=send,
            args=(plant.target, plant.metadata, sent, place),
            kwargs={"deadline": begin + seconds, "request": requests[place % len(requests)]},
        )
        for place in range(len(sent))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - begin


def _send_calls(
    target: str,
    metadata: tuple[tuple[str, str], ...],
    sent: list[int],
    place: int,
    *,
    deadline: float,
    request: meter_service_pb2.RecordUsageRequest,
) -> None:
    stub = meter_service_pb2_grpc.MeterServiceStub(grpc.insecure_channel(target))
    # Its own: each call has ids that no other has.
    own = meter_service_pb2.RecordUsageRequest.FromString(request.SerializeToString())
    while time.monotonic() < deadline:
        for event in own.events:
            event.event_id = uuid.uuid4().hex
        response = stub.RecordUsage(own, metadata=metadata)
        assert set(response.outcomes) == {1}
        sent[place] += len(own.events)


def _call(events: int, *, model: str) -> meter_service_pb2.RecordUsageRequest:
    pairs, _ = lengths()
    request = meter_service_pb2.RecordUsageRequest()
    for number in range(events):
        context, generated = pairs[number % len(pairs)]
        event = request.events.add(
            dimensions=usage_pb2.Dimensions(
                account=account_name(number % ACCOUNTS), model=model, tier=TIERS[number % 5]
            ),
            tokens=[
                usage_pb2.TokenCount(
                    token_class=usage_pb2.TOKEN_CLASS_INPUT, count=context - context // 3
                ),
                usage_pb2.TokenCount(
                    token_class=usage_pb2.TOKEN_CLASS_CACHE_READ, count=context // 3
                ),
                usage_pb2.TokenCount(token_class=usage_pb2.TOKEN_CLASS_OUTPUT, count=generated),
            ],
        )
        event.end_time.GetCurrentTime()
    return request


def _insert_rate(plant: Plant, *, seconds: float) -> float:
    """Return ids/s of a bare statement that claims 1,000 ids."""
    statement = (
        "INSERT INTO bare SELECT unnest(%s::uuid[]), gen_random_uuid(), now()"
        " ON CONFLICT DO NOTHING"
    )
    with psycopg.connect(plant.database_url) as connection:
        connection.execute("CREATE TABLE bare (LIKE event_claims INCLUDING ALL)")
        connection.commit()
        begin = time.monotonic()
        done = 0
        while time.monotonic() < begin + seconds:
            connection.execute(statement, [[uuid.uuid4() for _ in range(_CALL_EVENTS)]])
            connection.commit()
            done += _CALL_EVENTS
        took = time.monotonic() - begin
    return done / took


def _echo_rate(plant: Plant, *, seconds: float) -> float:
    """Return calls/s of a bare asyncio server that answers the same message."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.echo"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        target = server.stdout.readline().strip()
        sent = [0] * 32
        bare = Plant(target, "", "", server.pid)
        took = _in_threads(bare, _send_calls, sent, seconds=seconds, events=1)
        server.terminate()
    del plant
    return sum(sent) / took
