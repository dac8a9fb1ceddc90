"""Usage by pool and account, added beside usage itself: what energy is shared out by."""

from typing import Final

import numpy as np
from sqlalchemy import Connection, text

from meter.counting.aggregate import UsageDelta, regroup
from meter.domain.event import Int64Array
from meter.domain.tokens import (
    CACHED_CLASSES,
    OUTPUT_CLASSES,
    PROMPT_CLASSES,
    FinishClass,
    TokenClass,
)
from meter.store.dimension_keys import DimensionKeys
from meter.store.energy_tables import pool_usage
from meter.store.merging import Rows, merge_rows

# In the order of the key, and after all of the rows: whoever attributes locks the intervals first,
# and then reads the rows.
_MARK: Final = text(
    """
INSERT INTO pool_intervals AS i (pool, interval_start)
SELECT DISTINCT pool, interval_start FROM incoming_pool_usage ORDER BY 1, 2
ON CONFLICT (pool, interval_start) DO UPDATE SET version = i.version + 1
"""
)


def pool_rows(delta: UsageDelta, *, keys: DimensionKeys) -> Rows:
    """Return what a delta adds to `pool_usage`: of those events alone that name a pool."""
    count = len(delta)
    whole = regroup(
        delta,
        dimension_id=delta.dimension_id,
        band=np.zeros(count, np.int64),
        finish_class=np.full(count, FinishClass.DELIVERED.value),
    )
    pool = keys.pool_of(whole.dimension_id)
    account_id, sku_id = keys.account_and_sku(keys.pair_of(whole.dimension_id))
    rows = {
        "pool": pool,
        "interval_start": whole.interval_start_ms.astype("datetime64[ms]"),
        "account_id": account_id,
        "sku_id": sku_id,
        "input_tokens": _total(whole, PROMPT_CLASSES - CACHED_CLASSES),
        "cached_tokens": _total(whole, CACHED_CLASSES),
        "output_tokens": _total(whole, OUTPUT_CLASSES),
        "total_tokens": _total(whole, frozenset(TokenClass)),
        "request_count": whole.request_count,
    }
    named = np.flatnonzero(pool != b"")
    return {name: values[named] for name, values in rows.items()}


def merge_pool_usage(connection: Connection, rows: Rows) -> None:
    """Add rows that were sent; the pools' intervals are marked as changed, and attributed anew."""
    merge_rows(pool_usage, connection, rows)
    connection.execute(_MARK)


def _total(delta: UsageDelta, classes: frozenset[TokenClass]) -> Int64Array:
    total = np.zeros(len(delta), np.int64)
    for token_class in classes.intersection(delta.tokens):
        total += delta.tokens[token_class]
    return total
