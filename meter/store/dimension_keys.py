"""What dimensions stand for, as counting reads it: looked up once, for they never change."""

from collections.abc import Iterable
from typing import Final, TypeAlias

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

    An account's sku is a pair, and has a number here: dimensions that differ in their pool have one
    in common.
    """

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.forget()

    def forget(self) -> None:
        """Know nothing any more: the database may be an older one than before."""
        self._accounts: dict[str, int] = {}
        self._pools: dict[str, int] = {}
        self._account_texts = self._pool_texts = _texts(())
        # By dimension: the places of its account and pool, and its sku.
        self._account_of = self._pool_of = self._sku_of = np.zeros(0, np.int32)
        self._sku_span = 1

    def learn(self, connection: Connection, dimension_id: Int64Array) -> None:
        """Look up those of these dimensions that are not known; at least one is given.

        Raises StoreRefusal when the database has not all of them: what they counted would vanish.
        """
        if len(self._accounts) > DIMENSIONS_INTERNED_MAX:
            self.forget()
        self._make_room(int(dimension_id.max()) + 1)
        missing = np.unique(dimension_id[self._account_of[dimension_id] == _UNKNOWN])
        if not len(missing):
            return
        found = connection.execute(_LOOK_UP, {"dimensions": missing.tolist()}).all()
        if len(found) < len(missing):
            gone = min(set(missing.tolist()).difference(row.dimension_id for row in found))
            raise StoreRefusal(
                Reason.INTERNAL, f"The journal names dimension {gone}, which does not exist."
            )
        for dimension, account_id, sku_id, pool in found:
            self._account_of[dimension] = _place_of(account_id, self._accounts)
            self._pool_of[dimension] = _place_of(pool, self._pools)
            self._sku_of[dimension] = sku_id
        self._account_texts, self._pool_texts = _texts(self._accounts), _texts(self._pools)
        self._sku_span = int(self._sku_of.max()) + 1

    def pair_of(self, dimension_id: Int64Array) -> Int64Array:
        """Return the pair of each dimension; good until the next `learn`."""
        account = self._account_of[dimension_id].astype(np.int64)
        return account * self._sku_span + self._sku_of[dimension_id]

    def account_and_sku(self, pair: Int64Array) -> tuple[TextArray, Int64Array]:
        """Return the account (UTF-8) and the sku of each pair."""
        account, sku = np.divmod(pair, self._sku_span)
        return self._account_texts[account], sku

    def pool_of(self, dimension_id: Int64Array) -> TextArray:
        """Return the pool (UTF-8) of each dimension, empty where it names none."""
        pools: TextArray = self._pool_texts[self._pool_of[dimension_id]]
        return pools

    def _make_room(self, size: int) -> None:
        known = len(self._account_of)
        if size > known:
            unknown = np.full(max(size - known, known), _UNKNOWN, np.int32)
            self._account_of = np.append(self._account_of, unknown)
            self._pool_of = np.append(self._pool_of, unknown)
            self._sku_of = np.append(self._sku_of, unknown)


def _place_of(value: str, places: dict[str, int]) -> int:
    return places.setdefault(value, len(places))


def _texts(values: Iterable[str]) -> TextArray:
    # Postgres keeps no text with a zero byte in it: nothing is lost at the end of an entry.
    return np.array([value.encode() for value in values], np.bytes_)
