"""The row of catching up: counting is held while events go on coming, and is then let go."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from benchmarks.goals import BEHIND_SECONDS_MAX
from benchmarks.load import Load
from benchmarks.measurement import Measurement
from benchmarks.plant import Plant, running_plant
from benchmarks.recording import check_counted, load_on
from benchmarks.stream_load import stream_orders
from benchmarks.streams import SETTINGS, WORKERS_MACHINE, world

_EVENTS_PER_SECOND: Final = 3_500_000
# A load that is paced ends a batch of each producer early or late.
_RATE_MET: Final = 0.98
_BATCH_EVENTS: Final = 10_000
# The load ends when counting has caught up, or has had so many times the hold without doing so.
_PATIENCE: Final = 6
_LOOK_SECONDS: Final = 0.1
_BEGIN_SECONDS_MAX: Final = 60.0
_DRAIN_SECONDS_MAX: Final = 900.0
_RECORDED: Final = "SELECT coalesce(sum(event_count), 0) FROM journal"


def measure_catch_up(
    seconds: float, *, events_per_second: float = _EVENTS_PER_SECOND
) -> Measurement:
    """Hold counting for `seconds` under load; the value is how long it then takes to catch up.

    It has caught up when what is not counted is at most five seconds old, which a hold of less
    never makes it. The load goes on until then.
    """
    orders = stream_orders(
        seconds=_BEGIN_SECONDS_MAX + (1 + _PATIENCE) * seconds,
        events=_BATCH_EVENTS,
        events_per_second=events_per_second,
    )
    with running_plant(SETTINGS) as plant, load_on(plant, "benchmarks.stream_load", orders) as load:
        _wait_until_begun(plant, load)
        with _counting_held(plant):
            begin, begin_events = time.monotonic(), plant.query(_RECORDED)[0]
            assert not load.wait(seconds), "the load goes on while counting is held"
            held_events = plant.query(_RECORDED)[0]
            held_seconds = time.monotonic() - begin
            behind_seconds = plant.counted_behind_seconds()
        taken = _wait_until_near(plant, load)
        caught_events = plant.query(_RECORDED)[0] - held_events
        load.stop()
        report = load.report()
        plant.wait_until_counted(seconds=_DRAIN_SECONDS_MAX)
        check_counted(plant, report)
    rate = report["events"] / report["seconds"]
    unmet = []
    if rate < _RATE_MET * events_per_second:
        unmet.append(f"{rate:,.0f} events/s came, {events_per_second:,.0f} are wanted")
    if taken is None:
        unmet.append("counting had not caught up when the load ended")
    return Measurement(
        value=_PATIENCE * seconds if taken is None else taken,
        bound=seconds,
        bound_of="the time for which counting was held, s",
        workload=f"counting held for {seconds:g} s while {events_per_second:,.0f} events/s come"
        f" from 8 producers in batches of {_BATCH_EVENTS} in planes, until what is not counted is"
        f" at most {BEHIND_SECONDS_MAX:g} s old while they go on, {world()}; {WORKERS_MACHINE}",
        notes={
            "events_per_second": round(rate),
            "events_per_second_held": round((held_events - begin_events) / held_seconds),
            "events_recorded_while_catching_up": caught_events,
            "behind_seconds_when_let_go": round(behind_seconds, 1),
        },
        unmet=unmet,
    )


def _wait_until_begun(plant: Plant, load: Load) -> None:
    """Wait until some of the load is counted: before that, names are made known once for all."""
    while not plant.query("SELECT EXISTS (SELECT FROM usage)")[0]:
        assert not load.wait(_LOOK_SECONDS), "the load goes on until it is counted"


@contextmanager
def _counting_held(plant: Plant) -> Iterator[None]:
    """Keep anyone from writing usage; a round that has begun waits as well."""
    with psycopg.connect(plant.database_url) as connection:
        connection.execute("LOCK TABLE usage IN SHARE MODE")
        yield


def _wait_until_near(plant: Plant, load: Load) -> float | None:
    """Return after how long counting was near enough; None if the load had ended by then."""
    begin = time.monotonic()
    while plant.counted_behind_seconds() > BEHIND_SECONDS_MAX:
        if load.wait(_LOOK_SECONDS):
            return None
    return time.monotonic() - begin
