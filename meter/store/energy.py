"""Energy in Postgres: counters, sums by pool and interval, and their attribution."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, insert, text
from sqlalchemy.exc import DBAPIError

from meter.domain.errors import Reason, StoreRefusal, Unavailable
from meter.domain.times import to_ms, to_time
from meter.energy.attribute import attribute
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
from meter.store.tables import energy_counters, energy_shares

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
# The rows are locked before anything else is read: what changes later moves the version again.
_LOCK_DUE: Final = text("""
SELECT pool, interval_start, measured_mj, gap_mj
FROM pool_intervals
WHERE version <> attributed_version AND interval_start < :end
ORDER BY pool, interval_start
LIMIT :limit
FOR UPDATE
""")
_WEIGHTS: Final = text("""
SELECT u.pool, u.interval_start, u.sku_id, u.output_tokens
FROM pool_usage u
JOIN unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[])) AS n (pool, interval_start)
  USING (pool, interval_start)
""")
_SHARES: Final = text("""
SELECT s.pool, s.interval_start, s.sku_id, s.reason, sum(s.energy_mj) AS energy_mj,
       max(s.revision) AS revision
FROM energy_shares s
JOIN unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[])) AS n (pool, interval_start)
  USING (pool, interval_start)
GROUP BY 1, 2, 3, 4
""")
_MARK_DONE: Final = text("""
UPDATE pool_intervals i
SET attributed_version = i.version
FROM unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[])) AS n (pool, interval_start)
WHERE i.pool = n.pool AND i.interval_start = n.interval_start
""")

# A pool's interval, and within it whose share: a sku, or none and a reason.
_Place = tuple[str, Any]
_Owner = tuple[int | None, str]


class EnergyStore:
    """Records energy and attributes it; each is one transaction."""

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

    def attribute(self, *, end_ms: int, intervals_max: int) -> int:
        """Attribute anew intervals that began before `end_ms` and changed; return how many.

        What is attributed otherwise than before is a new revision, of the differences alone.
        """
        with _own_faults(), store_faults(), self._engine.begin() as connection:
            values = {"end": to_time(end_ms), "limit": intervals_max}
            due = connection.execute(_LOCK_DUE, values).all()
            if not due:
                return 0
            places = {
                "pools": [row.pool for row in due],
                "starts": [row.interval_start for row in due],
            }
            weights: defaultdict[_Place, dict[int, int]] = defaultdict(dict)
            for row in connection.execute(_WEIGHTS, places):
                weights[row.pool, row.interval_start][row.sku_id] = row.output_tokens
            shares: defaultdict[_Place, dict[_Owner, int]] = defaultdict(dict)
            revisions: defaultdict[_Place, int] = defaultdict(int)
            for row in connection.execute(_SHARES, places):
                place = (row.pool, row.interval_start)
                shares[place][row.sku_id, row.reason] = int(row.energy_mj)
                revisions[place] = max(revisions[place], row.revision)
            rows = [
                {
                    "pool": row.pool,
                    "interval_start": row.interval_start,
                    "sku_id": sku_id,
                    "reason": reason,
                    "revision": revisions[row.pool, row.interval_start] + 1,
                    "energy_mj": energy_mj,
                }
                for row in due
                for (sku_id, reason), energy_mj in _changes(
                    _shares_of(row, weights[row.pool, row.interval_start]),
                    before=shares[row.pool, row.interval_start],
                )
            ]
            if rows:
                connection.execute(insert(energy_shares), rows)
            connection.execute(_MARK_DONE, places)
        return len(due)

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


def _shares_of(row: Any, weights: Mapping[int, int]) -> dict[_Owner, int]:  # noqa: ANN401
    shared = attribute(measured_mj=row.measured_mj, gap_mj=row.gap_mj, output_tokens=weights)
    return {
        **{(sku_id, ""): share for sku_id, share in shared.attributed_mj.items()},
        **{(None, str(reason)): share for reason, share in shared.unattributed_mj.items()},
    }


def _changes(
    shares: Mapping[_Owner, int], *, before: Mapping[_Owner, int]
) -> Iterator[tuple[_Owner, int]]:
    for owner in {**before, **shares}:
        difference = shares.get(owner, 0) - before.get(owner, 0)
        if difference:
            yield owner, difference


@contextmanager
def _own_faults() -> Iterator[None]:
    """Turn what the database refuses into `StoreRefusal`: whoever measures goes on."""
    try:
        yield
    except DBAPIError as error:
        raise StoreRefusal(Reason.INTERNAL, f"The database refuses energy: {error}") from error
