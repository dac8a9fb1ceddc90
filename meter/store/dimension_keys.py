"""What dimensions stand for, as counting reads it: looked up once, for they never change."""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import numpy as np
from sqlalchemy import Connection, text

from meter.domain.errors import Reason, StoreRefusal
from meter.domain.event import Int64Array
from meter.domain.limits import DIMENSIONS_INTERNED_MAX

TextArray: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bytes_]]
# An array: a statement takes 65,535 parameters, and one look at the journal may bring more.
_LOOK_UP: Final = text(
    "SELECT dimension_id, account_id, sku_id, pool FROM dimensions"
    " WHERE dimension_id = ANY(CAST(:dimensions AS bigint[]))"
)
_UNKNOWN: Final = -1


class DimensionKeys:
    """Accounts, skus and pools of dimensions; on the counting thread alone.

    An account's sku is a pair, numbered from 0 here: dimensions that differ in their pool have one.
    """

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.forget()

    def forget(self) -> None:
        """Know nothing any more: the database may be an older one than before."""
        self._pairs: dict[tuple[str, int], int] = {}
        self._pools: dict[str, int] = {}
        # By dimension.
        self._pair_of = self._pool_of = np.zeros(0, np.int32)
        # By pair, and by number of the pool.
        self._accounts, self._skus = np.zeros(0, "S1"), np.zeros(0, np.int64)
        self._names = np.zeros(0, "S1")

    def learn(self, connection: Connection, dimension_id: Int64Array) -> None:
        """Look up those of these dimensions that are not known.

        Raises StoreRefusal when the database has not all of them: what they counted would vanish.
        """
        self._make_room(int(dimension_id.max()) + 1)
        missing = np.unique(dimension_id[self._pair_of[dimension_id] == _UNKNOWN])
        if not len(missing):
            return
        if len(self._pairs) > DIMENSIONS_INTERNED_MAX:
            self.forget()
            self._make_room(int(dimension_id.max()) + 1)
            missing = np.unique(dimension_id)
        found = connection.execute(_LOOK_UP, {"dimensions": missing.tolist()}).all()
        if len(found) < len(missing):
            gone = min(set(missing.tolist()).difference(row.dimension_id for row in found))
            raise StoreRefusal(
                Reason.INTERNAL, f"The journal names dimension {gone}, which does not exist."
            )
        for dimension, account_id, sku_id, pool in found:
            pair = self._pairs.setdefault((account_id, sku_id), len(self._pairs))
            self._pair_of[dimension] = pair
            self._pool_of[dimension] = self._pools.setdefault(pool, len(self._pools))
        self._accounts = _texts(account for account, _ in self._pairs)
        self._skus = np.array([sku for _, sku in self._pairs], np.int64)
        self._names = _texts(self._pools)

    def pair_of(self, dimension_id: Int64Array) -> Int64Array:
        """Return the pair of each dimension; after `learn`."""
        return self._pair_of[dimension_id].astype(np.int64)

    def account_and_sku(self, pair: Int64Array) -> tuple[TextArray, Int64Array]:
        """Return the account (UTF-8) and the sku of each pair."""
        return self._accounts[pair], self._skus[pair]

    def pool(self, dimension_id: Int64Array) -> TextArray:
        """Return the pool (UTF-8) of each dimension, empty where it names none; after `learn`."""
        return self._names[self._pool_of[dimension_id]]

    def _make_room(self, size: int) -> None:
        more = size - len(self._pair_of)
        if more > 0:
            unknown = np.full(max(more, len(self._pair_of)), _UNKNOWN, np.int32)
            self._pair_of = np.append(self._pair_of, unknown)
            self._pool_of = np.append(self._pool_of, unknown)


def _texts(values: Iterable[str]) -> Any:  # noqa: ANN401
    # Postgres keeps no text with a zero byte in it: nothing is lost at the end of an entry.
    return np.array([value.encode() for value in values], np.bytes_)
