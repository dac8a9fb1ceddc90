"""How ingest grows: with batches, dimensions, producers, workers, and events in the journal.

`python -m benchmarks.growth` takes the points of each sweep and writes them as JSON, a file for
each; `--plot` draws what lies there and takes nothing. Each point is a plant of its own, whose SQL
totals are checked; all names are known to it before the clock starts.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.growth_plots import draw_all
from benchmarks.load import Load
from benchmarks.machine import describe_machine
from benchmarks.measurement import check_answer
from benchmarks.names import put_down_names
from benchmarks.plant import Plant, running_plant
from benchmarks.recording import Standing, check_counted, counted_of, load_on, record_load
from benchmarks.stream_load import stream_orders
from benchmarks.streams import copy_rate
from benchmarks.workload import ACCOUNTS, DISTINCT_EVENTS, MODELS, TIERS, lengths

MEASURED: Final = Path(__file__).parent / "measured"
IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"
_BATCHES: Final = (10, 30, 100, 300, 1_000, 3_000, 10_000)
_DIMENSIONS: Final = (1_000, 10_000, 100_000, 1_000_000)
_PRODUCERS: Final = (1, 8, 64, 512, 2_000)
_WORKERS: Final = (1, 2, 4, 8)
_SKUS: Final = len(MODELS) * len(TIERS)
_BATCH_EVENTS: Final = 10_000
_PRODUCERS_BATCH_EVENTS: Final = 1_000
# The system throws dice for each connection: of so many no worker has much more than its share.
_WORKERS_STREAMS: Final = 64
_WORKERS_BATCH_EVENTS: Final = 100
# Of each dimension a load has so many events before its batches repeat.
_EVENTS_A_DIMENSION: Final = 3
_STREAMS: Final = 8
_JOURNAL_FIRST: Final = 1_000_000
# Points of the sweep of the journal, by the power of ten that they are within.
_STEPS: Final = (1, 2, 5)
_LOOK_SECONDS: Final = 0.25
_WARMING_SECONDS_MAX: Final = 900.0
_LONG_SECONDS: Final = 24 * 3_600.0

Point = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much a sweep takes: seconds a point, and how far it goes."""

    seconds: float
    events_max: int
    dimensions_max: int
    producers_max: int
    workers_max: int


def sweep_batch(sizes: Sizes) -> Iterator[Point]:
    """Yield a point for each size of a batch, from eight streams."""
    for events in _BATCHES:
        orders = stream_orders(seconds=sizes.seconds, events=events)
        yield {"events_a_batch": events, **_take("benchmarks.stream_load", orders)}


def sweep_dimensions(sizes: Sizes) -> Iterator[Point]:
    """Yield a point for so many dimensions, which are accounts × 4 models × 5 tiers."""
    for dimensions in _DIMENSIONS:
        if dimensions > sizes.dimensions_max:
            return
        accounts = dimensions // _SKUS
        distinct_events = max(DISTINCT_EVENTS, dimensions * _EVENTS_A_DIMENSION // _STREAMS)
        orders = stream_orders(
            seconds=sizes.seconds, accounts=accounts, distinct_events=distinct_events
        )
        point = _take(
            "benchmarks.stream_load", orders, accounts=accounts, distinct_events=distinct_events
        )
        yield {"dimensions": dimensions, **point}


def sweep_producers(sizes: Sizes) -> Iterator[Point]:
    """Yield a point for each number of streams, which send as fast as they are acknowledged."""
    for producers in _PRODUCERS:
        if producers > sizes.producers_max:
            return
        orders = stream_orders(
            seconds=sizes.seconds, events=_PRODUCERS_BATCH_EVENTS, producers=producers
        )
        yield {"producers": producers, **_take("benchmarks.stream_load", orders)}


def sweep_workers(sizes: Sizes) -> Iterator[Point]:
    """Yield a point for each number of workers; a second one needs a core that nobody else has."""
    orders = stream_orders(
        seconds=sizes.seconds,
        events=_WORKERS_BATCH_EVENTS,
        producers=_WORKERS_STREAMS,
        is_apart=True,
    )
    for workers in _WORKERS:
        if workers > sizes.workers_max:
            return
        settings = {"TOKENWORKS_WORKERS": str(workers)}
        yield {
            "workers": workers,
            **_take("benchmarks.stream_load", orders, settings=settings),
        }


def sweep_journal(sizes: Sizes) -> Iterator[Point]:
    """Yield what it was from point to point, while one journal grows; totals are checked at last.

    The bound is taken in the end, of the first segments.
    """
    orders = stream_orders(seconds=_LONG_SECONDS)
    with running_plant(put_down=put_down_names) as plant:
        _warm(plant, accounts=ACCOUNTS, distinct_events=DISTINCT_EVENTS)
        counted = counted_of(plant)
        with load_on(plant, "benchmarks.stream_load", orders) as load:
            points = list(_follow(plant, load, events_max=sizes.events_max))
            load.stop()
            report = load.report()
        plant.wait_until_counted(seconds=_WARMING_SECONDS_MAX)
        check_counted(plant, report, before=counted)
        bound = copy_rate(plant)
    for point in points:
        yield {**point, "bound": round(bound)}


def _follow(plant: Plant, load: Load, *, events_max: int) -> Iterator[Point]:
    """Yield a point each time that the journal has grown to the next number of events."""
    before, before_seconds = Standing.of(plant), time.monotonic()
    behind_seconds = 0.0
    for goal in _goals(events_max):
        if goal <= before.events:
            # What made the names known was more than that.
            continue
        while (now := Standing.of(plant)).events < goal:
            behind_seconds = max(behind_seconds, plant.counted_behind_seconds())
            assert not load.wait(_LOOK_SECONDS), "the load goes on until it is stopped"
        now_seconds = time.monotonic()
        events = now.events - before.events
        yield {
            "events_in_journal": now.events,
            "events_per_second": round(events / (now_seconds - before_seconds)),
            "counted_behind_seconds_max": round(behind_seconds, 2),
            **now.since(before, events=events),
        }
        before, before_seconds, behind_seconds = now, now_seconds, 0.0


def _goals(events_max: int) -> Iterator[int]:
    for power in itertools.count():
        for step in _STEPS:
            goal = _JOURNAL_FIRST * step * 10**power
            if goal > events_max:
                return
            yield goal


def _take(
    module: str,
    orders: dict[str, Any],
    *,
    accounts: int = ACCOUNTS,
    distinct_events: int = DISTINCT_EVENTS,
    settings: Mapping[str, str] | None = None,
) -> Point:
    """Return a point: the load on a plant that knows all names, with such settings of its meter."""
    with running_plant(settings, put_down=partial(put_down_names, accounts=accounts)) as plant:
        _warm(plant, accounts=accounts, distinct_events=distinct_events)
        recorded = record_load(plant, module, orders)
        # None was new while the clock ran.
        known = plant.query("SELECT count(*) FROM dimensions")[0]
        check_answer(counted=known, sent=accounts * _SKUS)
        bound = copy_rate(plant)
    return {
        "events_per_second": round(recorded.events_per_second),
        "bound": round(bound),
        **recorded.notes,
    }


def _warm(plant: Plant, *, accounts: int, distinct_events: int) -> None:
    """Have the meter hear of all names, and count them."""
    orders = stream_orders(
        seconds=_WARMING_SECONDS_MAX,
        accounts=accounts,
        distinct_events=distinct_events,
        is_once=True,
    )
    record_load(plant, "benchmarks.stream_load", orders)


# By name: what takes the points, and in words of what they are.
SWEEPS: Final[dict[str, tuple[Callable[[Sizes], Iterator[Point]], str]]] = {
    "batch": (sweep_batch, "8 streams in planes, 20,000 dimensions"),
    "dimensions": (sweep_dimensions, "8 streams, batches of 10,000 events in planes"),
    "producers": (
        sweep_producers,
        "batches of 1,000 events in planes as fast as they are acknowledged, 20,000 dimensions",
    ),
    "workers": (
        sweep_workers,
        "64 streams, a connection each, batches of 100 events in planes, 20,000 dimensions",
    ),
    "journal": (
        sweep_journal,
        "one run of 8 streams, batches of 10,000 events in planes, 20,000 dimensions",
    ),
}


def main() -> int:
    """Take the sweeps that are asked for, or draw those that were taken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--out", type=Path, default=MEASURED, help="folder of the points, as JSON")
    parser.add_argument("--only", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--plot", action="store_true", help="draw the points that are there")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of the pictures")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a point")
    parser.add_argument("--events-max", type=int, default=10**9, help="events in the journal")
    parser.add_argument("--dimensions-max", type=int, default=_DIMENSIONS[-1])
    parser.add_argument("--producers-max", type=int, default=_PRODUCERS[-1])
    parser.add_argument("--workers-max", type=int, default=_WORKERS[-1])
    options = parser.parse_args()
    if options.plot:
        draw_all(options.out, options.images)
        return 0
    sizes = Sizes(
        seconds=options.seconds,
        events_max=options.events_max,
        dimensions_max=options.dimensions_max,
        producers_max=options.producers_max,
        workers_max=options.workers_max,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        sweep = take_sweep(name, sizes)
        path = options.out / f"growth-{name}.json"
        path.write_text(json.dumps(sweep, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


def take_sweep(name: str, sizes: Sizes) -> dict[str, Any]:
    """Return the points of a sweep, on what they were taken, and of which workload."""
    sweep, words = SWEEPS[name]
    _, source = lengths()
    points = []
    for point in sweep(sizes):
        points.append(point)
        sys.stderr.write(f"{name}: {point}\n")
    return {
        "sweep": name,
        "workload": f"{words}, {source}, {sizes.seconds:g} s a point",
        "machine": describe_machine(),
        "points": points,
    }


if __name__ == "__main__":
    sys.exit(main())
