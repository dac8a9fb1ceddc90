"""Usage added up by the database, in a statement of its own: what invoices are compared with."""

from collections.abc import Collection, Iterator, Mapping

from sqlalchemy import Engine, text

from meter.domain.times import to_time
from meter.domain.tokens import TokenClass
from meter.runtime.engine import store_faults


class UsageTotals:
    """Adds usage at or below a cut up."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def totals(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, cut_id: int
    ) -> Iterator[tuple[tuple[str, str, str, int], Mapping[TokenClass, int]]]:
        """Yield model, served model, tier and mode with tokens by class, of usage in a span."""
        sums = ", ".join(f"sum(u.{each.name.lower()})::bigint" for each in TokenClass)
        statement = text(
            f"SELECT s.model, s.served_model, s.tier, s.mode, {sums}"  # noqa: S608  own names
            " FROM usage u JOIN skus s USING (sku_id)"
            " WHERE u.account_id = ANY(CAST(:accounts AS text[]))"
            " AND u.interval_start >= :start AND u.interval_start < :end AND u.cut_id <= :cut"
            " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        )
        values = {
            "accounts": list(account_ids),
            "start": to_time(start_ms),
            "end": to_time(end_ms),
            "cut": cut_id,
        }
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(statement, values).all()
        for row in rows:
            model, served_model, tier, mode, *counts = row
            key = (model, served_model or model, tier, mode)
            yield key, dict(zip(TokenClass, map(int, counts), strict=True))
