"""Where the time of a row goes: `python -m benchmarks.profile ROW` runs it and prints tables.

How long each thread of the meter and each process of Postgres had a core; statements, by
pg_stat_statements; reads, writes and syncs, by pg_stat_io, which Postgres has from 16 on; and,
where `perf` and `py-spy` are installed, functions. All are of a row from when its meter is ready
until the row is done with it, the bound included where that is taken of the same database. Watching
costs something: a speed is what `python -m benchmarks` says.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg

from benchmarks.__main__ import ROWS, measure_row
from benchmarks.plant import WATCH, Plant, Watch
from benchmarks.processor import processor_seconds, serving_pids, thread_seconds
from benchmarks.samplers import sampled

_SETTINGS: Final = {
    "shared_preload_libraries": "pg_stat_statements",
    "track_io_timing": "on",
    "track_wal_io_timing": "on",
}
_SHOWN: Final = 15
_CHARS_MAX: Final = 90
_STATEMENTS: Final[LiteralString] = r"""
SELECT calls, round(total_exec_time), round(mean_exec_time::numeric, 2), rows,
    round(wal_bytes / 1e6, 1), regexp_replace(query, '\s+', ' ', 'g')
FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT %s
"""
_PROCESSES: Final[LiteralString] = (
    "SELECT pid, backend_type FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
)
_IO_COUNTS: Final = ("reads", "writes", "extends", "fsyncs")
_IO_TIMES: Final = ("read_time", "write_time", "extend_time", "fsync_time")
_IO: Final[LiteralString] = """
SELECT backend_type || ', ' || object || ', ' || context, reads, writes, extends, fsyncs,
    read_time, write_time, extend_time, fsync_time
FROM pg_stat_io
"""
Rows = Sequence[Sequence[object]]


@contextmanager
def _watching(plant: Plant) -> Iterator[None]:
    """Print what a plant does meanwhile."""
    with psycopg.connect(plant.database_url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        connection.execute("SELECT pg_stat_statements_reset()")
        io_before, seconds_before = _io(connection), _seconds(connection, plant)
        with sampled(plant.meter_pid) as functions:
            yield
            seconds = _seconds(connection, plant)
            statements = connection.execute(_STATEMENTS, (_SHOWN,)).fetchall()
            io = _io(connection)
    print_table("Seconds on a core", ("s", "who"), _used(seconds_before, seconds))
    heads = ("calls", "ms", "ms a call", "rows", "MB of log", "statement")
    print_table("Statements", heads, statements)
    print_table(
        "Reads and writes, times in ms", (*_IO_COUNTS, *_IO_TIMES, "who"), _gained(io_before, io)
    )
    for title, rows in functions.items():
        print_table(title, ("%", "where"), rows)


def _seconds(connection: psycopg.Connection, plant: Plant) -> dict[tuple[int, str], float]:
    """Return how long threads of the meter and processes of Postgres had a core by now."""
    found = {
        (thread, f"meter: {'event loop' if thread == pid else 'a thread'}"): seconds
        for pid in serving_pids(plant.meter_pid)
        for thread, seconds in thread_seconds(pid).items()
    }
    for pid, name in connection.execute(_PROCESSES).fetchall():
        found[pid, f"Postgres: {name}"] = processor_seconds(pid)
    return found


def _used(before: dict[tuple[int, str], float], after: dict[tuple[int, str], float]) -> Rows:
    begun = {number: seconds for (number, _), seconds in before.items()}
    used = [(seconds - begun.get(number, 0.0), name) for (number, name), seconds in after.items()]
    return [(f"{seconds:.2f}", name) for seconds, name in sorted(used, reverse=True)[:_SHOWN]]


def _io(connection: psycopg.Connection) -> dict[str, list[float]]:
    if connection.info.server_version < 160_000:
        return {}
    return {name: [value or 0 for value in values] for name, *values in connection.execute(_IO)}


def _gained(before: dict[str, list[float]], after: dict[str, list[float]]) -> Rows:
    """Return what was gained where anything was, by the time that it took."""
    gained = {
        name: [round(now - then) for now, then in zip(values, before[name], strict=True)]
        for name, values in after.items()
    }
    times = slice(len(_IO_COUNTS), None)
    order = sorted(gained, key=lambda name: sum(gained[name][times]), reverse=True)
    return [(*gained[name], name) for name in order if any(gained[name])]


def print_table(title: str, heads: Sequence[str], rows: Rows) -> None:
    """Print a table whose last column is words, the others numbers."""
    cells = [[str(cell)[:_CHARS_MAX] for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for *numbers, words in cells:
        aligned = [f"{it:>{width}}" for it, width in zip(numbers, widths, strict=False)]
        print("  " + "  ".join([*aligned, words]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a row and print; exit 2 when it starts no meter, and there is nothing to look at."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile")
    parser.add_argument("row", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the run")
    options = parser.parse_args(arguments)
    watched: list[Plant] = []

    @contextmanager
    def around(plant: Plant) -> Iterator[None]:
        watched.append(plant)
        with _watching(plant):
            yield

    token = WATCH.set(Watch(postgres_settings=_SETTINGS, around=around))
    try:
        row: dict[str, Any] = measure_row(options.row, seconds=options.seconds, runs=1)
    finally:
        WATCH.reset(token)
    if not watched:
        parser.error(f"{options.row} starts no meter")
    print(f"\n{options.row}: {row['value']:,.1f} {row['unit']} while watched")
    print(f"  {row['workload']}\n  {row['notes']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
