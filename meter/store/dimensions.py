"""The dictionary of dimensions, read back: for metrics by tier and model."""

from collections import defaultdict

import numpy as np
from sqlalchemy import ARRAY, Engine, Integer, any_, literal, select

from meter.counting.aggregate import UsageDelta
from meter.domain.event import Int64Array
from meter.domain.tokens import TokenClass
from meter.store.engine import store_faults
from meter.store.tables import dimensions, skus


class DimensionReader:
    """Knows each dimension's tier and model; reads new ones as they come."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine
        # By dimension_id, the place of its (tier, model) in `_labels`; 0 is not read yet.
        self._places = np.zeros(1, np.int64)
        self._labels: list[tuple[str, str]] = [("", "")]

    def sum_by_tier_and_model(self, delta: UsageDelta) -> dict[tuple[str, str, TokenClass], int]:
        """Return a delta's tokens by tier, model and class; zero sums are left out."""
        places = self._places_of(delta.dimension_id)
        sums: dict[tuple[str, str, TokenClass], int] = defaultdict(int)
        for token_class, counts in delta.tokens.items():
            totals = np.zeros(len(self._labels), np.int64)
            np.add.at(totals, places, counts)
            for place in np.flatnonzero(totals):
                sums[(*self._labels[place], token_class)] += int(totals[place])
        return dict(sums)

    def _places_of(self, ids: Int64Array) -> Int64Array:
        highest = int(ids.max(initial=0))
        if highest >= len(self._places):
            self._places = np.append(self._places, np.zeros(highest, np.int64))
        missing = ids[self._places[ids] == 0]
        if len(missing):
            self._read(missing)
        return self._places[ids]

    def _read(self, missing: Int64Array) -> None:
        statement = (
            select(dimensions.c.dimension_id, skus.c.tier, skus.c.model)
            .join(skus, skus.c.sku_id == dimensions.c.sku_id)
            .where(dimensions.c.dimension_id == any_(literal(missing.tolist(), ARRAY(Integer))))
        )
        known = {label: place for place, label in enumerate(self._labels)}
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        for row in rows:
            label = (row.tier, row.model)
            if label not in known:
                known[label] = len(self._labels)
                self._labels.append(label)
            self._places[row.dimension_id] = known[label]
