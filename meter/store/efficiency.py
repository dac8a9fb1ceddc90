"""Energy beside tokens, read back: by tier, model, account and time, with pools and sites."""

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
from meter.runtime.engine import SNAPSHOT, store_faults
from meter.store.factories import FactoryStore
from meter.store.site_energy import read_site_energy

_MS = "extract(epoch FROM {})::bigint * 1000"
_TIME_SQL: Final = {
    EfficiencyGroup.INTERVAL: _MS.format("interval_start"),
    EfficiencyGroup.HOUR: _MS.format("date_trunc('hour', interval_start, 'UTC')"),
    EfficiencyGroup.DAY: _MS.format("date_trunc('day', interval_start, 'UTC')"),
}
_KEY_SQL: Final = {
    EfficiencyGroup.POOL: "pool",
    EfficiencyGroup.TIER: "tier",
    EfficiencyGroup.MODEL: "model",
    EfficiencyGroup.ACCOUNT: "account_id",
    **_TIME_SQL,
}
# Tokens without energy leave the sum of energy NULL, not 0: it is not known. Whatever has a share
# has tokens. What is not attributed yet has no share, and so is not valid.
_PARTS: Final = """
(
    SELECT u.pool, u.interval_start, u.account_id, s.tier, s.model, u.input_tokens,
           u.cached_tokens, u.output_tokens, u.total_tokens, u.request_count, a.energy_mj,
           a.idle_mj, a.energy_mj IS NOT NULL AND i.fault = '' AS is_valid
    FROM pool_usage u
    JOIN skus s USING (sku_id)
    LEFT JOIN (
        SELECT pool, interval_start, account_id, sku_id,
               nullif(sum(energy_mj), 0) AS energy_mj,
               sum(energy_mj) FILTER (WHERE reason = 'idle') AS idle_mj
        FROM energy_shares
        WHERE interval_start >= :start AND interval_start < :end
          AND (:pool = '' OR pool = :pool) AND boundary = :boundary AND sku_id IS NOT NULL
        GROUP BY 1, 2, 3, 4
    ) AS a USING (pool, interval_start, account_id, sku_id)
    LEFT JOIN pool_intervals i USING (pool, interval_start)
    WHERE interval_start >= :start AND interval_start < :end AND (:pool = '' OR pool = :pool)
) AS parts
"""
_SUMS: Final = (
    "sum(input_tokens)",
    "sum(cached_tokens)",
    "sum(output_tokens)",
    "sum(total_tokens)",
    "sum(request_count)",
    "sum(energy_mj)",
    "sum(idle_mj)",
    "sum(output_tokens) FILTER (WHERE energy_mj IS NOT NULL)",
    "sum(energy_mj) FILTER (WHERE is_valid)",
    "sum(output_tokens) FILTER (WHERE is_valid)",
    "sum(total_tokens) FILTER (WHERE is_valid)",
)
_MEASURED: Final = """
SELECT name AS pool, {time} AS start_ms, sum(measured_mj) AS measured_mj,
       sum(estimated_mj) AS estimated_mj, sum(covered_ms)::bigint AS covered_ms,
       sum(gap_ms)::bigint AS gap_ms, sum(reset_count)::bigint AS reset_count,
       count(*) FILTER (WHERE measured_mj <> 0) AS interval_count,
       count(*) FILTER (WHERE measured_mj <> 0 AND is_valid) AS valid_interval_count
FROM (
    SELECT e.*, i.attributed_version > 0 AND i.fault = '' AS is_valid
    FROM energy_intervals e
    LEFT JOIN pool_intervals i ON i.pool = e.name AND i.interval_start = e.interval_start
    WHERE e.interval_start >= :start AND e.interval_start < :end
      AND (:pool = '' OR e.name = :pool) AND e.boundary = :boundary
) AS measured
GROUP BY 1, 2
HAVING sum(measured_mj) <> 0 OR sum(gap_ms) <> 0 OR sum(reset_count) <> 0
ORDER BY 1, 2
LIMIT :limit
"""
# Shares of idling are somebody's: their reason does not stand for energy that is nobody's.
_SHARED: Final = """
SELECT pool, {time} AS start_ms, CASE WHEN sku_id IS NULL THEN reason ELSE '' END AS reason,
       sum(energy_mj) AS energy_mj
FROM energy_shares
WHERE interval_start >= :start AND interval_start < :end AND (:pool = '' OR pool = :pool)
  AND boundary = :boundary
GROUP BY 1, 2, 3
"""
_SUM_MAX: Final = 2**63 - 1


class EfficiencyStore:
    """Answers questions about energy."""

    def __init__(self, engine: Engine, *, factories: FactoryStore) -> None:
        """Take the engine, and where the factory is described."""
        self._engine = engine
        self._factories = factories

    def query(self, query: EfficiencyQuery) -> Efficiency:
        """Return tokens and energy, of one snapshot; raises InvalidArgument for too long a one."""
        values = {
            "start": to_time(query.start_ms),
            "end": to_time(query.end_ms),
            "pool": query.pool,
            "boundary": query.boundary.value,
            "limit": QUERY_ROWS_MAX + 1,
        }
        time = "NULL::bigint" if query.time_group is None else _TIME_SQL[query.time_group]
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            rows = connection.execute(text(_rows_text(query)), values).all()
            measured = connection.execute(text(_MEASURED.format(time=time)), values).all()
            shared = connection.execute(text(_SHARED.format(time=time)), values).all()
            sites = read_site_energy(
                connection,
                factory=self._factories.load_in(connection).at(query.end_ms - 1),
                start_ms=query.start_ms,
                end_ms=query.end_ms,
            )
        if max(len(rows), len(measured)) > QUERY_ROWS_MAX:
            raise _too_much(f"at most {QUERY_ROWS_MAX} rows", field="group_by")
        found = [_to_row(row, query) for row in rows]
        # Energy that was measured holds all its parts. Ten gigawatts reach this in eleven days.
        sums = [row.measured_mj for row in measured]
        sums += [row.energy_mj or 0 for row in found]
        sums += [max(site.facility_mj or 0, site.pools_mj) for site in sites]
        if max(sums, default=0) > _SUM_MAX:
            raise _too_much(f"a time with at most {_SUM_MAX} mJ", field="end_time")
        shares: dict[tuple[str, int | None], dict[str, int]] = {}
        for row in shared:
            shares.setdefault((row.pool, row.start_ms), {})[row.reason] = int(row.energy_mj)
        return Efficiency(
            rows=found,
            pools=[_to_pool(row, shares.get((row.pool, row.start_ms), {})) for row in measured],
            sites=sites,
        )


def _rows_text(query: EfficiencyQuery) -> str:
    keys = [_KEY_SQL[key] for key in query.group_by]
    places = ", ".join(str(place + 1) for place in range(len(keys)))
    return (
        f"SELECT {', '.join([*keys, *_SUMS])} FROM {_PARTS}"  # noqa: S608  own columns
        + (f" GROUP BY {places} ORDER BY {places}" if keys else "")
        + " LIMIT :limit"
    )


def _to_row(row: Any, query: EfficiencyQuery) -> EfficiencyRow:  # noqa: ANN401
    keys = row[: len(query.group_by)]
    # Postgres gives sums as numbers of any length, and nothing at all for those of no rows.
    sums = iter([None if it is None else int(it) for it in row[len(query.group_by) :]])
    return EfficiencyRow(
        keys=dict(zip(query.group_by, keys, strict=True)),
        input_tokens=next(sums) or 0,
        cached_tokens=next(sums) or 0,
        output_tokens=next(sums) or 0,
        total_tokens=next(sums) or 0,
        request_count=next(sums) or 0,
        energy_mj=next(sums),
        idle_mj=next(sums) or 0,
        attributed_output_tokens=next(sums) or 0,
        valid_energy_mj=next(sums),
        valid_output_tokens=next(sums) or 0,
        valid_total_tokens=next(sums) or 0,
    )


def _to_pool(row: Any, shares: Mapping[str, int]) -> PoolEnergy:  # noqa: ANN401
    measured_mj = int(row.measured_mj)
    unattributed = {reason: share for reason, share in sorted(shares.items()) if reason and share}
    pending_mj = measured_mj - sum(shares.values())
    if pending_mj:
        unattributed[PENDING] = pending_mj
    return PoolEnergy(
        pool=row.pool,
        start_ms=row.start_ms,
        measured_mj=measured_mj,
        attributed_mj=shares.get("", 0),
        unattributed_mj=unattributed,
        estimated_mj=int(row.estimated_mj),
        covered_ms=row.covered_ms,
        gap_ms=row.gap_ms,
        reset_count=row.reset_count,
        interval_count=row.interval_count,
        valid_interval_count=row.valid_interval_count,
    )


def _too_much(rule: str, *, field: str) -> InvalidArgument:
    return InvalidArgument(
        Reason.ARGUMENT_INVALID,
        f"The answer would be too large: {rule}. Ask for less time or fewer keys.",
        field=field,
        rule=rule,
    )
