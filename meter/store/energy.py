"""Energy in Postgres: where counters stand, and what they measured by place and interval."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Engine, delete, text

from meter.domain.boundary import Boundary
from meter.domain.errors import Reason, Unavailable
from meter.domain.times import to_ms, to_time
from meter.energy.counters import Bounds, Counter, Estimate, Reading, Round, Source, take
from meter.energy.delta import EnergyDelta, IntervalEnergy, Place
from meter.energy.factory import Factories
from meter.runtime.engine import refusals, store_faults
from meter.store.energy_tables import energy_counters
from meter.store.factories import FactoryStore

# Two servers may both be the first to see a device; whoever comes second reads it.
_TRIES: Final = 3
_LOCK_COUNTERS: Final = text("""
SELECT device, boundary, name, source, counter_mj, sample_time
FROM energy_counters
WHERE device = ANY(CAST(:devices AS text[]))
ORDER BY device
FOR UPDATE
""")
_COUNTERS: Final = """
FROM unnest(CAST(:devices AS text[]), CAST(:boundaries AS text[]), CAST(:names AS text[]),
            CAST(:counters AS bigint[]), CAST(:times AS timestamptz[]))
     AS n (device, boundary, name, counter_mj, sample_time)
"""
_NEW_COUNTERS: Final = text(f"""
INSERT INTO energy_counters (device, boundary, name, source, counter_mj, sample_time)
SELECT device, boundary, name, :source, counter_mj, sample_time
{_COUNTERS}
ORDER BY device
ON CONFLICT DO NOTHING
""")
_MOVE_COUNTERS: Final = text(f"""
UPDATE energy_counters c
SET boundary = n.boundary, name = n.name, source = :source, counter_mj = n.counter_mj,
    sample_time = n.sample_time
{_COUNTERS}
WHERE c.device = n.device
""")  # noqa: S608  its own text
# In the order of the key, like all that is merged: else servers wait for each other in a circle.
_ADD_ENERGY: Final = text("""
INSERT INTO energy_intervals AS i
    (boundary, name, interval_start, measured_mj, estimated_mj, gap_mj, unmapped_mj, covered_ms,
     gap_ms, reset_count, begin_count, end_count)
SELECT *
FROM unnest(CAST(:boundaries AS text[]), CAST(:names AS text[]), CAST(:starts AS timestamptz[]),
            CAST(:measured AS bigint[]), CAST(:estimated AS bigint[]), CAST(:gap_mj AS bigint[]),
            CAST(:unmapped AS bigint[]), CAST(:covered_ms AS bigint[]), CAST(:gap_ms AS bigint[]),
            CAST(:resets AS integer[]), CAST(:begin_counts AS integer[]),
            CAST(:end_counts AS integer[]))
ORDER BY 1, 2, 3
ON CONFLICT (boundary, name, interval_start) DO UPDATE
SET measured_mj = i.measured_mj + EXCLUDED.measured_mj,
    estimated_mj = i.estimated_mj + EXCLUDED.estimated_mj,
    gap_mj = i.gap_mj + EXCLUDED.gap_mj,
    unmapped_mj = i.unmapped_mj + EXCLUDED.unmapped_mj,
    covered_ms = i.covered_ms + EXCLUDED.covered_ms,
    gap_ms = i.gap_ms + EXCLUDED.gap_ms,
    reset_count = i.reset_count + EXCLUDED.reset_count,
    begin_count = i.begin_count + EXCLUDED.begin_count,
    end_count = i.end_count + EXCLUDED.end_count
""")
# Last of all: whoever attributes either waits for this, and then sees the energy, or comes again.
# In the order of the table's own collation, in which they lock: a database may have another one.
_MOVE_INTERVALS: Final = text("""
INSERT INTO pool_intervals AS i (pool, interval_start)
SELECT DISTINCT pool COLLATE "C", interval_start
FROM unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[])) AS n (pool, interval_start)
ORDER BY 1, 2
ON CONFLICT (pool, interval_start) DO UPDATE SET version = i.version + 1
""")

_Sums: TypeAlias = Sequence[tuple[tuple[Place, int], IntervalEnergy]]


class EnergyStore:
    """Records energy; each call is one transaction."""

    def __init__(self, engine: Engine, *, factories: FactoryStore) -> None:
        """Take the engine, and where the factory is described."""
        self._engine = engine
        self._factories = factories

    def record(
        self, readings: Sequence[Reading | Estimate], *, source: Source, bounds: Bounds
    ) -> Round:
        """Take readings and what they add in one transaction, and return what that was.

        What was taken is known by the counters: the same readings again add nothing. Raises
        Unavailable, StoreRefusal.
        """
        for _ in range(_TRIES):
            with refusals("energy"), store_faults(), self._engine.begin() as connection:
                factories = self._factories.load_in(connection)
                known = _lock_counters(connection, sorted({it.device for it in readings}))
                moved = take(
                    readings,
                    source=source,
                    known=known,
                    bounds=bounds,
                    is_mapped=lambda device, pool, start_ms, factories=factories: _is_mapped(  # type: ignore[misc]
                        factories, device=device, pool=pool, start_ms=start_ms
                    ),
                )
                if _save_counters(connection, moved, known=known, source=source):
                    _add_energy(connection, moved.delta)
                    return moved
                connection.rollback()
        raise Unavailable(
            Reason.STORE_UNAVAILABLE, "Others report the same devices just now. Send again."
        )

    def forget_counters(self, *, before_ms: int) -> None:
        """Forget the counters that have not moved since."""
        statement = delete(energy_counters).where(
            energy_counters.c.sample_time < to_time(before_ms)
        )
        with refusals("energy"), store_faults(), self._engine.begin() as connection:
            connection.execute(statement)


def _is_mapped(factories: Factories, *, device: str, pool: str, start_ms: int) -> bool:
    """Tell whether a pool's board is described: by its name where the boards are listed."""
    described = factories.at(start_ms).pools.get(pool)
    return described is None or not described.devices or device in described.devices


def _lock_counters(connection: Connection, devices: Sequence[str]) -> dict[str, Counter]:
    return {
        row.device: Counter(
            place=(Boundary(row.boundary), row.name),
            source=Source(row.source),
            time_ms=to_ms(row.sample_time),
            counter_mj=row.counter_mj,
        )
        for row in connection.execute(_LOCK_COUNTERS, {"devices": devices})
    }


def _save_counters(
    connection: Connection, moved: Round, *, known: Mapping[str, Counter], source: Source
) -> bool:
    """Write the counters that moved; False when another server has written a new one first."""
    new = [device for device in moved.counters if device not in known]
    old = [device for device in moved.counters if device in known]
    if old:
        connection.execute(_MOVE_COUNTERS, _counter_values(moved, old, source=source))
    if not new:
        return True
    return connection.execute(
        _NEW_COUNTERS, _counter_values(moved, new, source=source)
    ).rowcount == len(new)


def _counter_values(moved: Round, devices: Sequence[str], *, source: Source) -> dict[str, Any]:
    counters = [moved.counters[device] for device in devices]
    return {
        "devices": devices,
        "boundaries": [it.place[0].value for it in counters],
        "names": [it.place[1] for it in counters],
        "counters": [it.counter_mj for it in counters],
        "times": [to_time(it.time_ms) for it in counters],
        "source": source.value,
    }


def _add_energy(connection: Connection, delta: EnergyDelta) -> None:
    sums: _Sums = list(delta.intervals.items())
    if not sums:
        return
    connection.execute(
        _ADD_ENERGY,
        {
            "boundaries": [boundary.value for ((boundary, _), _), _ in sums],
            "names": [name for ((_, name), _), _ in sums],
            "starts": [to_time(start_ms) for (_, start_ms), _ in sums],
            "measured": [it.measured_mj for _, it in sums],
            "estimated": [it.estimated_mj for _, it in sums],
            "gap_mj": [it.gap_mj for _, it in sums],
            "unmapped": [it.unmapped_mj for _, it in sums],
            "covered_ms": [it.covered_ms for _, it in sums],
            "gap_ms": [it.gap_ms for _, it in sums],
            "resets": [it.reset_count for _, it in sums],
            "begin_counts": [it.begin_count for _, it in sums],
            "end_counts": [it.end_count for _, it in sums],
        },
    )
    # A site's meter is of no pool: nothing is attributed anew.
    pools = [(name, at) for ((boundary, name), at), _ in sums if boundary is not Boundary.FACILITY]
    if pools:
        values = {"pools": [it for it, _ in pools], "starts": [to_time(at) for _, at in pools]}
        connection.execute(_MOVE_INTERVALS, values)
