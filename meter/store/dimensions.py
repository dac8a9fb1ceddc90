"""The dictionary of dimensions, read back: what a round of counting added, by name."""

from collections.abc import Sequence

from sqlalchemy import ARRAY, Engine, Integer, any_, literal, select

from meter.counting.aggregate import UsageDelta
from meter.domain.event import Dimensions
from meter.runtime.engine import store_faults
from meter.store.tables import dimensions, skus
from meter.usage import CountedRow


class DimensionReader:
    """Knows each dimension by its names; reads new ones as they come."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine
        self._known: dict[int, Dimensions] = {}

    def counted_rows(self, delta: UsageDelta) -> Sequence[CountedRow]:
        """Return a delta's rows by name, in its order."""
        ids = delta.dimension_id.tolist()
        self._read([it for it in set(ids) if it not in self._known])
        names = list(delta.tokens)
        counts = zip(*(column.tolist() for column in delta.tokens.values()), strict=True)
        columns = zip(
            ids, delta.interval_start_ms.tolist(), delta.band.tolist(), counts, strict=True
        )
        return [
            CountedRow(
                self._known[dimension_id],
                start_ms,
                band,
                {name: count for name, count in zip(names, row, strict=True) if count},
            )
            for dimension_id, start_ms, band, row in columns
        ]

    def _read(self, missing: Sequence[int]) -> None:
        if not missing:
            return
        statement = (
            select(
                dimensions.c.dimension_id,
                dimensions.c.account_id,
                skus.c.model,
                skus.c.served_model,
                skus.c.tier,
                skus.c.mode,
                skus.c.region,
                dimensions.c.pool,
            )
            .join(skus, skus.c.sku_id == dimensions.c.sku_id)
            .where(dimensions.c.dimension_id == any_(literal(list(missing), ARRAY(Integer))))
        )
        with store_faults(), self._engine.connect() as connection:
            for row in connection.execute(statement):
                dimension_id, account_id, model, served_model, tier, mode, region, pool = row
                self._known[dimension_id] = Dimensions(
                    account_id, model, served_model, tier, mode, pool, region
                )
