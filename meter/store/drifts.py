"""Compares `period_totals` with the usage that it adds up, in one statement."""

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, text

from meter.counting.findings import Drift
from meter.domain.cell import Cell, cell_at, cells_over
from meter.domain.times import to_ms, to_time
from meter.store.folding import TOTALLED, folded_until_ms, of_usage

# A key that one side lacks is compared with zeros. Usage is added up where it is read: to hand rows
# on takes as long again.
_DRIFTS: Final = """
WITH cells AS (
    SELECT * FROM unnest(CAST(:cells AS timestamptz[]), CAST(:cell_ends AS timestamptz[]))
      AS c (cell_start, cell_end)
), apart AS (
    SELECT account_id, cell_start, sku_id, band, {sums},
           coalesce(max(used_cut), 0) - coalesce(max(kept_cut), 0) AS cut_id
    FROM (
        SELECT u.account_id, c.cell_start, u.sku_id, u.band, {columns},
               u.used_cut, NULL AS kept_cut
        FROM cells c {accounts}
        CROSS JOIN LATERAL (
            SELECT account_id, sku_id, band, {used}, max(cut_id) AS used_cut
            FROM usage n
            WHERE n.interval_start >= c.cell_start AND n.interval_start < c.cell_end {whose}
            GROUP BY account_id, sku_id, band
        ) u
        UNION ALL
        SELECT u.account_id, u.cell_start, u.sku_id, u.band, {negative}, NULL, u.last_cut_id
        FROM cells c {accounts}
        CROSS JOIN LATERAL (
            SELECT * FROM period_totals n WHERE n.cell_start = c.cell_start {whose} {fence}
        ) u
    ) AS parts
    GROUP BY 1, 2, 3, 4
    HAVING {differs} OR max(used_cut) IS DISTINCT FROM max(kept_cut)
)
SELECT a.*, s.model, s.tier FROM apart a LEFT JOIN skus s USING (sku_id)
ORDER BY account_id, cell_start, sku_id, band LIMIT :limit
"""
_EXTENT: Final = text("""
SELECT least(k.first, u.first) AS first, greatest(k.last, u.last) AS last
FROM (SELECT min(cell_start) AS first, max(cell_start) AS last FROM period_totals) k,
     (SELECT min(interval_start) AS first, max(interval_start) AS last FROM usage) u
""")
# Above it a batch of accounts is not told from another by more of them.
_LIMIT: Final = 100_000


def read_drifts(
    connection: Connection,
    *,
    account_ids: Collection[str] | None,
    start_ms: int,
    end_ms: int,
    limit: int = _LIMIT,
) -> Sequence[Drift]:
    """Return the sums that differ, of cells that have a part in `[start_ms, end_ms)`.

    None stands for all accounts. Each is one row of `period_totals`, or one that it lacks.
    """
    until_ms = folded_until_ms(connection)
    cells = list(cells_over(start_ms=start_ms, end_ms=min(end_ms, until_ms)))
    if not cells:
        return []
    one_by_one = account_ids is not None
    statement = _DRIFTS.format(
        columns=", ".join(f"u.{name}" for name in TOTALLED),
        used=", ".join(f"sum({of_usage(name, 'n')}) AS {name}" for name in TOTALLED),
        negative=", ".join(f"-u.{name}" for name in TOTALLED),
        sums=", ".join(f"sum({name}) AS {name}" for name in TOTALLED),
        differs=" OR ".join(f"sum({name}) <> 0" for name in TOTALLED),
        accounts="CROSS JOIN unnest(CAST(:accounts AS text[])) AS a (account_id)"
        if one_by_one
        else "",
        # OFFSET 0: by the index, account by account, however large a part of the table they are.
        whose='AND n.account_id = a.account_id COLLATE "C"' if one_by_one else "",
        fence="OFFSET 0" if one_by_one else "",
    )
    values = {
        "cells": [to_time(it.start_ms) for it in cells],
        "cell_ends": [to_time(min(it.end_ms, until_ms)) for it in cells],
        "limit": limit,
        **({"accounts": list(set(account_ids))} if account_ids is not None else {}),
    }
    return [_to_drift(row) for row in connection.execute(text(statement), values).mappings()]


def find_cells(
    connection: Connection, *, since_ms: int | None, until_ms: int | None
) -> Sequence[Cell]:
    """Return the cells of a span that may have sums or folded usage; None stands for all time."""
    first, last = connection.execute(_EXTENT).one()
    if first is None:
        return []
    start_ms = to_ms(first) if since_ms is None else since_ms
    end_ms = cell_at(to_ms(last)).end_ms if until_ms is None else until_ms
    return list(cells_over(start_ms=start_ms, end_ms=end_ms))


def _to_drift(row: Any) -> Drift:  # noqa: ANN401
    apart = {name: int(row[name]) for name in (*TOTALLED, "cut_id") if row[name]}
    return Drift(
        account_id=row["account_id"],
        cell_start_ms=to_ms(row["cell_start"]),
        model=row["model"] or "?",
        tier=row["tier"] or "?",
        band=row["band"],
        apart=apart,
    )
