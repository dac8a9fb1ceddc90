"""What the audit reads of Postgres: a survey of all, and snapshots of windows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import numpy as np
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from meter.counting.audit import Catalogue, CutMarks, Sku, UsageRows, Window
from meter.counting.auditor import StoredSegment, Survey
from meter.counting.block import SUM_NAMES
from meter.counting.findings import Drift, EnergyFault
from meter.counting.windows import Extent, Weights
from meter.domain.boundary import Boundary
from meter.domain.event import Int64Array
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_ms, to_time
from meter.runtime.engine import refusals, store_faults
from meter.store.archived_bodies import ArchivedBodies
from meter.store.audit_segments import copy_rows, read_segments
from meter.store.drifts import find_cells, read_drifts

# Positions of one extent: a small table of them finds the segments of a window.
_EXTENT_POSITIONS: Final = 1_000
_FAULTS_MAX: Final = 100
_FIRST_TIME: Final = to_time(0)
_LAST_TIME: Final = to_time(2**42)
_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"

# Accounts get numbers in the order of their ids; none is ever deleted.
_NUMBERED: Final = """
WITH numbered AS (
    SELECT account_id, row_number() OVER (ORDER BY account_id)::bigint AS number FROM accounts
)
"""
_DIMENSIONS: LiteralString = (
    _NUMBERED
    + """
SELECT d.dimension_id::bigint, coalesce(n.number, 0)::bigint, d.sku_id::bigint
FROM dimensions d LEFT JOIN numbered n USING (account_id)
"""
)
_CATALOGUE_SIZE: Final = text("""
SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM skus),
       (SELECT count(*) FROM dimensions)
""")
_USAGE: LiteralString = (
    _NUMBERED
    + """
SELECT coalesce(n.number, 0)::bigint, extract(epoch FROM u.interval_start)::bigint,
       u.sku_id::bigint, u.band::bigint, u.finish_class::bigint, u.cut_id::bigint, {sums}
FROM usage u LEFT JOIN numbered n USING (account_id)
WHERE u.interval_start >= {start} AND u.interval_start < {end}
"""
)
_USAGE_KEYS: Final = 6
_EXTENTS: Final = text("""
SELECT shard, min(position) AS first_position, max(position) AS last_position, count(*) AS total,
       min(first_end_time) AS first_time, max(last_end_time) AS last_time
FROM journal_segments GROUP BY shard, position / :positions ORDER BY 1, 2
""")
_HOLES: Final = text("""
SELECT position + 1 AS first, next - 1 AS last
FROM (
    SELECT position, lead(position) OVER (ORDER BY position) AS next
    FROM (
        SELECT position FROM journal_segments WHERE shard = :shard
        UNION ALL SELECT 0 UNION ALL SELECT :above
    ) AS every
) AS pairs
WHERE next > position + 1 ORDER BY 1 LIMIT :limit
""")
_STRAY: Final = text("""
SELECT j.shard, j.position FROM journal_segments j JOIN shards s USING (shard)
WHERE j.position > s.position ORDER BY 1, 2 LIMIT :limit
""")
_WEIGHTS: Final = text("""
SELECT start, sum(rows)::bigint AS rows, sum(events)::bigint AS events
FROM (
    SELECT extract(epoch FROM interval_start)::bigint AS start, count(*) AS rows, 0 AS events
    FROM usage GROUP BY 1
    UNION ALL
    SELECT floor(extract(epoch FROM first_end_time) / 900)::bigint * 900, 0, sum(event_count)
    FROM journal_segments GROUP BY 1
) AS parts
GROUP BY 1 ORDER BY 1
""")
_RELEASED: Final = text("""
SELECT coalesce(k.account_id, '') AS account_id, q.producer, q.sequence, count(*) AS total
FROM quarantine q LEFT JOIN api_keys k USING (key_id)
WHERE q.state = 2 AND q.sequence > 0 GROUP BY 1, 2, 3
""")
_SHARED: Final = """
FROM (
    SELECT pool, interval_start, boundary, sum(measured_mj) AS measured_mj,
           sum(shared_mj) AS shared_mj
    FROM (
        SELECT name AS pool, interval_start, boundary, measured_mj, 0 AS shared_mj
        FROM energy_intervals WHERE boundary <> 'facility'
        UNION ALL SELECT pool, interval_start, boundary, 0, energy_mj FROM energy_shares
    ) AS parts
    JOIN pool_intervals i USING (pool, interval_start)
    WHERE i.version = i.attributed_version
      AND interval_start >= :start AND interval_start < :end
    GROUP BY 1, 2, 3
) AS shared
"""
_ENERGY_COUNT: Final = text("SELECT count(*)" + _SHARED)
_ENERGY_APART: Final = text(
    f"SELECT * {_SHARED} WHERE measured_mj <> shared_mj ORDER BY 2, 1, 3 LIMIT :limit"
)


class AuditStore:
    """Surveys the journal, and opens a snapshot for each window: none is held for long.

    A long one would keep Postgres from clearing up behind the counting.
    """

    def __init__(self, engine: Engine, *, archive: ArchivedBodies | None = None) -> None:
        """Take the engine, and what reads the bodies that left the database."""
        self._engine = engine
        self._archive = archive or ArchivedBodies()
        self._known: dict[tuple[int, ...], Catalogue] = {}

    def survey(self, *, since_ms: int | None, until_ms: int | None) -> Survey:
        """Look at all that there is; None stands for the first and the last event."""
        with refusals("the audit"), store_faults(), self._engine.begin() as connection:
            connection.execute(text(_SNAPSHOT))
            shards = connection.execute(text("SELECT shard, position FROM shards ORDER BY 1")).all()
            positions = {row.shard: int(row.position) for row in shards}
            rows = connection.execute(_EXTENTS, {"positions": _EXTENT_POSITIONS}).all()
            weights = _read_weights(connection)
            stray = connection.execute(_STRAY, {"limit": _FAULTS_MAX}).all()
            released = connection.execute(_RELEASED).all()
            missing = _find_holes(connection, positions, rows)
        extents = [_to_extent(row) for row in rows]
        starts = weights.start_ms.tolist()
        first_ms = min([each.first_ms for each in extents] + starts[:1], default=0)
        last_ms = max([each.last_ms for each in extents] + starts[-1:], default=-1)
        first_ms, last_ms = (each // INTERVAL_MS * INTERVAL_MS for each in (first_ms, last_ms))
        return Survey(
            since_ms=first_ms if since_ms is None else since_ms,
            until_ms=last_ms + INTERVAL_MS if until_ms is None else until_ms,
            positions=positions,
            segment_count=sum(row.total for row in rows),
            missing=missing,
            stray=[(row.shard, row.position) for row in stray],
            extents=extents,
            weights=weights,
            released={(it.account_id, it.producer, it.sequence): it.total for it in released},
        )

    def energy_faults(
        self, *, since_ms: int | None, until_ms: int | None
    ) -> tuple[int, Sequence[EnergyFault]]:
        """Return how many intervals of pools are attributed, and those that do not add up."""
        span = {
            "start": _FIRST_TIME if since_ms is None else to_time(since_ms),
            "end": _LAST_TIME if until_ms is None else to_time(until_ms),
        }
        with refusals("the audit"), store_faults(), self._engine.begin() as connection:
            connection.execute(text(_SNAPSHOT))
            count = int(connection.execute(_ENERGY_COUNT, span).scalar_one())
            rows = connection.execute(_ENERGY_APART, {**span, "limit": _FAULTS_MAX}).all()
        return count, [
            EnergyFault(
                pool=row.pool,
                boundary=Boundary(row.boundary),
                interval_start_ms=to_ms(row.interval_start),
                measured_mj=int(row.measured_mj),
                shared_mj=int(row.shared_mj),
            )
            for row in rows
        ]

    def drifts(self, *, since_ms: int | None, until_ms: int | None) -> Iterator[Drift]:
        """Yield the sums of `period_totals` that are not their usage, the first of each cell."""
        with refusals("the audit"), store_faults(), self._engine.begin() as connection:
            cells = find_cells(connection, since_ms=since_ms, until_ms=until_ms)
        for cell in cells:
            with refusals("the audit"), store_faults(), self._engine.begin() as connection:
                connection.execute(text(_SNAPSHOT))
                yield from read_drifts(
                    connection,
                    account_ids=None,
                    start_ms=cell.start_ms,
                    end_ms=cell.end_ms,
                    limit=_FAULTS_MAX,
                )

    @contextmanager
    def snapshot(self, survey: Survey) -> Iterator["AuditSnapshot"]:
        """Open a snapshot of now."""
        with refusals("the audit"), store_faults(), self._engine.begin() as connection:
            connection.execute(text(_SNAPSHOT))
            yield AuditSnapshot(
                connection, extents=survey.extents, known=self._known, archive=self._archive
            )


class AuditSnapshot:
    """One moment of the database, read only."""

    def __init__(
        self,
        connection: Connection,
        *,
        extents: Sequence[Extent],
        known: dict[tuple[int, ...], Catalogue],
        archive: ArchivedBodies,
    ) -> None:
        """Take a connection in a transaction of its own, and where segments lie.

        `known` keeps the last catalogue that was read, by its size: nothing of it is ever deleted.
        """
        self._known = known
        self._archive = archive
        self._connection = connection
        self._extents = extents

    def catalogue(self) -> Catalogue:
        """Return the dictionaries."""
        size = tuple(self._connection.execute(_CATALOGUE_SIZE).one())
        if size not in self._known:
            self._known.clear()
            self._known[size] = self._read_catalogue()
        return self._known[size]

    def cut_marks(self) -> CutMarks:
        """Return where cuts were taken."""
        newest = self._connection.execute(text("SELECT coalesce(max(cut_id), 0) FROM cuts"))
        rows = self._connection.execute(
            text("SELECT shard, cut_id, position FROM cut_positions ORDER BY 1, 2")
        )
        by_shard: dict[int, tuple[list[int], list[int]]] = {}
        for row in rows:
            ids, positions = by_shard.setdefault(row.shard, ([], []))
            ids.append(row.cut_id)
            positions.append(int(row.position))
        return CutMarks(newest_id=int(newest.scalar_one()), by_shard=by_shard)

    def usage(self, window: Window) -> UsageRows:
        """Return the rows of a window."""
        question = sql.SQL(_USAGE).format(
            sums=sql.SQL(", ").join(sql.Identifier("u", name) for name in SUM_NAMES),
            start=to_time(window.start_ms),
            end=to_time(window.end_ms),
        )
        rows = _copy_numbers(self._connection, question, columns=_USAGE_KEYS + len(SUM_NAMES))
        return UsageRows(
            account_number=rows[:, 0],
            interval_start_ms=rows[:, 1] * 1000,
            sku_id=rows[:, 2],
            band=rows[:, 3],
            finish_class=rows[:, 4],
            cut_id=rows[:, 5],
            sums=rows[:, _USAGE_KEYS:],
        )

    def segments(self, window: Window) -> Iterator[StoredSegment]:
        """Yield what is counted and may hold events of a window, by shard and position."""
        yield from read_segments(
            self._connection, window, extents=self._extents, archive=self._archive
        )

    def _read_catalogue(self) -> Catalogue:
        accounts = self._connection.execute(
            text("SELECT account_id FROM accounts ORDER BY account_id")
        )
        skus = self._connection.execute(
            text("SELECT sku_id, model, served_model, tier, mode, region FROM skus")
        )
        ids = _copy_numbers(self._connection, sql.SQL(_DIMENSIONS), columns=3)
        return Catalogue(
            accounts=accounts.scalars().all(),
            skus={
                row.sku_id: Sku(
                    model=row.model,
                    served_model=row.served_model,
                    tier=row.tier,
                    mode=row.mode,
                    region=row.region,
                )
                for row in skus
            },
            dimension_id=ids[:, 0],
            account_number=ids[:, 1],
            sku_id=ids[:, 2],
        )


def _read_weights(connection: Connection) -> Weights:
    rows = connection.execute(_WEIGHTS).all()
    table = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 3)
    return Weights(start_ms=table[:, 0] * 1000, row_count=table[:, 1], event_count=table[:, 2])


def _find_holes(
    connection: Connection, positions: Mapping[int, int], rows: Sequence[Any]
) -> list[tuple[int, int, int]]:
    """Return the runs of positions that are missing; looks closer only where some are."""
    held = dict.fromkeys(positions, 0)
    for row in rows:
        held[row.shard] = held.get(row.shard, 0) + row.total
    holes = []
    for shard, newest in positions.items():
        if held[shard] < newest:
            values = {"shard": shard, "above": newest + 1, "limit": _FAULTS_MAX}
            found = connection.execute(_HOLES, values).all()
            holes += [(shard, int(row.first), int(row.last)) for row in found]
    return holes


def _to_extent(row: Any) -> Extent:  # noqa: ANN401
    return Extent(
        shard=row.shard,
        first_position=int(row.first_position),
        last_position=int(row.last_position),
        first_ms=to_ms(row.first_time),
        last_ms=to_ms(row.last_time),
    )


def _copy_numbers(connection: Connection, question: sql.Composable, *, columns: int) -> Int64Array:
    """Return the rows of a question whose columns are all bigint and never NULL."""
    data = b"".join(copy_rows(connection, question))
    cell = [("size", ">i4"), ("value", ">i8")]
    rows = np.frombuffer(data, [("fields", ">i2"), ("cells", cell, (columns,))])
    return rows["cells"]["value"].astype(np.int64)
