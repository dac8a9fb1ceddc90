"""Database ids of dimensions: which a process has met, and how new ones are written."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, text

from meter.domain.event import Dimensions, EventBatch, IntArray
from meter.domain.limits import DIMENSIONS_INTERNED_MAX
from meter.runtime.engine import store_faults

_TABLES_KEPT: Final = 2
# The two dictionaries: table, key columns, and the arrays in which keys are sent.
_DICTIONARIES: Final = {
    "skus": (
        "skus",
        "model, served_model, tier, mode, region",
        (
            "CAST(:c0 AS text[]), CAST(:c1 AS text[]), CAST(:c2 AS text[]),"
            " CAST(:c3 AS smallint[]), CAST(:c4 AS text[])"
        ),
    ),
    "dimensions": (
        "dimensions",
        "account_id, sku_id, pool",
        "CAST(:c0 AS text[]), CAST(:c1 AS integer[]), CAST(:c2 AS text[])",
    ),
}
_DimensionKey: TypeAlias = tuple[str, int, str]


class DimensionIds:
    """Ids by handle for each table of dimensions in use; on the committing thread alone."""

    def __init__(self, engine: Engine) -> None:
        """Begin with nothing known."""
        self._engine = engine
        self._dimension_ids: dict[_DimensionKey, int] = {}
        self._sku_ids: dict[tuple[Any, ...], int] = {}
        # As narrow as the column of the database.
        self._ids_by_table: dict[int, tuple[Any, npt.NDArray[np.int32]]] = {}

    def forget(self) -> None:
        """Know nothing any more: this may be an older database."""
        for known in (self._dimension_ids, self._sku_ids, self._ids_by_table):
            known.clear()

    def of(self, batch: EventBatch) -> IntArray:
        """Return each event's `dimension_id`, after `ensure` for the batch."""
        return self._ids_by_table[id(batch.table)][1].take(batch.dimension)

    def ensure(self, batches: Sequence[EventBatch]) -> list[int]:
        """Give database ids to dimensions seen for the first time; commits by itself.

        An id without events is harmless, so a group that fails later leaves nothing wrong. Returns
        for each batch how many of those that were looked up the database had already.
        """
        if len(self._ids_by_table) > _TABLES_KEPT:
            # Tables are replaced when they are full; those of this group are still needed.
            used = {id(batch.table) for batch in batches}
            self._ids_by_table = {k: v for k, v in self._ids_by_table.items() if k in used}
        if not self._is_any_missing(batches):
            return [0] * len(batches)
        # What is missing in all batches is looked up, and written, together.
        wanted: dict[int, set[int]] = {}
        missing = [
            self._find_missing(batch, wanted=wanted.setdefault(id(batch.table), set()))
            for batch in batches
        ]
        rows = [
            batch.table[handle]
            for batch, handles in zip(batches, missing, strict=True)
            for handle in handles
        ]
        if not rows:
            return [0] * len(batches)
        keys, added = self._insert_dimensions(rows)
        known_counts, place = [], 0
        for batch, handles in zip(batches, missing, strict=True):
            own = keys[place : place + len(handles)]
            place += len(handles)
            if handles:
                ids = self._ids_by_table[id(batch.table)][1]
                ids[handles] = [self._dimension_ids[key] for key in own]
            known_counts.append(len(own) - len(added.intersection(own)))
        return known_counts

    def _is_any_missing(self, batches: Sequence[EventBatch]) -> bool:
        """Tell whether any of the batches' dimensions has no id here yet: mostly none is new."""
        by_table: dict[int, list[EventBatch]] = {}
        for batch in batches:
            by_table.setdefault(id(batch.table), []).append(batch)
        for number, of_table in by_table.items():
            known = self._ids_by_table.get(number)
            size = len(of_table[0].table)
            if known is not None and size < sum(map(len, of_table)) and _has_all(known[1], size):
                # One look at each dimension, and none at the events.
                continue
            joined = np.concatenate([batch.dimension for batch in of_table])
            if known is None or int(joined.max(initial=-1)) >= len(known[1]):
                return True
            if not known[1].take(joined).all():
                return True
        return False

    def _find_missing(self, batch: EventBatch, *, wanted: set[int]) -> list[int]:
        """Return the handles of a batch's dimensions that have no id here yet, each once.

        Those that are `wanted` already are an earlier batch's; the others are added to it.
        """
        table = batch.table
        known = self._ids_by_table.get(id(table))
        ids = np.zeros(0, np.int32) if known is None else known[1]
        if len(ids) < len(table):
            ids = np.append(ids, np.zeros(2 * len(table) - len(ids), np.int32))
            known = None
        if known is None:
            self._ids_by_table[id(table)] = (table, ids)
        missing = batch.dimension[ids.take(batch.dimension) == 0]
        if not len(missing):
            return []
        found = [it for it in np.unique(missing).tolist() if it not in wanted]
        wanted.update(found)
        return found

    def _insert_dimensions(
        self, rows: Sequence[Dimensions]
    ) -> tuple[list[_DimensionKey], set[_DimensionKey]]:
        """Have ids for dimensions; return their keys, and those that the database had not."""
        if len(self._dimension_ids) > DIMENSIONS_INTERNED_MAX:
            self._dimension_ids.clear()
        skus = [_sku_key(row) for row in rows]
        self._resolve("skus", self._sku_ids, skus)
        keys = [
            (row.account, self._sku_ids[sku], row.pool) for row, sku in zip(rows, skus, strict=True)
        ]
        return keys, self._resolve("dimensions", self._dimension_ids, keys)

    def _resolve(self, names: str, known: dict[Any, int], keys: Sequence[Any]) -> set[Any]:
        """Have the ids of keys in `known`, and return the keys that were added for it."""
        # Sorted, so that two servers that meet the same new dimensions cannot deadlock.
        missing = sorted({key for key in keys if key not in known})
        if not missing:
            return set()
        table, key_columns, arrays = _DICTIONARIES[names]
        columns = zip(*missing, strict=True)
        values = {f"c{place}": list(column) for place, column in enumerate(columns)}
        insert_text = (
            f"INSERT INTO {table} ({key_columns}) SELECT * FROM unnest({arrays})"  # noqa: S608
            " ON CONFLICT DO NOTHING"
        )
        select_text = (
            f"SELECT t.* FROM {table} t JOIN unnest({arrays}) AS n ({key_columns})"  # noqa: S608
            f" USING ({key_columns})"
        )
        with store_faults(), self._engine.begin() as connection:
            found = connection.execute(text(select_text), values).all()
            added = set(missing) - {tuple(row[1:]) for row in found}
            if added:
                # Not before: one that is there already would use up an id all the same.
                connection.execute(text(insert_text), values)
                found = connection.execute(text(select_text), values).all()
        # Only now: an id whose commit was lost does not exist.
        known.update({tuple(row[1:]): row[0] for row in found})
        return added


def _has_all(ids: IntArray, size: int) -> bool:
    """Tell whether none of the first `size` dimensions lacks its id."""
    return len(ids) >= size and bool(ids[:size].all())


def _sku_key(row: Dimensions) -> tuple[str, str, str, int, str]:
    return (row.model, row.served_model, row.tier, row.mode, row.region)
