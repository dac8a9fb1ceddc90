"""What each pool served of late, as all servers of the installation have counted it."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Engine, text

from meter.domain.times import to_ms, to_time
from meter.energy.fleet import ServedKey, ServedSums
from meter.runtime.engine import store_faults

# Pools are found one by one: the key begins with them, and the newest intervals are few.
_SUMS: Final = text("""
WITH RECURSIVE pools (pool) AS (
    (SELECT pool FROM pool_usage ORDER BY pool LIMIT 1)
    UNION ALL
    SELECT (SELECT u.pool FROM pool_usage u WHERE u.pool > p.pool ORDER BY u.pool LIMIT 1)
    FROM pools p WHERE p.pool IS NOT NULL
)
SELECT u.pool, s.tier, s.model, u.interval_start, sum(u.input_tokens)::bigint AS input_tokens,
       sum(u.cached_tokens)::bigint AS cached_tokens,
       sum(u.output_tokens)::bigint AS output_tokens,
       sum(u.request_count)::bigint AS request_count
FROM pools p
JOIN pool_usage u ON u.pool = p.pool AND u.interval_start >= :since
JOIN skus s USING (sku_id)
GROUP BY 1, 2, 3, 4
""")


class PoolServedStore:
    """Reads the sums; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def sums(self, *, since_ms: int) -> Mapping[ServedKey, ServedSums]:
        """Return what is counted of each interval that began at `since_ms` or later.

        Raises Unavailable.
        """
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(_SUMS, {"since": to_time(since_ms)}).all()
        return {
            (row.pool, row.tier, row.model, to_ms(row.interval_start)): (
                row.input_tokens,
                row.cached_tokens,
                row.output_tokens,
                row.request_count,
            )
            for row in rows
        }
