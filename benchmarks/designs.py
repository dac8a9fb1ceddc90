"""What one would otherwise write, honestly small: the same events, each by a statement of its own.

Eight senders on one machine with the database, as the rows of ingest have it. A hundred events are
a transaction, sent in a pipeline, so that neither a commit nor a round trip is paid for each.
"""

import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import psycopg

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import bench_folder, running_postgres
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name, lengths

_SENDERS: Final = 8
_AT_ONCE: Final = 100
_COPY_SECONDS: Final = 2.0
_START_SECONDS_MAX: Final = 20.0
_TABLES: Final = """
CREATE TABLE events (
    event_id uuid PRIMARY KEY, account text NOT NULL, model text NOT NULL, tier text NOT NULL,
    end_time timestamptz NOT NULL, input bigint NOT NULL, output bigint NOT NULL
);
CREATE TABLE counters (
    account text, model text, tier text, hour timestamptz,
    input bigint NOT NULL, output bigint NOT NULL, request_count bigint NOT NULL,
    PRIMARY KEY (account, model, tier, hour)
);
"""
_INSERT: Final = "INSERT INTO events VALUES (%s, %s, %s, %s, now(), %s, %s) ON CONFLICT DO NOTHING"
_UPSERT: Final = """
INSERT INTO counters AS c VALUES (%s, %s, %s, date_trunc('hour', now()), %s, %s, 1)
ON CONFLICT (account, model, tier, hour) DO UPDATE SET input = c.input + EXCLUDED.input,
    output = c.output + EXCLUDED.output, request_count = c.request_count + 1
"""
Event = tuple[str, str, str, int, int]
Send = Callable[[Sequence[Event]], None]


def measure_insert_unique(seconds: float) -> Measurement:
    """Insert each event as a row with a unique id: exactly once, and nothing summed yet."""

    def insert(connection: psycopg.Connection, events: Sequence[Event]) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(_INSERT, [(uuid.uuid4(), *event) for event in events])
        connection.commit()

    return _measure_sql(
        seconds,
        insert,
        answer="SELECT sum(input)::bigint, sum(output)::bigint, count(*) FROM events",
        what="INSERT … ON CONFLICT DO NOTHING by a unique id",
    )


def measure_upsert_counter(seconds: float) -> Measurement:
    """Add each event to a counter by account, model, tier and hour: a repeat counts twice."""

    def upsert(connection: psycopg.Connection, events: Sequence[Event]) -> None:
        # In one order: else two senders wait for each other's rows.
        with connection.cursor() as cursor:
            cursor.executemany(_UPSERT, sorted(events))
        connection.commit()

    return _measure_sql(
        seconds,
        upsert,
        answer="SELECT sum(input)::bigint, sum(output)::bigint, sum(request_count)::bigint"
        " FROM counters",
        what="INSERT … ON CONFLICT DO UPDATE of a counter",
    )


def measure_redis_counter(seconds: float) -> Measurement:
    """Add each event to hashes in Redis, every write on disk: a repeat counts twice."""
    if shutil.which("redis-server") is None:
        raise SystemExit("design.redis_counter needs redis-server, which Debian has: not run")
    with bench_folder() as folder, _running_redis(folder) as path, running_postgres(folder) as url:
        with ExitStack() as stack:
            connections = [stack.enter_context(_connected(path)) for _ in range(_SENDERS)]
            sent, took = _send([_redis_sender(each) for each in connections], seconds=seconds)
            connections[0].sendall(_command("HMGET", "all", "input", "output", "requests"))
            counted = _read_numbers(connections[0], count=3)
        check_answer(counted=counted, sent=sent)
        bound = _copy_rate(url)
    return _measurement(sent[2] / took, bound=bound, seconds=seconds, what="HINCRBY, appendfsync")


def _measure_sql(
    seconds: float,
    store: Callable[[psycopg.Connection, Sequence[Event]], None],
    *,
    answer: str,
    what: str,
) -> Measurement:
    with bench_folder() as folder, running_postgres(folder) as url:
        with psycopg.connect(url) as connection:
            connection.execute(_TABLES)
        connections = [psycopg.connect(url) for _ in range(_SENDERS)]

        def sender(connection: psycopg.Connection) -> Send:
            return lambda events: store(connection, events)

        sent, took = _send([sender(each) for each in connections], seconds=seconds)
        for each in connections:
            each.close()
        with psycopg.connect(url) as connection:
            counted = connection.execute(answer.encode()).fetchone()
        check_answer(counted=counted, sent=sent)
        bound = _copy_rate(url)
    return _measurement(sent[2] / took, bound=bound, seconds=seconds, what=what)


def _measurement(value: float, *, bound: float, seconds: float, what: str) -> Measurement:
    _, source = lengths()
    return Measurement(
        value=value,
        bound=bound,
        bound_of="binary COPY of the same events as rows, without any key, events/s",
        workload=f"{seconds:g} s, {_SENDERS} senders, {what}, {_AT_ONCE} events a transaction in a"
        f" pipeline, {ACCOUNTS} accounts × {len(MODELS)} models × {len(TIERS)} tiers, {source};"
        " senders and database on one machine, every commit on disk",
    )


def _send(senders: Sequence[Send], *, seconds: float) -> tuple[tuple[int, int, int], float]:
    """Send until the time is over; return input, output and events, and the seconds it took."""
    pairs, _ = lengths()
    sums = [[0, 0, 0] for _ in senders]
    begin = time.monotonic()

    def run(place: int) -> None:
        number = place * 1_000
        while time.monotonic() < begin + seconds:
            events = [_event(number + step, place, pairs) for step in range(_AT_ONCE)]
            number += _AT_ONCE
            senders[place](events)
            sums[place][0] += sum(event[3] for event in events)
            sums[place][1] += sum(event[4] for event in events)
            sums[place][2] += len(events)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(senders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begin
    tokens_in, tokens_out, count = (sum(column) for column in zip(*sums, strict=True))
    return (tokens_in, tokens_out, count), took


def _event(number: int, place: int, pairs: Sequence[tuple[int, int]]) -> Event:
    context, generated = pairs[number % len(pairs)]
    # Spread by a prime, so that neighbours are of different accounts.
    account = account_name(number * 7_919 % ACCOUNTS)
    return (account, MODELS[place % len(MODELS)], TIERS[number % len(TIERS)], context, generated)


def _copy_rate(url: str) -> float:
    pairs, _ = lengths()
    done = 0
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS copied (event_id uuid, account text,"
            " model text, tier text, end_time timestamptz, input bigint,"
            " output bigint)"
        )
        connection.commit()
        begin = time.monotonic()
        while time.monotonic() < begin + _COPY_SECONDS:
            rows = [(uuid.uuid4(), *_event(done + step, 0, pairs)) for step in range(10_000)]
            with connection.cursor().copy(
                "COPY copied (event_id, account, model, tier, input, output)"
                " FROM STDIN (FORMAT binary)"
            ) as copy:
                copy.set_types(["uuid", "text", "text", "text", "int8", "int8"])
                for row in rows:
                    copy.write_row(row)
            connection.commit()
            done += len(rows)
        took = time.monotonic() - begin
    return done / took


@contextmanager
def _running_redis(folder: Path) -> Iterator[str]:
    path = str(folder / "redis.sock")
    options = ("--port", "0", "--unixsocket", path, "--dir", str(folder), "--save", "")
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with subprocess.Popen(
        ["redis-server", *options, *durable], stdout=subprocess.DEVNULL, env=dict(os.environ)
    ) as server:
        try:
            give_up = time.monotonic() + _START_SECONDS_MAX
            while not Path(path).exists():
                if time.monotonic() > give_up:
                    raise TimeoutError("redis-server does not start")
                time.sleep(0.05)
            yield path
        finally:
            server.terminate()


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def _redis_sender(connection: socket.socket) -> Send:
    def send(events: Sequence[Event]) -> None:
        commands = [
            _command("HINCRBY", key, name, str(count))
            for account, model, tier, context, generated in events
            for key in (f"{account}:{model}:{tier}", "all")
            for name, count in (("input", context), ("output", generated), ("requests", 1))
        ]
        connection.sendall(b"".join(commands))
        _read_numbers(connection, count=len(commands))

    return send


def _command(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def _read_numbers(connection: socket.socket, *, count: int) -> tuple[int, ...]:
    """Read so many answers that are numbers, alone or in an array of texts."""
    data = b""
    while True:
        data += connection.recv(1 << 20)
        lines = data.split(b"\r\n")[:-1]
        values = [line for line in lines if not line.startswith((b"*", b"$"))]
        if len(values) >= count:
            return tuple(int(value.lstrip(b":")) for value in values)
