"""What a second worker brings: the same load on one process of the meter, and on two."""

from typing import Final

from benchmarks.measurement import Measurement
from benchmarks.plant import running_plant
from benchmarks.recording import Recorded, record_load
from benchmarks.stream_load import stream_orders
from benchmarks.streams import MACHINE, find_late, world

_BATCH_EVENTS: Final = 100
_WORKERS: Final = 2
# Connections go to workers as the system throws the dice; this says how they fell.
_BUSIEST: Final = """
SELECT max(events) / sum(events)
FROM (SELECT sum(event_count) AS events FROM journal GROUP BY shard) AS shards
"""


def measure_workers(seconds: float) -> Measurement:
    """Record small batches on eight streams with two workers, beside the same with one process."""
    alone, _ = _record(seconds, workers=1)
    recorded, busiest = _record(seconds, workers=_WORKERS)
    orders = stream_orders(seconds=seconds, events=_BATCH_EVENTS)
    return Measurement(
        value=recorded.events_per_second,
        bound=alone.events_per_second,
        bound_of="the same load on one process of the meter, events/s",
        workload=f"{seconds:g} s, {_WORKERS} workers, {orders['producers']} producers, batches of"
        f" {_BATCH_EVENTS} events in planes, {world()}; {MACHINE}",
        notes={
            **recorded.notes,
            "busiest_worker_share": round(busiest, 3),
            **{
                f"alone_{name}": alone.notes[name]
                for name in alone.notes
                if name.startswith("processor_seconds")
            },
        },
        unmet=find_late(recorded),
    )


def _record(seconds: float, *, workers: int) -> tuple[Recorded, float]:
    """Return what was recorded with so many, and the share of the one that recorded most."""
    orders = stream_orders(seconds=seconds, events=_BATCH_EVENTS)
    with running_plant({"TOKENWORKS_WORKERS": str(workers)}) as plant:
        recorded = record_load(plant, "benchmarks.stream_load", orders)
        return recorded, float(plant.query(_BUSIEST)[0])
