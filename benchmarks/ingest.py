"""Rows of ingest: what a meter records in a second, beside the bare thing under it."""

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

import grpc
import psycopg

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import Plant, running_plant
from benchmarks.processor import main_thread_seconds, peak_memory_bytes, processor_seconds
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name, lengths
from tokenworks.meter.v1 import meter_service_pb2, meter_service_pb2_grpc, usage_pb2

_PRODUCERS = 8
_BATCH_EVENTS = 10_000
_CALL_EVENTS = 1_000
_SMALL_EVENTS = 40
_BOUND_SECONDS_MAX = 5.0
_WAL = "SELECT pg_current_wal_insert_lsn() - '0/0'"
# The months of a partitioned table count each for itself.
_JOURNAL = (
    "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('journal') WHERE isleaf"
)
_MACHINE = (
    "client, meter and Postgres on one machine; fsync, full_page_writes, synchronous_commit on"
)


def measure_stream(
    seconds: float, *, batch_events: int = _BATCH_EVENTS, has_ids: bool = False
) -> Measurement:
    """Record batches in planes on eight streams, beside a binary COPY of the journal's bytes."""
    _, source = lengths()
    with running_plant() as plant:
        wal_bytes = plant.query(_WAL)[0]
        before = _processor_seconds(plant)
        report = _run_stream_load(
            plant, seconds=seconds, batch_events=batch_events, has_ids=has_ids
        )
        lag_seconds = plant.wait_until_counted(seconds=60)
        after = _processor_seconds(plant)
        tokens, events = plant.query(
            "SELECT sum(input + cache_read + output), sum(request_count) FROM usage"
        )
        check_answer(counted=(tokens, events), sent=(report["tokens"], report["events"]))
        wal_bytes = plant.query(_WAL)[0] - wal_bytes
        journal_bytes = plant.query(_JOURNAL)[0]
        usage_bytes, rows = plant.query(
            "SELECT pg_total_relation_size('usage'), count(*) FROM usage"
        )
        bound = _copy_rate(plant)
    return Measurement(
        value=report["events"] / report["seconds"],
        bound=bound,
        bound_of="binary COPY of the journal's own bytes, a commit each segment, events/s",
        workload=f"{seconds:g} s, {_PRODUCERS} producers, batches of {batch_events} events in"
        f" planes{' with ids' if has_ids else ''}, {ACCOUNTS} accounts × {len(MODELS)} models ×"
        f" {len(TIERS)} tiers, {source}; {_MACHINE}",
        notes={
            "counted_behind_seconds": round(lag_seconds, 2),
            "stored_bytes_per_event": round(int(journal_bytes) / report["events"], 2),
            "wal_bytes_per_event": round(int(wal_bytes) / report["events"], 2),
            "usage_bytes_per_row": round(usage_bytes / rows, 1),
            "sent_bytes_per_event": round(report["bytes"] / report["events"], 2),
            # Microseconds an event are seconds a million.
            **{
                f"processor_seconds_per_million_{name}": round(
                    (after[name] - before[name]) / report["events"] * 1e6, 4
                )
                for name in after
            },
            "processor_seconds_per_million_load": round(
                report["processor_seconds"] / report["events"] * 1e6, 4
            ),
        },
    )


def _processor_seconds(plant: Plant) -> dict[str, float]:
    """Return how long the parts of a plant had a core by now, in seconds."""
    return {
        "meter": processor_seconds(plant.meter_pid),
        "meter_loop": main_thread_seconds(plant.meter_pid),
        "postgres": processor_seconds(plant.find_postgres_pid()),
    }


def measure_producers(seconds: float, *, producers: int = 2_000) -> Measurement:
    """Record forty events a second from each of very many streams; the value is the acks' p99."""
    _, source = lengths()
    with running_plant() as plant:
        before = _processor_seconds(plant)
        orders = {
            "target": plant.target,
            "api_key": plant.api_key,
            "events": _SMALL_EVENTS,
            "producers": producers,
            "seconds": seconds,
        }
        report = _run_load("benchmarks.producers_load", orders)
        plant.wait_until_counted(seconds=60)
        after = _processor_seconds(plant)
        rss_bytes = peak_memory_bytes(plant.meter_pid)
        counted = plant.query(
            "SELECT sum(input + cache_read + output), sum(request_count) FROM usage"
        )
        check_answer(counted=tuple(counted), sent=(report["tokens"], report["events"]))
    return Measurement(
        value=report["ack_ms"]["p99"],
        bound=1_000.0,
        bound_of="the second in which the next batch is sent, ms",
        workload=f"{seconds:g} s, {producers} producers, a batch of {_SMALL_EVENTS} events each"
        f" second in planes, {ACCOUNTS} accounts × {len(MODELS)} models × {len(TIERS)} tiers,"
        f" {source}; {_MACHINE}",
        notes={
            "ack_ms_p50": round(report["ack_ms"]["p50"], 1),
            "ack_ms_p999": round(report["ack_ms"]["p999"], 1),
            "events_per_second": round(report["events"] / report["seconds"]),
            "memory_mebibytes": round(rss_bytes / 2**20),
            **{
                f"processor_seconds_per_second_{name}": round(
                    (after[name] - before[name]) / report["seconds"], 3
                )
                for name in after
            },
        },
    )


def measure_events(seconds: float) -> Measurement:
    """Record calls of 1,000 events by id, beside bare INSERT … ON CONFLICT of as many ids."""
    with running_plant() as plant:
        sent = [0] * 4
        took = _in_threads(plant, _send_calls, sent, seconds=seconds, events=_CALL_EVENTS)
        plant.wait_until_counted(seconds=60)
        counted = plant.query("SELECT coalesce(sum(request_count), 0) FROM usage")[0]
        check_answer(counted=counted, sent=sum(sent))
        bound = _insert_rate(plant)
    return Measurement(
        value=sum(sent) / took,
        bound=bound,
        bound_of="INSERT … ON CONFLICT DO NOTHING of 1,000 ids a statement, one connection",
        workload=f"{seconds:g} s, 4 callers, RecordUsage of {_CALL_EVENTS} events with ids; "
        f"{_MACHINE}",
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
        f" of calls lifted; {_MACHINE}",
    )


def _run_stream_load(
    plant: Plant, *, seconds: float, batch_events: int, has_ids: bool
) -> dict[str, Any]:
    orders = {
        "target": plant.target,
        "api_key": plant.api_key,
        "events": batch_events,
        "has_ids": has_ids,
        "producers": _PRODUCERS,
        "seconds": seconds,
    }
    return _run_load("benchmarks.stream_load", orders)


def _run_load(module: str, orders: Mapping[str, Any]) -> dict[str, Any]:
    """Run a load as a process of its own, from when it is ready on; return what it reports."""
    with subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        load.stdin.write(json.dumps(orders) + "\n")
        load.stdin.flush()
        load.stdout.readline()
        load.stdin.write("\n")
        load.stdin.flush()
        report: dict[str, Any] = json.loads(load.stdout.readline())
    return report


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


def _copy_rate(plant: Plant) -> float:
    """Return events/s of a binary COPY of what the journal holds, a commit for each segment."""
    with psycopg.connect(plant.database_url) as connection:
        rows = connection.execute(
            "SELECT position, event_count, body FROM journal ORDER BY position LIMIT 200"
        ).fetchall()
        connection.execute("CREATE TABLE copied (position bigint, body bytea STORAGE EXTERNAL)")
        connection.commit()
        begin = time.monotonic()
        done = 0
        for position, count, body in rows:
            with connection.cursor().copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["int8", "bytea"])
                copy.write_row((position, body))
            connection.commit()
            done += count
        took = time.monotonic() - begin
    return float(done / took)


def _insert_rate(plant: Plant) -> float:
    """Return ids/s of a bare statement that claims 1,000 ids, for up to five seconds."""
    statement = (
        "INSERT INTO bare SELECT unnest(%s::uuid[]), gen_random_uuid(), now()"
        " ON CONFLICT DO NOTHING"
    )
    with psycopg.connect(plant.database_url) as connection:
        connection.execute("CREATE TABLE bare (LIKE event_claims INCLUDING ALL)")
        connection.commit()
        begin = time.monotonic()
        done = 0
        while time.monotonic() < begin + _BOUND_SECONDS_MAX:
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
