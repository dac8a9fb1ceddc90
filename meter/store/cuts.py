"""Cuts in Postgres: marks in the order of the journal, at or below which usage never changes."""

from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.exc import DBAPIError

from meter.domain.errors import Reason, StoreRefusal
from meter.domain.times import to_ms, to_time
from meter.runtime.engine import store_faults
from meter.store.tables import counting, cut_positions, cuts
from meter.usage import Cut


class CutStore:
    """Takes cuts: the watermarks are locked in order and read in the same transaction.

    The journal's head would not do: what is recorded and not yet counted would slip behind the cut.
    """

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def take_cut(self, *, now_ms: int) -> Cut:
        """Take a cut now; what is counted after it carries a later one."""
        try:
            with store_faults(), self._engine.begin() as connection:
                return self._take(connection, now_ms=now_ms)
        except DBAPIError as error:
            raise StoreRefusal(Reason.INTERNAL, f"The database refuses a cut: {error}") from error

    def take_cut_if_due(self, *, now_ms: int, every_ms: int) -> Cut | None:
        """Take a cut when the last one lies in an earlier span of `every_ms`; else None."""
        try:
            with store_faults(), self._engine.begin() as connection:
                if not _is_due(connection, now_ms=now_ms, every_ms=every_ms):
                    return None
                _lock_watermarks(connection)
                # Another server may have taken it while this one waited for the locks.
                if not _is_due(connection, now_ms=now_ms, every_ms=every_ms):
                    return None
                return self._take(connection, now_ms=now_ms)
        except DBAPIError as error:
            raise StoreRefusal(Reason.INTERNAL, f"The database refuses a cut: {error}") from error

    def _take(self, connection: Connection, *, now_ms: int) -> Cut:
        marks = _lock_watermarks(connection)
        newest = select(func.coalesce(func.max(cuts.c.cut_id), 0) + 1)
        cut_id = int(connection.execute(newest).scalar_one())
        connection.execute(insert(cuts).values(cut_id=cut_id, cut_time=to_time(now_ms)))
        positions = [
            {"cut_id": cut_id, "shard": shard, "position": position} for shard, position in marks
        ]
        if positions:
            connection.execute(insert(cut_positions), positions)
        return Cut(cut_id=cut_id, cut_ms=now_ms)


def _lock_watermarks(connection: Connection) -> list[tuple[int, int]]:
    rows = connection.execute(
        select(counting.c.shard, counting.c.position).order_by(counting.c.shard).with_for_update()
    )
    return [(row.shard, row.position) for row in rows]


def _is_due(connection: Connection, *, now_ms: int, every_ms: int) -> bool:
    last = connection.execute(select(func.max(cuts.c.cut_time))).scalar()
    return last is None or to_ms(last) // every_ms < now_ms // every_ms
