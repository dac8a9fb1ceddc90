"""How well power is known, by where the counters stand: devices of late, and the silent ones."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Engine, text

from meter.domain.boundary import Boundary
from meter.domain.limits import DEVICE_KNOWN_MS
from meter.domain.times import to_ms, to_time
from meter.energy.counters import Source
from meter.energy.factory import Factory
from meter.energy.validity import PoolDevices, SilentDevice
from meter.runtime.engine import store_faults

_POOLS: Final = text("""
SELECT c.name AS pool, c.boundary, c.source, max(c.sample_time) AS last_time,
       count(*) FILTER (WHERE c.sample_time >= :known) AS device_count,
       count(*) FILTER (WHERE c.sample_time >= f.fresh_time) AS fresh_count,
       count(l.device) FILTER (WHERE c.sample_time >= :known) AS listed_count
FROM energy_counters c
JOIN unnest(CAST(:sources AS text[]), CAST(:fresh_times AS timestamptz[]))
     AS f (source, fresh_time) USING (source)
LEFT JOIN unnest(CAST(:listed_pools AS text[]), CAST(:listed AS text[])) AS l (pool, device)
     ON l.pool = c.name AND l.device = c.device
WHERE c.boundary <> 'facility'
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
""")
# Where boards are measured, a rating that counts no more is not missed.
_SILENT: Final = text("""
SELECT c.name AS pool, c.device, c.source, c.sample_time
FROM energy_counters c
JOIN unnest(CAST(:sources AS text[]), CAST(:fresh_times AS timestamptz[]))
     AS f (source, fresh_time) USING (source)
WHERE c.boundary <> 'facility' AND c.sample_time >= :known AND c.sample_time < f.fresh_time
  AND (c.source <> 'static' OR NOT EXISTS (
       SELECT FROM energy_counters o
       WHERE o.boundary = 'board' AND o.name = c.name AND o.source <> 'static'))
ORDER BY c.sample_time, c.name, c.device
LIMIT :limit
""")


class PowerStore:
    """Tells of which devices there are samples."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def pools(
        self, *, now_ms: int, gaps_ms: Mapping[Source, int], factory: Factory
    ) -> Sequence[PoolDevices]:
        """Return the devices by pool, boundary and source, of pools with a counter at all."""
        listed = [(pool.pool, device) for pool in factory.pools.values() for device in pool.devices]
        values = {
            **_times(now_ms, gaps_ms),
            "listed_pools": [pool for pool, _ in listed],
            "listed": [device for _, device in listed],
        }
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(_POOLS, values).all()
        return [
            PoolDevices(
                pool=row.pool,
                boundary=Boundary(row.boundary),
                source=Source(row.source),
                device_count=row.device_count,
                fresh_count=row.fresh_count,
                listed_count=row.listed_count,
                last_sample_ms=to_ms(row.last_time),
            )
            for row in rows
        ]

    def silent(
        self, *, now_ms: int, gaps_ms: Mapping[Source, int], devices_max: int
    ) -> Sequence[SilentDevice]:
        """Return so many silent devices, the longest silent first."""
        values = {**_times(now_ms, gaps_ms), "limit": devices_max}
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(_SILENT, values).all()
        return [
            SilentDevice(
                pool=row.pool,
                device=row.device,
                source=Source(row.source),
                last_sample_ms=to_ms(row.sample_time),
            )
            for row in rows
        ]


def _times(now_ms: int, gaps_ms: Mapping[Source, int]) -> dict[str, Any]:
    return {
        "known": to_time(now_ms - DEVICE_KNOWN_MS),
        "sources": [source.value for source in gaps_ms],
        "fresh_times": [to_time(now_ms - gap_ms) for gap_ms in gaps_ms.values()],
    }
