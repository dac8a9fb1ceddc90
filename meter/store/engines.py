"""What engines counted themselves, in Postgres: taken once, and compared with usage."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, text

from meter.domain.interval import is_on_edge
from meter.domain.times import to_ms, to_time
from meter.engine_drift import EngineDrift, TokenKind
from meter.engines.comparing import (
    EngineSums,
    MeteredSums,
    ReadTime,
    Window,
    compare,
    find_windows,
)
from meter.engines.counting import Counted, EngineRead, KnownReplica, count
from meter.runtime.engine import SNAPSHOT, refusals, store_faults
from meter.store.energy_tables import engine_counters

# Whoever comes second waits here for the first, and then finds what that one has recorded.
_NEW_REPLICA: Final = text("""
INSERT INTO engine_replicas (replica, pool, profile, first_time, read_time)
VALUES (:replica, :pool, :profile, :time, :time)
ON CONFLICT DO NOTHING
""")
_LOCK_REPLICA: Final = text("""
SELECT pool, profile, read_time FROM engine_replicas WHERE replica = :replica FOR UPDATE
""")
_MOVE_REPLICA: Final = text("""
UPDATE engine_replicas
SET pool = :pool, profile = :profile, read_time = :time,
    first_time = CASE WHEN :is_new THEN :time ELSE first_time END
WHERE replica = :replica
""")
_STANDING: Final = text("SELECT series, tokens FROM engine_counters WHERE replica = :replica")
_NEW_COUNTERS: Final = text("""
INSERT INTO engine_counters (replica, series, tokens)
SELECT :replica, series, tokens
FROM unnest(CAST(:series AS text[]), CAST(:tokens AS bigint[])) AS n (series, tokens)
""")
_ADD_TOKENS: Final = text("""
INSERT INTO engine_intervals AS i
    (pool, interval_start, replica, model, kind, tokens, gap_tokens, reset_count)
SELECT :pool, start, :replica, model, kind, tokens, gap_tokens, reset_count
FROM unnest(CAST(:starts AS timestamptz[]), CAST(:models AS text[]), CAST(:kinds AS text[]),
            CAST(:tokens AS bigint[]), CAST(:gap_tokens AS bigint[]), CAST(:resets AS integer[]))
     AS n (start, model, kind, tokens, gap_tokens, reset_count)
ON CONFLICT (pool, interval_start, replica, model, kind) DO UPDATE
SET tokens = i.tokens + EXCLUDED.tokens,
    gap_tokens = i.gap_tokens + EXCLUDED.gap_tokens,
    reset_count = i.reset_count + EXCLUDED.reset_count
""")
# What was known of an engine is known from then on: usage of before is compared with nothing.
_FORGET_TIME: Final = text(
    "UPDATE engine_replicas SET first_time = :before"
    " WHERE first_time < :before AND read_time >= :before"
)
_FORGET_GONE: Final = text("""
WITH gone AS (DELETE FROM engine_replicas WHERE read_time < :before RETURNING replica)
DELETE FROM engine_counters c USING gone g WHERE c.replica = g.replica
""")
# By the pools that there are, each found by a step in the index: their times are next in it.
_FORGET_TOKENS: Final = text("""
WITH RECURSIVE pools (pool) AS (
    SELECT min(pool) FROM engine_intervals
    UNION ALL
    SELECT (SELECT min(i.pool) FROM engine_intervals i WHERE i.pool > p.pool)
    FROM pools p WHERE p.pool IS NOT NULL
)
DELETE FROM engine_intervals i USING pools p
WHERE i.pool = p.pool AND i.interval_start < :before
""")
_REPLICAS: Final = text("""
SELECT pool, first_time, read_time FROM engine_replicas
WHERE first_time < :end AND read_time > :start
""")
_WINDOWS: Final = """
WITH windows AS (
    SELECT * FROM unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[]),
                         CAST(:ends AS timestamptz[])) AS w (pool, start_time, end_time)
), left_out AS (
    SELECT * FROM unnest(CAST(:out_pools AS text[]), CAST(:out_starts AS timestamptz[]))
                  AS o (pool, interval_start)
)
"""
_COMPARED: Final = """
    AND NOT EXISTS (SELECT FROM left_out o
                    WHERE o.pool = w.pool AND o.interval_start = i.interval_start)
"""
_ENGINE_SUMS: Final = text(f"""
{_WINDOWS}
SELECT i.pool, i.model, i.kind, sum(i.tokens)::bigint AS tokens,
       sum(i.gap_tokens)::bigint AS gap_tokens, sum(i.reset_count)::bigint AS reset_count
FROM windows w
JOIN engine_intervals i
  ON i.pool = w.pool AND i.interval_start >= w.start_time AND i.interval_start < w.end_time
{_COMPARED}
GROUP BY 1, 2, 3
""")  # noqa: S608  its own text
_METERED_SUMS: Final = text(f"""
{_WINDOWS}
SELECT i.pool, s.model, coalesce(nullif(s.served_model, ''), s.model) AS served_model,
       sum(i.input_tokens)::bigint AS input_tokens, sum(i.cached_tokens)::bigint AS cached_tokens,
       sum(i.output_tokens)::bigint AS output_tokens
FROM windows w
JOIN pool_usage i
  ON i.pool = w.pool AND i.interval_start >= w.start_time AND i.interval_start < w.end_time
{_COMPARED}
JOIN skus s USING (sku_id)
GROUP BY 1, 2, 3
""")  # noqa: S608  its own text


class EngineStore:
    """Records what engines show; each call is one transaction."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def record(self, read: EngineRead, *, gap_ms: int) -> Counted | None:
        """Take a read and what it adds in one transaction, and return what that was; see `count`.

        The same read again, or an older one, adds nothing. Raises Unavailable, StoreRefusal.
        """
        with refusals("engines"), store_faults(), self._engine.begin() as connection:
            known = _lock_replica(connection, read)
            counted = count(read, known=known, gap_ms=gap_ms)
            if counted is None:
                return None
            _stand(connection, read, is_new=counted.is_new)
            _add(connection, read, counted)
            return counted

    def forget(self, *, before_ms: int) -> None:
        """Delete what engines counted before an edge, and those that were not read since.

        Raises Unavailable.
        """
        assert is_on_edge(before_ms)
        values = {"before": to_time(before_ms)}
        with store_faults(), self._engine.begin() as connection:
            # First the replicas: whoever records what one shows waits for it.
            for statement in (_FORGET_TIME, _FORGET_GONE, _FORGET_TOKENS):
                connection.execute(statement, values)


class EngineDriftStore:
    """Compares what engines counted with usage; safe to share between threads."""

    def __init__(self, engine: Engine, *, hold_ppm: int | None = None) -> None:
        """Take the engine, and from how much drift on an invoice is held."""
        self._engine = engine
        self.hold_ppm = hold_ppm

    def compare(self, *, start_ms: int, end_ms: int) -> Sequence[EngineDrift]:
        """Return the drift of each pool, model and kind in a time; both ends are on edges.

        By pool, model and kind. Raises Unavailable.
        """
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            span = {"start": to_time(start_ms), "end": to_time(end_ms)}
            replicas = [
                ReadTime(pool=it.pool, first_ms=to_ms(it.first_time), last_ms=to_ms(it.read_time))
                for it in connection.execute(_REPLICAS, span)
            ]
            windows = find_windows(replicas, start_ms=start_ms, end_ms=end_ms)
            if not windows:
                return []
            values = _window_values(windows)
            engines = [
                EngineSums(
                    pool=it.pool,
                    model=it.model,
                    kind=TokenKind(it.kind),
                    tokens=it.tokens,
                    gap_tokens=it.gap_tokens,
                    reset_count=it.reset_count,
                )
                for it in connection.execute(_ENGINE_SUMS, values)
            ]
            metered = [
                MeteredSums(**it._mapping)  # noqa: SLF001  SQLAlchemy's own name of it
                for it in connection.execute(_METERED_SUMS, values)
            ]
        return compare(windows, engines=engines, metered=metered)


def _lock_replica(connection: Connection, read: EngineRead) -> KnownReplica | None:
    """Lock a replica and return how it stood; None where it is new."""
    values = {"replica": read.replica}
    row = None
    while row is None:
        if connection.execute(_NEW_REPLICA, _replica_values(read)).rowcount:
            return None
        # It may have been forgotten since.
        row = connection.execute(_LOCK_REPLICA, values).one_or_none()
    standing = {it.series: it.tokens for it in connection.execute(_STANDING, values)}
    return KnownReplica(
        pool=row.pool, profile=row.profile, time_ms=to_ms(row.read_time), standing=standing
    )


def _replica_values(read: EngineRead) -> dict[str, Any]:
    return {
        "replica": read.replica,
        "pool": read.pool,
        "profile": read.page.profile,
        "time": to_time(read.time_ms),
    }


def _stand(connection: Connection, read: EngineRead, *, is_new: bool) -> None:
    """Keep where the counters stand: those that are not on the page any more began anew."""
    connection.execute(_MOVE_REPLICA, {**_replica_values(read), "is_new": is_new})
    own = engine_counters.c.replica == read.replica
    connection.execute(delete(engine_counters).where(own))
    counters = read.page.counters
    values = {
        "replica": read.replica,
        "series": list(counters),
        "tokens": [it.tokens for it in counters.values()],
    }
    connection.execute(_NEW_COUNTERS, values)


def _add(connection: Connection, read: EngineRead, counted: Counted) -> None:
    sums = [(key, it) for key, it in counted.tokens.items() if it.tokens or it.reset_count]
    if not sums:
        return
    connection.execute(
        _ADD_TOKENS,
        {
            "pool": read.pool,
            "replica": read.replica,
            "starts": [to_time(start_ms) for (_, _, start_ms), _ in sums],
            "models": [model for (model, _, _), _ in sums],
            "kinds": [kind.value for (_, kind, _), _ in sums],
            "tokens": [it.tokens for _, it in sums],
            "gap_tokens": [it.gap_tokens for _, it in sums],
            "resets": [it.reset_count for _, it in sums],
        },
    )


def _window_values(windows: Sequence[Window]) -> dict[str, Any]:
    left_out = [(it.pool, start_ms) for it in windows for start_ms in sorted(it.left_out)]
    return {
        "pools": [it.pool for it in windows],
        "starts": [to_time(it.start_ms) for it in windows],
        "ends": [to_time(it.end_ms) for it in windows],
        "out_pools": [pool for pool, _ in left_out],
        "out_starts": [to_time(start_ms) for _, start_ms in left_out],
    }
