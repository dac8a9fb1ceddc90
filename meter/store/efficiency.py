"""Energy beside tokens, read back: by tier and model, and how each pool's power is known."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Engine, text

from meter.domain.errors import InvalidArgument, Reason
from meter.domain.limits import QUERY_ROWS_MAX
from meter.domain.times import to_time
from meter.energy.efficiency import (
    PENDING,
    Efficiency,
    EfficiencyGroup,
    EfficiencyQuery,
    EfficiencyRow,
    PoolEnergy,
)
from meter.runtime.engine import store_faults

_SNAPSHOT: Final = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
_KEY_SQL: Final = {
    EfficiencyGroup.POOL: "p.pool",
    EfficiencyGroup.TIER: "s.tier",
    EfficiencyGroup.MODEL: "s.model",
    EfficiencyGroup.INTERVAL: "extract(epoch FROM p.interval_start)::bigint * 1000",
    EfficiencyGroup.HOUR: "extract(epoch FROM date_trunc('hour', p.interval_start, 'UTC'))::bigint"
    " * 1000",
    EfficiencyGroup.DAY: "extract(epoch FROM date_trunc('day', p.interval_start, 'UTC'))::bigint"
    " * 1000",
}
# Tokens without energy leave the sum of energy NULL, not 0: it is not known. Whatever has a share
# has tokens.
_PARTS: Final = """
(
    SELECT u.pool, u.interval_start, u.sku_id, u.output_tokens, u.total_tokens, u.request_count,
           a.energy_mj
    FROM pool_usage u
    LEFT JOIN (
        SELECT pool, interval_start, sku_id, nullif(sum(energy_mj), 0) AS energy_mj
        FROM energy_shares
        WHERE interval_start >= :start AND interval_start < :end AND (:pool = '' OR pool = :pool)
          AND sku_id IS NOT NULL
        GROUP BY 1, 2, 3
    ) AS a USING (pool, interval_start, sku_id)
    WHERE interval_start >= :start AND interval_start < :end AND (:pool = '' OR pool = :pool)
) AS p JOIN skus s USING (sku_id)
"""
_MEASURED: Final = text("""
SELECT pool, sum(measured_mj) AS measured_mj, sum(gap_ms)::bigint AS gap_ms,
       sum(reset_count) AS reset_count
FROM pool_intervals
WHERE interval_start >= :start AND interval_start < :end AND (:pool = '' OR pool = :pool)
GROUP BY pool
HAVING sum(measured_mj) <> 0 OR sum(gap_ms) <> 0 OR sum(reset_count) <> 0
ORDER BY pool
""")
_SHARED: Final = text("""
SELECT pool, reason, sum(energy_mj) AS energy_mj
FROM energy_shares
WHERE interval_start >= :start AND interval_start < :end AND (:pool = '' OR pool = :pool)
GROUP BY pool, reason
""")
_SUM_MAX: Final = 2**63 - 1


class EfficiencyStore:
    """Answers questions about energy and power."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def query(self, query: EfficiencyQuery) -> Efficiency:
        """Return tokens and energy, of one snapshot; raises InvalidArgument for too long a one."""
        values = {
            "start": to_time(query.start_ms),
            "end": to_time(query.end_ms),
            "pool": query.pool,
        }
        with store_faults(), self._engine.connect() as connection:
            connection.execute(_SNAPSHOT)
            rows = connection.execute(text(_rows_text(query)), values).all()
            measured = connection.execute(_MEASURED, values).all()
            shared = connection.execute(_SHARED, values).all()
        if len(rows) > QUERY_ROWS_MAX:
            raise _too_much(f"at most {QUERY_ROWS_MAX} rows", field="group_by")
        if any(row.measured_mj > _SUM_MAX for row in measured):
            raise _too_much(f"a time with at most {_SUM_MAX} mJ", field="end_time")
        shares: dict[str, dict[str, int]] = {}
        for row in shared:
            shares.setdefault(row.pool, {})[row.reason] = int(row.energy_mj)
        return Efficiency(
            rows=[_to_row(row, query) for row in rows],
            pools=[_to_pool(row, shares.get(row.pool, {})) for row in measured],
        )


def _rows_text(query: EfficiencyQuery) -> str:
    keys = [_KEY_SQL[key] for key in query.group_by]
    sums = [
        "coalesce(sum(p.output_tokens), 0)::bigint",
        "coalesce(sum(p.total_tokens), 0)::bigint",
        "coalesce(sum(p.request_count), 0)::bigint",
        "sum(p.energy_mj)::bigint",
        "coalesce(sum(p.output_tokens) FILTER (WHERE p.energy_mj IS NOT NULL), 0)::bigint",
    ]
    places = ", ".join(str(place + 1) for place in range(len(keys)))
    return (
        f"SELECT {', '.join([*keys, *sums])} FROM {_PARTS}"  # noqa: S608  own columns
        + (f" GROUP BY {places} ORDER BY {places}" if keys else "")
        + f" LIMIT {QUERY_ROWS_MAX + 1}"
    )


def _to_row(row: Any, query: EfficiencyQuery) -> EfficiencyRow:  # noqa: ANN401
    *keys, output_tokens, total_tokens, request_count, energy_mj, attributed_tokens = row
    return EfficiencyRow(
        keys=dict(zip(query.group_by, keys, strict=True)),
        output_tokens=output_tokens,
        total_tokens=total_tokens,
        request_count=request_count,
        energy_mj=energy_mj,
        attributed_output_tokens=attributed_tokens,
    )


def _to_pool(row: Any, shares: Mapping[str, int]) -> PoolEnergy:  # noqa: ANN401
    measured_mj = int(row.measured_mj)
    unattributed = {reason: share for reason, share in sorted(shares.items()) if reason and share}
    pending_mj = measured_mj - sum(shares.values())
    if pending_mj:
        unattributed[PENDING] = pending_mj
    return PoolEnergy(
        pool=row.pool,
        measured_mj=measured_mj,
        attributed_mj=shares.get("", 0),
        unattributed_mj=unattributed,
        gap_ms=row.gap_ms,
        reset_count=row.reset_count,
    )


def _too_much(rule: str, *, field: str) -> InvalidArgument:
    return InvalidArgument(
        Reason.ARGUMENT_INVALID,
        f"The answer would be too large: {rule}. Ask for less time or fewer keys.",
        field=field,
        rule=rule,
    )
