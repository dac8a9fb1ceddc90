"""Questions to usage: months are read where they are added up, and the rest row by row."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, text

from meter.domain.cell import Cell, divide
from meter.domain.errors import InvalidArgument, Reason
from meter.domain.limits import QUERY_ROWS_MAX
from meter.domain.times import to_ms, to_time
from meter.domain.tokens import TokenClass
from meter.store.folding import TOTALLED, folded_until_ms, of_usage
from meter.usage import GroupBy, UsageQuery, UsageRow

# The most energy (mJ) that an answer's number holds.
_SUM_MAX: Final = 2**63 - 1
# Spans that are read row by row; a question with more of them is read so as a whole.
_SPANS_MAX: Final = 12
_KEY_SQL: Final = {
    GroupBy.ACCOUNT: "u.account_id",
    GroupBy.MODEL: "s.model",
    GroupBy.SERVED_MODEL: "s.served_model",
    GroupBy.TIER: "s.tier",
    GroupBy.MODE: "s.mode",
    GroupBy.REGION: "s.region",
    GroupBy.BAND: "u.band",
    GroupBy.INTERVAL: "extract(epoch FROM u.interval_start)::bigint * 1000",
    GroupBy.DAY: "extract(epoch FROM date_trunc('day', u.interval_start, 'UTC'))::bigint * 1000",
}

# Who lay below the root in which span of time: edges are followed only while both hold.
_SUBTREE: Final = """
WITH RECURSIVE edges AS (
    SELECT account_id, parent_id,
           -- Before its first edge an account has its first parent: late usage finds its place.
           CASE WHEN row_number() OVER (PARTITION BY account_id ORDER BY start_time) = 1
                THEN '-infinity' ELSE start_time END AS start_time,
           lead(start_time, 1, 'infinity') OVER (PARTITION BY account_id ORDER BY start_time)
               AS end_time
    FROM account_parents
), below (account_id, start_time, end_time) AS (
    SELECT CAST(:root AS text) COLLATE "C",
           '-infinity'::timestamptz, 'infinity'::timestamptz
    UNION ALL
    SELECT e.account_id, greatest(e.start_time, b.start_time), least(e.end_time, b.end_time)
    FROM below b JOIN edges e ON e.parent_id = b.account_id
    WHERE e.start_time < b.end_time AND e.end_time > b.start_time
)
"""


# Moves, but for an account's first parent, which it has had from the beginning of time.
_MOVES: Final = text("""
SELECT DISTINCT start_time FROM account_parents m
WHERE start_time > :start AND start_time < :end AND EXISTS (
    SELECT FROM account_parents e WHERE e.account_id = m.account_id AND e.start_time < m.start_time
)
""")


def read_usage(connection: Connection, query: UsageQuery) -> Sequence[UsageRow]:
    """Return rows ordered by their keys, of one snapshot; raises InvalidArgument when too many."""
    values: dict[str, object] = {
        "root": query.account_id,
        "start": to_time(query.start_ms),
        "end": to_time(query.end_ms),
        "model": query.model,
        "tier": query.tier,
    }
    parts, spans = _parts_of(connection, query)
    rows = connection.execute(text(_query_text(query, parts=parts)), values | spans).all()
    if len(rows) > QUERY_ROWS_MAX:
        raise _too_much(f"at most {QUERY_ROWS_MAX} rows", field="group_by")
    energy = _select_energy(connection, query, values=values)
    if max(energy.values(), default=0) > _SUM_MAX:
        raise _too_much(f"a time with at most {_SUM_MAX} mJ", field="end_time")
    # A key whose events were all voided has no row; without keys there is one, of nothing too.
    kept = (row for row in rows if not query.group_by or any(row[len(query.group_by) :]))
    return [_to_usage_row(row, query, energy=energy) for row in kept]


def _parts_of(connection: Connection, query: UsageQuery) -> tuple[str, dict[str, object]]:
    """Return where the usage of a question lies, as a table with a row for each part, and values.

    A row's `interval_start` is the begin of its interval, or of its cell. Of a subtree they are the
    parts of one row of `below`.
    """
    cells, rest = _divide(connection, query)
    whose = " AND q.account_id = b.account_id" if query.account_id is not None else ""
    keys = "q.account_id, {time} AS interval_start, q.sku_id, q.band"
    used = ", ".join(f"{of_usage(name, 'q')} AS {name}" for name in TOTALLED)
    kept = ", ".join(f"q.{name}" for name in TOTALLED)
    parts = [
        f"SELECT {keys.format(time='q.interval_start')}, {used} FROM usage q"  # noqa: S608
        f" WHERE q.interval_start >= :start_{place} AND q.interval_start < :end_{place}{whose}"
        for place in range(len(rest))
    ]
    values: dict[str, object] = {}
    for place, (start_ms, end_ms) in enumerate(rest):
        values |= {f"start_{place}": to_time(start_ms), f"end_{place}": to_time(end_ms)}
    if cells:
        parts.append(
            f"SELECT {keys.format(time='q.cell_start')}, {kept} FROM period_totals q"  # noqa: S608
            f" WHERE q.cell_start = ANY(CAST(:cells AS timestamptz[])){whose}"
        )
        values["cells"] = [to_time(it.start_ms) for it in cells]
    return f"LATERAL ({' UNION ALL '.join(parts)})", values


def _divide(
    connection: Connection, query: UsageQuery
) -> tuple[Sequence[Cell], Sequence[tuple[int, int]]]:
    """Return the cells whose sums answer the question, and the spans whose rows do."""
    whole = (query.start_ms, query.end_ms)
    if {GroupBy.INTERVAL, GroupBy.DAY} & set(query.group_by) or whole[0] >= whole[1]:
        return [], [whole]
    until_ms = folded_until_ms(connection)
    cells = [cell for _, cell in divide(whole, until_ms=until_ms).whole]
    if cells and query.account_id is not None:
        values = {"start": to_time(whole[0]), "end": to_time(whole[1])}
        moves_ms = [to_ms(it) for it in connection.execute(_MOVES, values).scalars()]
        # A cell in which somebody moved is of one parent in part, and of another in part.
        cells = [it for it in cells if not any(it.start_ms < move < it.end_ms for move in moves_ms)]
    edges = [whole[0], *(edge for it in cells for edge in (it.start_ms, it.end_ms)), whole[1]]
    rest = [span for span in zip(edges[::2], edges[1::2], strict=True) if span[0] < span[1]]
    return (cells, rest) if len(rest) <= _SPANS_MAX else ([], [whole])


def _query_text(query: UsageQuery, *, parts: str) -> str:
    keys = [_KEY_SQL[key] for key in query.group_by]
    columns = [*keys, *(f"sum(u.{name})" for name in TOTALLED)]
    places = ", ".join(str(place + 1) for place in range(len(keys)))
    return (
        _select_text(query, columns=columns, table=parts)
        + (f" GROUP BY {places} ORDER BY {places}" if keys else "")
        + f" LIMIT {QUERY_ROWS_MAX + 1}"
    )


def _select_energy(
    connection: Connection, query: UsageQuery, *, values: Mapping[str, object]
) -> Mapping[tuple[Any, ...], int]:
    """Return the energy (mJ) of boards by the values of the keys; nothing by band."""
    if GroupBy.BAND in query.group_by:
        return {}
    keys = [_KEY_SQL[key] for key in query.group_by]
    columns = [*keys, "sum(u.energy_mj)"]
    places = ", ".join(str(place + 1) for place in range(len(keys)))
    statement = (
        _select_text(query, columns=columns, table="energy_shares")
        + " AND u.boundary = 'board' AND u.sku_id IS NOT NULL"
        + (f" GROUP BY {places}" if keys else "")
        + " HAVING sum(u.energy_mj) <> 0"
    )
    found = connection.execute(text(statement), values)
    return {row[:-1]: int(row[-1]) for row in map(tuple, found)}


def _too_much(rule: str, *, field: str) -> InvalidArgument:
    return InvalidArgument(
        Reason.ARGUMENT_INVALID,
        f"The answer would be too large: {rule}. Ask for less time or fewer keys.",
        field=field,
        rule=rule,
    )


def _select_text(query: UsageQuery, *, columns: Sequence[str], table: str) -> str:
    """Return the begin of a question to a table that is kept by account, interval and sku."""
    source = f"{table} u"
    inside = ""
    if query.account_id is not None:
        source = f"below b JOIN {source} ON b.account_id = u.account_id"
        inside = " AND u.interval_start >= b.start_time AND u.interval_start < b.end_time"
    selected = f"SELECT {', '.join(columns)} FROM {source} JOIN skus s USING (sku_id)"  # noqa: S608
    return (
        (_SUBTREE if query.account_id is not None else "")
        + selected
        + " WHERE u.interval_start >= :start AND u.interval_start < :end"
        + (" AND s.model = :model" if query.model else "")
        + (" AND s.tier = :tier" if query.tier else "")
        + inside
    )


def _to_usage_row(
    row: Any,  # noqa: ANN401
    query: UsageQuery,
    *,
    energy: Mapping[tuple[Any, ...], int],
) -> UsageRow:
    count = len(query.group_by)
    sums = dict(zip(TOTALLED, (int(value or 0) for value in row[count:]), strict=True))
    return UsageRow(
        keys=dict(zip(query.group_by, row[:count], strict=True)),
        tokens={
            token_class: sums[token_class.name.lower()]
            for token_class in TokenClass
            if sums[token_class.name.lower()]
        },
        request_count=sums["request_count"],
        unfinished_count=sums["unfinished_count"],
        delivered_output_count=sums["delivered_output_count"],
        estimated_count=sums["estimated_count"],
        energy_mj=energy.get(tuple(row[:count])),
    )
