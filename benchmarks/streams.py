"""Rows of streams: what a meter records of numbered batches, beside the bare thing under it."""

import time
from typing import Final

import psycopg

from benchmarks.goals import BEHIND_SECONDS_MAX
from benchmarks.measurement import Measurement
from benchmarks.plant import Plant, running_plant
from benchmarks.processor import peak_memory_bytes
from benchmarks.recording import Recorded, record_load
from benchmarks.stream_load import stream_orders
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, Batches, Form, lengths
from tokenworks.meter.v1 import meter_service_pb2

MACHINE: Final = (
    "client, meter and Postgres on one machine; fsync, full_page_writes, synchronous_commit on"
)
# One process of the meter leaves a quarter of two cores idle: Python's lock is what it runs into.
_WORKERS: Final = 2
SETTINGS: Final = {"TOKENWORKS_WORKERS": str(_WORKERS)}
WORKERS_MACHINE: Final = f"{_WORKERS} workers; {MACHINE}"
_PRODUCERS: Final = 8
_BATCH_EVENTS: Final = 10_000
_ROWS_BATCH_EVENTS: Final = 1_000
_SMALL_EVENTS: Final = 40
_STORED_BYTES_MAX: Final = 12.0
_MEMORY_MEBIBYTES_MAX: Final = 1_024
_DECODE_SECONDS_MAX: Final = 2.0
_COPIED_SEGMENTS: Final = 200


def measure_stream(
    seconds: float, *, batch_events: int = _BATCH_EVENTS, has_ids: bool = False
) -> Measurement:
    """Record batches in planes on eight streams, beside a binary COPY of the journal's bytes."""
    orders = stream_orders(seconds=seconds, events=batch_events, has_ids=has_ids)
    with running_plant(SETTINGS) as plant:
        recorded = record_load(plant, "benchmarks.stream_load", orders)
        bound = copy_rate(plant)
    unmet = find_late(recorded)
    # The goal is of events without ids, which are 16 bytes more.
    stored_bytes = recorded.notes["stored_bytes_per_event"]
    if not has_ids and stored_bytes > _STORED_BYTES_MAX:
        unmet.append(
            f"{stored_bytes:.1f} bytes stored an event, at most {_STORED_BYTES_MAX:g} are wanted"
        )
    return Measurement(
        value=recorded.events_per_second,
        bound=bound,
        bound_of="binary COPY of the journal's own bytes, a commit each segment, events/s",
        workload=f"{seconds:g} s, {_PRODUCERS} producers, batches of {batch_events} events in"
        f" planes{' with ids' if has_ids else ''}, {world()}; {WORKERS_MACHINE}",
        notes=recorded.notes,
        unmet=unmet,
    )


def measure_rows(seconds: float) -> Measurement:
    """Record batches in rows on eight streams, beside bare decoding of the same bytes."""
    orders = stream_orders(seconds=seconds, events=_ROWS_BATCH_EVENTS, form=Form.ROWS)
    with running_plant(SETTINGS) as plant:
        recorded = record_load(plant, "benchmarks.stream_load", orders)
    return Measurement(
        value=recorded.events_per_second,
        bound=_decode_rate(seconds=min(seconds, _DECODE_SECONDS_MAX)),
        bound_of="protobuf's decoding of the same batches on one core, events/s",
        workload=f"{seconds:g} s, {_PRODUCERS} producers, batches of {_ROWS_BATCH_EVENTS} events in"
        f" rows, {world()}; {WORKERS_MACHINE}",
        notes=recorded.notes,
        unmet=find_late(recorded),
    )


def measure_producers(seconds: float, *, producers: int = 2_000) -> Measurement:
    """Record forty events a second from each of very many streams; the value is the acks' p99."""
    orders = stream_orders(
        seconds=seconds,
        events=_SMALL_EVENTS,
        producers=producers,
        events_per_second=_SMALL_EVENTS * producers,
    )
    with running_plant() as plant:
        recorded = record_load(plant, "benchmarks.stream_load", orders)
        memory_mebibytes = round(peak_memory_bytes(plant.meter_pid) / 2**20)
    unmet = find_late(recorded)
    if memory_mebibytes > _MEMORY_MEBIBYTES_MAX:
        unmet.append(
            f"{memory_mebibytes} MiB of memory, at most {_MEMORY_MEBIBYTES_MAX} are wanted"
        )
    ack_ms = recorded.report["ack_ms"]
    return Measurement(
        value=ack_ms["p99"],
        bound=1_000.0,
        bound_of="the second in which the next batch is sent, ms",
        workload=f"{seconds:g} s, {producers} producers, a batch of {_SMALL_EVENTS} events each"
        f" second in planes, {world()}; {MACHINE}",
        notes={
            "ack_ms_p50": round(ack_ms["p50"], 1),
            "ack_ms_p999": round(ack_ms["p999"], 1),
            "events_per_second": round(recorded.events_per_second),
            "memory_mebibytes": memory_mebibytes,
            **recorded.notes,
        },
        unmet=unmet,
    )


def world(accounts: int = ACCOUNTS) -> str:
    """Return in words what events are of, and where their lengths are from."""
    _, source = lengths()
    return f"{accounts} accounts × {len(MODELS)} models × {len(TIERS)} tiers, {source}"


def find_late(recorded: Recorded) -> list[str]:
    """Return a line where counting was further behind than it should be."""
    late = recorded.behind_seconds
    if late <= BEHIND_SECONDS_MAX:
        return []
    return [f"counted {late:.1f} s behind, at most {BEHIND_SECONDS_MAX:g} s are wanted"]


def copy_rate(plant: Plant) -> float:
    """Return events/s of a binary COPY of what the journal holds, a commit for each segment."""
    with psycopg.connect(plant.database_url) as connection:
        rows = connection.execute(
            "SELECT position, event_count, body FROM journal ORDER BY position LIMIT %s",
            (_COPIED_SEGMENTS,),
        ).fetchall()
        connection.execute("DROP TABLE IF EXISTS copied")
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


def _decode_rate(*, seconds: float) -> float:
    """Return events/s of decoding alone, in one thread, of batches as a producer sends them."""
    pairs, _ = lengths()
    batches = Batches(
        seed=0, events=_ROWS_BATCH_EVENTS, model=MODELS[0], pairs=pairs, form=Form.ROWS
    )
    messages = [batches.message(number) for number in range(1, 1 + len(batches.payloads))]
    begin, done = time.monotonic(), 0
    while time.monotonic() < begin + seconds:
        for message in messages:
            meter_service_pb2.StreamUsageRequest.FromString(message)
        done += len(messages) * _ROWS_BATCH_EVENTS
    return done / (time.monotonic() - begin)
