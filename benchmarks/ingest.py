"""Rows of calls: what a meter records by event id, beside the bare thing under it."""

import re
import secrets
import subprocess
import sys
import threading
import time
from typing import Any

import grpc
import numpy as np
import psycopg
from psycopg import pq

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import Plant, running_plant
from benchmarks.recording import Standing
from benchmarks.streams import MACHINE
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name, lengths
from meter.runtime.trips import UUID, to_array
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

_CALL_EVENTS = 1_000
_ID_BYTES = 16
# What stands in a call where its ids are to be.
_NO_ID = "#" * (2 * _ID_BYTES)
_RECORD_USAGE = "/tokenworks.meter.v1.MeterService/RecordUsage"
_BOUND_SECONDS_MAX = 5.0


def measure_events(seconds: float) -> Measurement:
    """Record calls of 1,000 events by id, beside bare INSERT … ON CONFLICT of as many ids."""
    with running_plant() as plant:
        sent = [0] * 4
        before, own_before = Standing.of(plant), time.process_time()
        took = _in_threads(plant, _send_calls, sent, seconds=seconds, events=_CALL_EVENTS)
        own_seconds = time.process_time() - own_before
        plant.wait_until_counted(seconds=60)
        taken = Standing.of(plant).since(before, events=sum(sent))
        counted = plant.query("SELECT coalesce(sum(request_count), 0) FROM usage")[0]
        check_answer(counted=counted, sent=sum(sent))
        bound = _insert_rate(plant, seconds=min(seconds, _BOUND_SECONDS_MAX))
    return Measurement(
        value=sum(sent) / took,
        bound=bound,
        bound_of="INSERT … ON CONFLICT DO NOTHING of 1,000 ids a statement, one connection",
        workload=f"{seconds:g} s, 4 callers, RecordUsage of {_CALL_EVENTS} events with ids; "
        f"{MACHINE}",
        notes={
            **taken,
            "processor_seconds_per_million_load": round(1e6 * own_seconds / sum(sent), 4),
        },
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
    request: bytes,
) -> None:
    """Send a call again and again, with ids that no other has written over the last one's."""
    record: Any = grpc.insecure_channel(target).unary_unary(_RECORD_USAGE)
    own = np.frombuffer(bytearray(request), np.uint8)
    begins = [found.start() for found in re.finditer(_NO_ID.encode(), request)]
    ids = np.lib.stride_tricks.sliding_window_view(own, len(_NO_ID), writeable=True)
    recorded = meter_service_pb2.RecordUsageResponse(
        outcomes=[outcome_pb2.OUTCOME_RECORDED] * len(begins)
    ).SerializeToString()
    while time.monotonic() < deadline:
        digits = secrets.token_hex(_ID_BYTES * len(begins)).encode()
        ids[begins] = np.frombuffer(digits, np.uint8).reshape(-1, len(_NO_ID))
        assert record(own.tobytes(), metadata=metadata) == recorded
        sent[place] += len(begins)


def _call(events: int, *, model: str) -> bytes:
    pairs, _ = lengths()
    request = meter_service_pb2.RecordUsageRequest()
    for number in range(events):
        context, generated = pairs[number % len(pairs)]
        event = request.events.add(
            event_id=_NO_ID,
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
    return request.SerializeToString()


def _insert_rate(plant: Plant, *, seconds: float) -> float:
    """Return ids/s of a bare statement that claims 1,000 ids, which are sent as Postgres has them.

    They come sorted, as the meter's do: an index takes them in two thirds of the time.
    """
    statement = (
        b"INSERT INTO bare SELECT k, c, now() FROM unnest($1::uuid[], $2::uuid[]) AS n (k, c)"
        b" ORDER BY 1 ON CONFLICT DO NOTHING"
    )
    contents = to_array(UUID, _random_ids())
    with psycopg.connect(plant.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE bare (LIKE event_claims INCLUDING ALL)")
        driver = connection.pgconn
        driver.prepare(b"claim", statement)
        begin = time.monotonic()
        done = 0
        while time.monotonic() < begin + seconds:
            values = [to_array(UUID, _random_ids()), contents]
            result = driver.exec_prepared(b"claim", values, [pq.Format.BINARY] * 2)
            check_answer(counted=result.command_tuples, sent=_CALL_EVENTS)
            done += _CALL_EVENTS
        took = time.monotonic() - begin
    return done / took


def _random_ids() -> list[bytes]:
    """Return what one statement claims."""
    drawn = np.frombuffer(secrets.token_bytes(_ID_BYTES * _CALL_EVENTS), f"V{_ID_BYTES}")
    ids: list[bytes] = drawn.tolist()
    return ids


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
