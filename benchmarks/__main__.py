"""`make bench`: run the rows and write build/bench.json."""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.asgi import measure_overhead
from benchmarks.billing import measure_close
from benchmarks.catching_up import measure_catch_up
from benchmarks.client import measure_record
from benchmarks.designs import (
    measure_insert_unique,
    measure_redis_counter,
    measure_upsert_counter,
)
from benchmarks.energy import measure_attribution
from benchmarks.explain import measure_explain
from benchmarks.goals import NO_GOAL, Goal, at_least, at_least_of_bound, at_most, at_most_of_bound
from benchmarks.ingest import measure_events, measure_unary
from benchmarks.machine import describe_machine
from benchmarks.measurement import Measurement
from benchmarks.queries import measure_account_month, measure_preview
from benchmarks.sources import measure_otlp
from benchmarks.spool import measure_append, measure_open
from benchmarks.streams import measure_producers, measure_rows, measure_stream
from benchmarks.workers import measure_workers

# Each row: how it is measured, its unit and its goal.
ROWS: dict[str, tuple[Callable[..., Measurement], str, Goal]] = {
    "ingest.stream": (measure_stream, "events/s", at_least(7_000_000)),
    "ingest.stream_1000": (
        partial(measure_stream, batch_events=1_000),
        "events/s",
        at_least(3_000_000),
    ),
    "ingest.stream_100": (
        partial(measure_stream, batch_events=100),
        "events/s",
        at_least(600_000),
    ),
    # No slower than one process: how much faster is a matter of cores.
    "ingest.workers_2": (measure_workers, "events/s", at_least_of_bound(1)),
    "ingest.stream_ids": (
        partial(measure_stream, has_ids=True),
        "events/s",
        at_least(3_500_000),
    ),
    "ingest.rows": (measure_rows, "events/s", at_least(300_000)),
    # In twice the time for which counting was held.
    "ingest.catch_up": (measure_catch_up, "s", at_most_of_bound(2)),
    "ingest.producers_2000": (measure_producers, "ms p99", at_most(250)),
    "ingest.events": (measure_events, "events/s", at_least(100_000)),
    "ingest.unary": (measure_unary, "calls/s", at_least_of_bound(0.8)),
    # What one would otherwise write: no goal.
    "design.insert_unique": (measure_insert_unique, "events/s", NO_GOAL),
    "design.upsert_counter": (measure_upsert_counter, "events/s", NO_GOAL),
    "design.redis_counter": (measure_redis_counter, "events/s", NO_GOAL),
    "client.record": (measure_record, "µs p99", at_most(5)),
    "client.asgi_overhead": (measure_overhead, "ms p50", at_most(0.2)),
    "query.account_month": (measure_account_month, "ms p95", at_most(50)),
    "billing.preview": (measure_preview, "ms p95", at_most(100)),
    # A hundred thousand accounts at ten seconds.
    "billing.close_100k": (measure_close, "s", at_most(60)),
    "billing.explain": (measure_explain, "s", at_most(2)),
    "energy.attribution": (measure_attribution, "s", at_most(5)),
    "sources.otlp": (measure_otlp, "spans/s", at_least(30_000)),
    # Five of these a second are what a flush interval asks for.
    "spool.append": (measure_append, "batches/s", at_least(50)),
    "spool.open": (measure_open, "s", at_most(10)),
}


def main() -> int:
    """Measure, print and write; exit 0 whatever the speed, 1 when an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run")
    parser.add_argument("--runs", type=int, default=1, help="runs of each row; the median counts")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    unknown = set(options.names) - ROWS.keys()
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    results: dict[str, Any] = {}
    if options.out.exists():
        results = json.loads(options.out.read_text("utf-8"))
    for name in options.names or ROWS:
        results[name] = measure_row(name, seconds=options.seconds, runs=options.runs)
        _show(name, results[name])
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


def measure_row(name: str, *, seconds: float, runs: int, **sizes: float) -> dict[str, Any]:
    """Return a row of build/bench.json; `sizes` are parameters of its own that make it smaller.

    Raises WrongAnswer when what was counted is not what was sent.
    """
    measure, unit, goal = ROWS[name]
    taken = []
    for number in range(runs):
        sys.stderr.write(f"{name}: run {number + 1} of {runs}\n")
        taken.append(measure(seconds, **sizes))
    value = statistics.median(item.value for item in taken)
    bound = statistics.median(item.bound for item in taken)
    unmet = sorted({words for item in taken for words in item.unmet})
    return {
        "value": round(value, 3),
        "unit": unit,
        "bound": round(bound, 3),
        "bound_of": taken[0].bound_of,
        "ratio": round(value / bound, 4),
        "runs": [round(item.value, 3) for item in taken],
        "ok": goal(value, bound) and not unmet,
        "unmet": unmet,
        "workload": taken[0].workload,
        "notes": taken[-1].notes,
        "machine": describe_machine(),
    }


def _show(name: str, row: dict[str, Any]) -> None:
    sys.stdout.write(
        f"{name:16} {row['value']:>14,.1f} {row['unit']:9} "
        f"bound {row['bound']:>14,.1f} ratio {row['ratio']:.3f} ok {row['ok']}"
        f"{''.join(f', {words}' for words in row['unmet'])}\n"
        f"    {row['workload']}\n    {row['notes']}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
