"""Usage added up by the database over spans of time."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from sqlalchemy import Engine, text

from meter.domain.times import to_time
from meter.domain.tokens import FinishClass, Mode, TokenClass
from meter.runtime.engine import SNAPSHOT, store_faults
from meter.usage import UsageFact

# Rows that are held at a time.
_ROWS_AT_ONCE = 10_000
_COLUMNS = {token_class: token_class.name.lower() for token_class in TokenClass}


class SumStore:
    """Reads sums, a few thousand rows at a time."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def sums(
        self, *, account_ids: Collection[str], edges_ms: Sequence[int], cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield usage added up between edges, by account, edge and key."""
        sums = ", ".join(f"sum(u.{name})::bigint AS {name}" for name in _COLUMNS.values())
        statement = text(
            "SELECT u.account_id,"  # noqa: S608  own names
            " width_bucket(u.interval_start, CAST(:edges AS timestamptz[])) AS place,"
            " s.model, s.served_model, s.tier, s.mode, s.region, u.band,"
            f" {sums}, sum(u.request_count)::bigint AS request_count"
            " FROM usage u JOIN skus s USING (sku_id)"
            " WHERE u.account_id = ANY(CAST(:accounts AS text[]))"
            " AND u.interval_start >= :start AND u.interval_start < :end"
            " AND (CAST(:cut AS integer) IS NULL OR u.cut_id <= :cut)"
            " GROUP BY 1, 2, u.sku_id, s.sku_id, u.band ORDER BY 1, 2, u.sku_id, u.band"
        )
        values = {
            "accounts": list(account_ids),
            "edges": [to_time(it) for it in edges_ms],
            "start": to_time(edges_ms[0]),
            "end": to_time(edges_ms[-1]),
            "cut": cut_id,
        }
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            streamed = connection.execution_options(yield_per=_ROWS_AT_ONCE)
            with streamed.execute(statement, values) as rows:
                for row in rows.mappings():
                    yield UsageFact(
                        account_id=row["account_id"],
                        interval_start_ms=edges_ms[row["place"] - 1],
                        model=row["model"],
                        served_model=row["served_model"] or row["model"],
                        tier=row["tier"],
                        mode=Mode(row["mode"]),
                        region=row["region"],
                        band=row["band"],
                        finish_class=FinishClass.DELIVERED,
                        tokens={
                            token_class: int(row[name])
                            for token_class, name in _COLUMNS.items()
                            if row[name]
                        },
                        request_count=int(row["request_count"]),
                    )

    def latest_cuts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, int]:
        """Return for each account with usage in `[start_ms, end_ms)` its newest cut in there."""
        statement = text(
            "SELECT account_id, max(cut_id) FROM usage"
            " WHERE account_id = ANY(CAST(:accounts AS text[]))"
            " AND interval_start >= :start AND interval_start < :end GROUP BY account_id"
        )
        values = {
            "accounts": list(account_ids),
            "start": to_time(start_ms),
            "end": to_time(end_ms),
        }
        with store_faults(), self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(statement, values)}
