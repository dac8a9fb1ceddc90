"""The dictionary of dimensions, read back: what a round of counting added, by name."""

from collections.abc import Sequence

from sqlalchemy import ARRAY, Engine, Integer, any_, literal, select

from meter.counting.aggregate import UsageDelta
from meter.domain.tokens import FinishClass, Mode
from meter.runtime.engine import store_faults
from meter.store.tables import dimensions, skus
from meter.usage import CountedRow, UsageFact

_Names = tuple[str, str, str, str, Mode, str, str]


class DimensionReader:
    """Knows each dimension by its names; reads new ones as they come."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine
        self._names: dict[int, _Names] = {}

    def counted_rows(self, delta: UsageDelta) -> Sequence[CountedRow]:
        """Return a delta's rows by name, in its order; counts of zero are left out."""
        ids = delta.dimension_id.tolist()
        self._read([it for it in set(ids) if it not in self._names])
        classes = [(it, counts.tolist()) for it, counts in delta.tokens.items()]
        columns = zip(
            ids,
            delta.interval_start_ms.tolist(),
            delta.band.tolist(),
            delta.finish_class.tolist(),
            delta.request_count.tolist(),
            strict=True,
        )
        rows = []
        for place, (dimension_id, start_ms, band, finish, request_count) in enumerate(columns):
            account_id, model, served_model, tier, mode, region, pool = self._names[dimension_id]
            fact = UsageFact(
                account_id=account_id,
                interval_start_ms=start_ms,
                model=model,
                served_model=served_model or model,
                tier=tier,
                mode=mode,
                region=region,
                band=band,
                finish_class=FinishClass(finish),
                tokens={it: counts[place] for it, counts in classes if counts[place]},
                request_count=request_count,
            )
            rows.append(CountedRow(fact=fact, pool=pool))
        return rows

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
                _, account_id, model, served_model, tier, mode, region, pool = row
                names = (account_id, model, served_model, tier, Mode(mode), region, pool)
                self._names[row.dimension_id] = names
