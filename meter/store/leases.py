"""Shards of the journal in Postgres: who holds which, by the database's clock."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Engine, text

from meter.domain.errors import Reason, StoreRefusal
from meter.domain.limits import LEASE_SECONDS, SHARDS_MAX
from meter.leases import Lease
from meter.runtime.engine import store_faults

# Somebody who starts at the same moment may take the same shard first.
_TRIES: Final = 10
LEASE_END: Final = f"clock_timestamp() + interval '{LEASE_SECONDS} seconds'"
_TAKE_OVER: Final = text(
    f"""
    INSERT INTO shards AS s (shard, epoch, position, owner, lease_until)
    VALUES (:shard, 1, 0, :owner, {LEASE_END})
    ON CONFLICT (shard) DO UPDATE
    SET epoch = s.epoch + 1, owner = EXCLUDED.owner, lease_until = {LEASE_END}
    RETURNING shard, epoch
    """  # noqa: S608
)
# A shard without a time belongs to a server that knows no leases, and may be alive.
_TAKE_FREE: Final = text(
    f"""
    WITH free AS (
        SELECT shard FROM shards WHERE lease_until <= clock_timestamp()
        ORDER BY shard LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE shards s SET epoch = s.epoch + 1, owner = :owner, lease_until = {LEASE_END}
    FROM free WHERE s.shard = free.shard
    RETURNING s.shard, s.epoch
    """  # noqa: S608
)
_TAKE_NEW: Final = text(
    f"""
    INSERT INTO shards (shard, epoch, position, owner, lease_until)
    SELECT number, 1, 0, :owner, {LEASE_END}
    FROM generate_series(0, :shards_max - 1) AS number
    WHERE NOT EXISTS (SELECT FROM shards s WHERE s.shard = number)
    ORDER BY number LIMIT 1
    ON CONFLICT DO NOTHING
    RETURNING shard, epoch
    """  # noqa: S608
)
# Nobody is waited for: a row that is locked is being written, by whoever owns it.
_RENEW: Final = text(
    f"""
    WITH own AS (
        SELECT shard FROM shards WHERE shard = :shard AND epoch = :epoch AND owner = :owner
        FOR UPDATE SKIP LOCKED
    ), renewed AS (
        UPDATE shards s SET lease_until = {LEASE_END} FROM own WHERE s.shard = own.shard
    )
    SELECT EXISTS (
        SELECT FROM shards WHERE shard = :shard AND epoch = :epoch AND owner = :owner
    )
    """  # noqa: S608
)
_GIVE_BACK: Final = text(
    "UPDATE shards SET owner = '', lease_until = clock_timestamp()"
    " WHERE shard = :shard AND epoch = :epoch AND owner = :owner"
)
_ADOPT: Final = text(
    """
    WITH lapsed AS (
        SELECT shard FROM shards WHERE owner <> '' AND lease_until <= clock_timestamp()
        ORDER BY shard FOR UPDATE SKIP LOCKED
    )
    UPDATE shards s SET epoch = s.epoch + 1, owner = ''
    FROM lapsed WHERE s.shard = lapsed.shard
    RETURNING s.shard
    """
)
_HOLD_TASK: Final = text(
    f"""
    INSERT INTO task_leases AS t (task, owner, lease_until) VALUES (:task, :owner, {LEASE_END})
    ON CONFLICT (task) DO UPDATE SET owner = EXCLUDED.owner, lease_until = EXCLUDED.lease_until
    WHERE t.owner = EXCLUDED.owner OR t.lease_until <= clock_timestamp()
    """  # noqa: S608
)
_TASK_OWNER: Final = text("SELECT owner FROM task_leases WHERE task = :task")
_GIVE_TASKS_BACK: Final = text("DELETE FROM task_leases WHERE owner = :owner")
_HELD: Final = text("SELECT count(*) FROM shards WHERE lease_until > clock_timestamp()")


class LeaseStore:
    """Takes and renews leases for one process; each method is a transaction of its own."""

    def __init__(self, engine: Engine, *, owner: str) -> None:
        """Take the engine, and a name that no other process has or had."""
        self._engine = engine
        self._owner = owner

    def take(self, *, shard: int | None) -> Lease:
        """Take over a shard, or the lowest that nobody holds, a new one at last.

        Raises Unavailable, and StoreRefusal when there are no more shards to take.
        """
        for _ in range(_TRIES):
            with store_faults(), self._engine.begin() as connection:
                row = self._take(connection, shard=shard)
            if row is not None:
                return Lease(shard=row[0], epoch=row[1], owner=self._owner)
        raise StoreRefusal(
            Reason.INTERNAL, f"All {SHARDS_MAX:,} shards of the journal are held by others."
        )

    def renew(self, lease: Lease) -> bool:
        """Hold it for another while; False when somebody else has taken it. Waits for nobody."""
        with store_faults(), self._engine.begin() as connection:
            return bool(connection.execute(_RENEW, _values(lease)).scalar_one())

    def give_back(self, lease: Lease) -> None:
        """Let go of it: it is free at once."""
        with store_faults(), self._engine.begin() as connection:
            connection.execute(_GIVE_BACK, _values(lease))

    def hold_task(self, task: str) -> bool:
        """Do a task for all, or go on with it; False while somebody else does."""
        with store_faults(), self._engine.begin() as connection:
            connection.execute(_HOLD_TASK, {"task": task, "owner": self._owner})
            owner = connection.execute(_TASK_OWNER, {"task": task}).scalar_one_or_none()
        return bool(owner == self._owner)

    def give_tasks_back(self) -> None:
        """Let go of all tasks."""
        with store_faults(), self._engine.begin() as connection:
            connection.execute(_GIVE_TASKS_BACK, {"owner": self._owner})

    def adopt(self) -> Sequence[int]:
        """Fence whoever let a lease run out, and return those shards: they lie free.

        One that is being written just now is not adopted.
        """
        with store_faults(), self._engine.begin() as connection:
            return list(connection.execute(_ADOPT).scalars())

    def held_count(self) -> int:
        """Return how many shards are held."""
        with store_faults(), self._engine.connect() as connection:
            return int(connection.execute(_HELD).scalar_one())

    def _take(self, connection: Connection, *, shard: int | None) -> tuple[int, int] | None:
        own: dict[str, object] = {"owner": self._owner}
        if shard is not None:
            row = connection.execute(_TAKE_OVER, own | {"shard": shard}).one_or_none()
        else:
            row = connection.execute(_TAKE_FREE, own).one_or_none()
            if row is None:
                row = connection.execute(_TAKE_NEW, own | {"shards_max": SHARDS_MAX}).one_or_none()
        return None if row is None else (row.shard, row.epoch)


def _values(lease: Lease) -> dict[str, object]:
    return {"shard": lease.shard, "epoch": lease.epoch, "owner": lease.owner}
