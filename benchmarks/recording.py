"""A load of streams on a meter: what of it was recorded and counted, and what that took."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.load import Load, running_load
from benchmarks.measurement import check_answer
from benchmarks.plant import Plant
from benchmarks.processor import main_thread_seconds, processor_seconds

_LOOK_SECONDS: Final = 1.0
_COUNTED_SECONDS_MAX: Final = 600.0
# The months of a partitioned table count each for itself.
_STANDING: Final = """
SELECT (SELECT coalesce(sum(event_count), 0) FROM journal),
    (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('journal') WHERE isleaf),
    pg_current_wal_insert_lsn() - '0/0'
"""
_USAGE: Final = "SELECT pg_total_relation_size('usage'), count(*) FROM usage"
_COUNTED: Final = (
    "SELECT coalesce(sum(input + cache_read + output), 0), coalesce(sum(request_count), 0)"
    " FROM usage"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a plant is: events and bytes of its journal, bytes of log, seconds on a core."""

    events: int
    journal_bytes: int
    wal_bytes: int
    processor_seconds: Mapping[str, float]

    @classmethod
    def of(cls, plant: Plant) -> "Standing":
        """Return how far it is at this moment."""
        events, journal_bytes, wal_bytes = map(int, plant.query(_STANDING))
        return cls(
            events=events,
            journal_bytes=journal_bytes,
            wal_bytes=wal_bytes,
            processor_seconds={
                "meter": processor_seconds(plant.meter_pid),
                "meter_loop": main_thread_seconds(plant.meter_pid),
                "postgres": processor_seconds(plant.find_postgres_pid()),
            },
        )

    def since(self, before: "Standing", *, events: int) -> dict[str, float]:
        """Return what each of so many events took, from one standing to another, as notes."""
        # Microseconds an event are seconds a million.
        taken = {
            f"processor_seconds_per_million_{name}": 1e6
            * (seconds - before.processor_seconds[name])
            / events
            for name, seconds in self.processor_seconds.items()
        }
        return {
            "stored_bytes_per_event": round(
                (self.journal_bytes - before.journal_bytes) / events, 2
            ),
            "wal_bytes_per_event": round((self.wal_bytes - before.wal_bytes) / events, 2),
            **{name: round(seconds, 4) for name, seconds in taken.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the load reports, and what it was beside that.

    `behind_seconds` is the age of the oldest segment that was not counted, the most of all looks,
    and how long counting took to reach the end once the load was over, if that was more.
    """

    report: Mapping[str, Any]
    behind_seconds: float
    notes: Mapping[str, float]

    @property
    def events_per_second(self) -> float:
        """Events from the load's begin to its last acknowledgement, by its own clock."""
        return float(self.report["events"] / self.report["seconds"])


def record_load(plant: Plant, module: str, orders: Mapping[str, Any]) -> Recorded:
    """Put a load on a plant that is at rest, and wait until all is counted.

    Raises WrongAnswer when SQL does not tell what was acknowledged.
    """
    counted, before = counted_of(plant), Standing.of(plant)
    behind_seconds = 0.0
    with load_on(plant, module, orders) as load:
        while not load.wait(_LOOK_SECONDS):
            behind_seconds = max(behind_seconds, plant.counted_behind_seconds())
        report = load.report()
    lag_seconds = plant.wait_until_counted(seconds=_COUNTED_SECONDS_MAX)
    after = Standing.of(plant)
    check_counted(plant, report, before=counted)
    usage_bytes, rows = plant.query(_USAGE)
    events = report["events"]
    behind_seconds = max(behind_seconds, lag_seconds)
    return Recorded(
        report=report,
        behind_seconds=behind_seconds,
        notes={
            "counted_behind_seconds_max": round(behind_seconds, 2),
            "counted_after_seconds": round(lag_seconds, 2),
            **after.since(before, events=events),
            "processor_seconds_per_million_load": round(
                1e6 * report["processor_seconds"] / events, 4
            ),
            "sent_bytes_per_event": round(report["bytes"] / events, 2),
            "usage_rows": rows,
            "usage_bytes_per_row": round(usage_bytes / rows, 1),
        },
    )


def load_on(plant: Plant, module: str, orders: Mapping[str, Any]) -> AbstractContextManager[Load]:
    """Begin a load on a plant."""
    return running_load(module, {"target": plant.target, "api_key": plant.api_key, **orders})


def counted_of(plant: Plant) -> tuple[int, int]:
    """Return the tokens and events in usage."""
    tokens, events = plant.query(_COUNTED)
    return int(tokens), int(events)


def check_counted(
    plant: Plant, report: Mapping[str, Any], *, before: tuple[int, int] = (0, 0)
) -> None:
    """Raise WrongAnswer unless usage grew by the tokens and events that were acknowledged."""
    tokens, events = counted_of(plant)
    added = (tokens - before[0], events - before[1])
    check_answer(counted=added, sent=(report["tokens"], report["events"]))
