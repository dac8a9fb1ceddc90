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
_WAL: Final = "SELECT pg_current_wal_insert_lsn() - '0/0'"
# The months of a partitioned table count each for itself.
_JOURNAL: Final = (
    "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('journal') WHERE isleaf"
)
_USAGE: Final = "SELECT pg_total_relation_size('usage'), count(*) FROM usage"
_COUNTED: Final = (
    "SELECT coalesce(sum(input + cache_read + output), 0), coalesce(sum(request_count), 0)"
    " FROM usage"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the load reports, and what it was beside that.

    `behind_seconds` is the age of the oldest segment that was not counted, the most of all looks,
    and how long counting took to reach the end once the load was over, if that was more.
    """

    report: Mapping[str, Any]
    behind_seconds: float
    journal_bytes: int
    notes: Mapping[str, float]

    @property
    def events(self) -> int:
        """Events that were acknowledged, and counted."""
        return int(self.report["events"])

    @property
    def events_per_second(self) -> float:
        """Events from the load's begin to its last acknowledgement, by its own clock."""
        return float(self.events / self.report["seconds"])

    @property
    def stored_bytes_per_event(self) -> float:
        """Bytes of the journal, with its index."""
        return self.journal_bytes / self.events


def record_load(plant: Plant, module: str, orders: Mapping[str, Any]) -> Recorded:
    """Put a load on a plant whose journal is empty, and wait until all is counted.

    Raises WrongAnswer when SQL does not tell what was acknowledged.
    """
    wal_bytes = plant.query(_WAL)[0]
    before = processor_seconds_of(plant)
    behind_seconds = 0.0
    with load_on(plant, module, orders) as load:
        while not load.wait(_LOOK_SECONDS):
            behind_seconds = max(behind_seconds, plant.counted_behind_seconds())
        report = load.report()
    lag_seconds = plant.wait_until_counted(seconds=60)
    after = processor_seconds_of(plant)
    check_counted(plant, report)
    journal_bytes = int(plant.query(_JOURNAL)[0])
    usage_bytes, rows = plant.query(_USAGE)
    events = report["events"]
    taken = {name: after[name] - before[name] for name in after}
    taken["load"] = report["processor_seconds"]
    behind_seconds = max(behind_seconds, lag_seconds)
    return Recorded(
        report=report,
        behind_seconds=behind_seconds,
        journal_bytes=journal_bytes,
        notes={
            "counted_behind_seconds_max": round(behind_seconds, 2),
            "counted_after_seconds": round(lag_seconds, 2),
            "stored_bytes_per_event": round(journal_bytes / events, 2),
            "wal_bytes_per_event": round(int(plant.query(_WAL)[0] - wal_bytes) / events, 2),
            "usage_rows": rows,
            "usage_bytes_per_row": round(usage_bytes / rows, 1),
            "sent_bytes_per_event": round(report["bytes"] / events, 2),
            # Microseconds an event are seconds a million.
            **{
                f"processor_seconds_per_million_{name}": round(seconds / events * 1e6, 4)
                for name, seconds in taken.items()
            },
        },
    )


def load_on(plant: Plant, module: str, orders: Mapping[str, Any]) -> AbstractContextManager[Load]:
    """Begin a load on a plant."""
    return running_load(module, {"target": plant.target, "api_key": plant.api_key, **orders})


def check_counted(plant: Plant, report: Mapping[str, Any]) -> None:
    """Raise WrongAnswer unless usage holds the tokens and events that were acknowledged."""
    tokens, events = plant.query(_COUNTED)
    check_answer(counted=(tokens, events), sent=(report["tokens"], report["events"]))


def processor_seconds_of(plant: Plant) -> dict[str, float]:
    """Return how long the parts of a plant had a core by now, in seconds."""
    return {
        "meter": processor_seconds(plant.meter_pid),
        "meter_loop": main_thread_seconds(plant.meter_pid),
        "postgres": processor_seconds(plant.find_postgres_pid()),
    }
