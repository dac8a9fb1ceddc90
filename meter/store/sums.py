"""Usage added up over spans of time: most of a month is one row of a key, folded before."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Engine, text

from meter.domain.cell import cells_over, divide
from meter.domain.times import to_time
from meter.domain.tokens import FinishClass, Mode, TokenClass
from meter.runtime.engine import SNAPSHOT, store_faults
from meter.store.drifts import read_drifts
from meter.store.folding import SUMMED, folded_until_ms
from meter.usage import UsageFact

# Rows that are held at a time.
_ROWS_AT_ONCE: Final = 10_000
# What the sums of one statement are kept in; the usual few MiB would not hold a batch of accounts.
_MEMORY: Final = text("SET LOCAL work_mem = '32MB'")
_CLASSES: Final = tuple(TokenClass)
_MODES: Final = {mode.value: mode for mode in Mode}
_CLASS_NAMES: Final = [token_class.name.lower() for token_class in _CLASSES]
# Of a cell in which an account has usage of a later cut, the usage itself is read. OFFSET 0 has the
# rest read by the index, account by account: some hundred accounts look like most of the table.
_SUMS: Final = """
WITH folded AS (
    SELECT t.*, w.place, w.cell_end
    FROM period_totals t
    JOIN unnest(CAST(:cells AS timestamptz[]), CAST(:cell_ends AS timestamptz[]),
                CAST(:places AS integer[])) AS w (cell_start, cell_end, place) USING (cell_start)
    WHERE t.account_id = ANY(CAST(:accounts AS text[]))
), later AS (
    SELECT DISTINCT account_id, cell_start, cell_end, place FROM folded WHERE last_cut_id > :cut
), parts AS (
    SELECT account_id, place, sku_id, band, {columns}
    FROM folded f
    WHERE NOT EXISTS (
        SELECT FROM later l WHERE l.account_id = f.account_id AND l.cell_start = f.cell_start
    )
    UNION ALL
    SELECT u.account_id, l.place, u.sku_id, u.band, {columns}
    FROM later l
    JOIN usage u ON u.account_id = l.account_id
     AND u.interval_start >= l.cell_start AND u.interval_start < l.cell_end
    WHERE u.cut_id <= :cut
    UNION ALL
    SELECT u.account_id, width_bucket(u.interval_start, CAST(:edges AS timestamptz[])) - 1,
           u.sku_id, u.band, {columns}
    FROM unnest(CAST(:accounts AS text[])) AS a (account_id)
    CROSS JOIN unnest(CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]))
      AS r (rest_start, rest_end)
    CROSS JOIN LATERAL (
        SELECT * FROM usage n
        WHERE n.account_id = a.account_id COLLATE "C"
          AND n.interval_start >= r.rest_start AND n.interval_start < r.rest_end
          AND (CAST(:cut AS integer) IS NULL OR n.cut_id <= :cut)
        OFFSET 0
    ) u
), added AS (
    SELECT account_id, place, sku_id, band, {sums} FROM parts GROUP BY 1, 2, 3, 4
)
SELECT a.account_id, a.place, s.model, s.served_model, s.tier, s.mode, s.region, a.band,
       request_count, {classes}
FROM added a JOIN skus s USING (sku_id)
ORDER BY account_id, place, sku_id, band
"""
_LATEST: Final = text("""
SELECT account_id, max(cut_id) AS cut_id
FROM (
    SELECT account_id, last_cut_id AS cut_id FROM period_totals
    WHERE account_id = ANY(CAST(:accounts AS text[]))
      AND cell_start = ANY(CAST(:cells AS timestamptz[]))
    UNION ALL
    SELECT account_id, cut_id FROM usage
    WHERE account_id = ANY(CAST(:accounts AS text[]))
      AND interval_start >= :start AND interval_start < :end
) AS parts
GROUP BY 1
""")


class SumStore:
    """Reads sums, a few thousand rows at a time."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def sums(
        self, *, account_ids: Collection[str], edges_ms: Sequence[int], cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield usage added up between edges, by account, edge and key."""
        statement = text(
            _SUMS.format(
                columns=", ".join(SUMMED),
                classes=", ".join(_CLASS_NAMES),
                sums=", ".join(f"sum({name})::bigint AS {name}" for name in SUMMED),
            )
        )
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            connection.execute(_MEMORY)
            division = divide(edges_ms, until_ms=folded_until_ms(connection))
            values = {
                "accounts": list(set(account_ids)),
                "edges": [to_time(it) for it in edges_ms],
                "places": [place for place, _ in division.whole],
                "cells": [to_time(cell.start_ms) for _, cell in division.whole],
                "cell_ends": [to_time(cell.end_ms) for _, cell in division.whole],
                "starts": [to_time(start_ms) for start_ms, _ in division.rest],
                "ends": [to_time(end_ms) for _, end_ms in division.rest],
                "cut": cut_id,
            }
            streamed = connection.execution_options(yield_per=_ROWS_AT_ONCE)
            with streamed.execute(statement, values) as rows:
                for row in rows:
                    yield _to_fact(tuple(row), edges_ms=edges_ms)

    def latest_cuts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, int]:
        """Return for each account with usage in `[start_ms, end_ms)` its newest cut in there."""
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            until_ms = folded_until_ms(connection)
            folded = cells_over(start_ms=start_ms, end_ms=min(end_ms, until_ms))
            values = {
                "accounts": list(account_ids),
                "cells": [to_time(cell.start_ms) for cell in folded],
                "start": to_time(max(start_ms, until_ms)),
                "end": to_time(end_ms),
            }
            return {row.account_id: row.cut_id for row in connection.execute(_LATEST, values)}

    def drifted(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int
    ) -> frozenset[str]:
        """Return those accounts whose sums are not what their usage adds up to."""
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            drifts = read_drifts(
                connection, account_ids=account_ids, start_ms=start_ms, end_ms=end_ms
            )
            return frozenset(it.account_id for it in drifts)


def _to_fact(row: tuple[Any, ...], *, edges_ms: Sequence[int]) -> UsageFact:
    account_id, place, model, served_model, tier, mode, region, band, request_count, *counts = row
    return UsageFact(
        account_id=account_id,
        interval_start_ms=edges_ms[place],
        model=model,
        served_model=served_model or model,
        tier=tier,
        mode=_MODES[mode],
        region=region,
        band=band,
        finish_class=FinishClass.DELIVERED,
        tokens={
            token_class: count for token_class, count in zip(_CLASSES, counts, strict=True) if count
        },
        request_count=request_count,
    )
