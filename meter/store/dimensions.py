"""The dictionary of dimensions, read back: what a round of counting added, by name."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import ARRAY, Engine, Integer, any_, literal, select

from meter.counted import Counted
from meter.counting.aggregate import UsageDelta
from meter.domain.event import Dimensions
from meter.runtime.engine import connection_count, store_faults
from meter.store.tables import dimensions, skus


class DimensionReader:
    """Knows each dimension by its names; reads new ones as they come."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine
        self._known: dict[int, Dimensions] = {}
        self._connection_count = 0

    def counted(self, delta: UsageDelta) -> Counted:
        """Return a delta with what its ids stand for; reads those that are new."""
        count = connection_count(self._engine)
        if count != self._connection_count:
            # The database may be an older one, in which an id means another.
            self._known, self._connection_count = {}, count
        known = self._known
        missing = [it for it in np.unique(delta.dimension_id).tolist() if it not in known]
        self._read(missing, into=known)
        return Counted(
            dimension_id=delta.dimension_id,
            interval_start_ms=delta.interval_start_ms,
            band=delta.band,
            finish_class=delta.finish_class,
            tokens=delta.tokens,
            request_count=delta.request_count,
            dimensions=known,
            sampled=delta.sampled,
        )

    def _read(self, missing: Sequence[int], *, into: dict[int, Dimensions]) -> None:
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
                into[dimension_id] = Dimensions(
                    account_id, model, served_model, tier, mode, pool, region
                )
