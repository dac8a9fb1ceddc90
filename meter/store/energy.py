"""Energy in Postgres: counters, and sums by pool and interval."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, text
from sqlalchemy.exc import DBAPIError

from meter.domain.errors import Reason, StoreRefusal, Unavailable
from meter.domain.times import to_ms, to_time
from meter.energy.counters import (
    Bounds,
    Counter,
    DeviceKey,
    EnergyDelta,
    Reading,
    Round,
    Source,
    take,
)
from meter.runtime.engine import store_faults
from meter.store.tables import energy_counters

# Two servers may both be the first to see a device; whoever comes second reads it.
_TRIES: Final = 3
_LOCK_COUNTERS: Final = text("""
SELECT c.pool, c.device, c.counter_mj, c.sample_time
FROM energy_counters c
JOIN unnest(CAST(:pools AS text[]), CAST(:devices AS text[])) AS n (pool, device)
  ON c.pool = n.pool AND c.device = n.device
ORDER BY c.pool, c.device
FOR UPDATE OF c
""")
_NEW_COUNTERS: Final = text("""
INSERT INTO energy_counters (pool, device, counter_mj, sample_time, source)
SELECT pool, device, counter_mj, sample_time, :source
FROM unnest(CAST(:pools AS text[]), CAST(:devices AS text[]), CAST(:counters AS bigint[]),
            CAST(:times AS timestamptz[])) AS n (pool, device, counter_mj, sample_time)
ORDER BY pool, device
ON CONFLICT DO NOTHING
""")
_MOVE_COUNTERS: Final = text("""
UPDATE energy_counters c
SET counter_mj = n.counter_mj, sample_time = n.sample_time, source = :source
FROM unnest(CAST(:pools AS text[]), CAST(:devices AS text[]), CAST(:counters AS bigint[]),
            CAST(:times AS timestamptz[])) AS n (pool, device, counter_mj, sample_time)
WHERE c.pool = n.pool AND c.device = n.device
""")
# In the order of the key, like all that is merged: else servers wait for each other in a circle.
_ADD_ENERGY: Final = text("""
INSERT INTO pool_intervals AS i
    (pool, interval_start, measured_mj, gap_mj, gap_ms, reset_count)
SELECT *
FROM unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[]), CAST(:measured AS bigint[]),
            CAST(:gap_mj AS bigint[]), CAST(:gap_ms AS bigint[]), CAST(:resets AS integer[]))
ORDER BY 1, 2
ON CONFLICT (pool, interval_start) DO UPDATE
SET measured_mj = i.measured_mj + EXCLUDED.measured_mj,
    gap_mj = i.gap_mj + EXCLUDED.gap_mj,
    gap_ms = i.gap_ms + EXCLUDED.gap_ms,
    reset_count = i.reset_count + EXCLUDED.reset_count,
    version = i.version + 1
""")


class EnergyStore:
    """Records energy; each call is one transaction."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def record(self, readings: Sequence[Reading], *, source: Source, bounds: Bounds) -> Round:
        """Take readings and what they add in one transaction, and return what that was.

        What was taken is known by the counters: the same readings again add nothing. Raises
        Unavailable, StoreRefusal.
        """
        for _ in range(_TRIES):
            with _own_faults(), store_faults(), self._engine.begin() as connection:
                known = _lock_counters(connection, sorted({it.key for it in readings}))
                moved = take(readings, known=known, bounds=bounds)
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
        with _own_faults(), store_faults(), self._engine.begin() as connection:
            connection.execute(statement)


def _lock_counters(connection: Connection, keys: Sequence[DeviceKey]) -> dict[DeviceKey, Counter]:
    values = {"pools": [pool for pool, _ in keys], "devices": [device for _, device in keys]}
    return {
        (row.pool, row.device): Counter(time_ms=to_ms(row.sample_time), counter_mj=row.counter_mj)
        for row in connection.execute(_LOCK_COUNTERS, values)
    }


def _save_counters(
    connection: Connection, moved: Round, *, known: Mapping[DeviceKey, Counter], source: Source
) -> bool:
    """Write the counters that moved; False when another server has written a new one first."""
    new = [key for key in moved.counters if key not in known]
    old = [key for key in moved.counters if key in known]
    if old:
        connection.execute(_MOVE_COUNTERS, _counter_values(moved, old, source=source))
    if not new:
        return True
    return connection.execute(
        _NEW_COUNTERS, _counter_values(moved, new, source=source)
    ).rowcount == len(new)


def _counter_values(moved: Round, keys: Sequence[DeviceKey], *, source: Source) -> dict[str, Any]:
    return {
        "pools": [pool for pool, _ in keys],
        "devices": [device for _, device in keys],
        "counters": [moved.counters[key].counter_mj for key in keys],
        "times": [to_time(moved.counters[key].time_ms) for key in keys],
        "source": source.value,
    }


def _add_energy(connection: Connection, delta: EnergyDelta) -> None:
    if not delta.intervals:
        return
    sums = delta.intervals.values()
    connection.execute(
        _ADD_ENERGY,
        {
            "pools": [pool for pool, _ in delta.intervals],
            "starts": [to_time(start_ms) for _, start_ms in delta.intervals],
            "measured": [it.measured_mj for it in sums],
            "gap_mj": [it.gap_mj for it in sums],
            "gap_ms": [it.gap_ms for it in sums],
            "resets": [it.reset_count for it in sums],
        },
    )


@contextmanager
def _own_faults() -> Iterator[None]:
    """Turn what the database refuses into `StoreRefusal`: whoever measures goes on."""
    try:
        yield
    except DBAPIError as error:
        raise StoreRefusal(Reason.INTERNAL, f"The database refuses energy: {error}") from error
