"""The journal in Postgres: one transaction records a group of batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Final, Protocol

from sqlalchemy import (
    Engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from meter.audit_log import Action, Change
from meter.counting.fresh import Fresh, Written
from meter.domain.errors import Reason, StoreRefusal
from meter.domain.event import EventBatch, IntArray, Origin, ProducerKey, SetAside
from meter.domain.times import to_time
from meter.journal.protocol import ProducerState
from meter.leases import Lease, ShardLost
from meter.runtime.engine import connection_count, store_faults
from meter.runtime.trips import (
    UUID,
    Row,
    Trips,
    forget_prepared,
    from_int,
    from_timestamp,
    to_array,
    to_int2,
    to_int4,
    to_int8,
    to_timestamp,
)
from meter.segment import NAMED_ONCE_VERSION, VERSION, Gathered, pack
from meter.store.appending import APPEND, CLAIM, CLAIMED_BEFORE, is_not_owned
from meter.store.arbitration import ArbitrationWrites
from meter.store.audit_log import ChangeLog
from meter.store.corrections import CorrectionWrites
from meter.store.dimension_ids import DimensionIds
from meter.store.observations import ObservationWrites
from meter.store.producer_locks import lock_producers, save_producers
from meter.store.tables import (
    event_claims,
    quarantine,
    segment_versions,
)

_HELD: Final = 1
# What is smaller is written sooner than a process wakes up for it.
_PUSHED_BYTES_MIN: Final = 131_072


class Tenure(Protocol):
    """What holds a shard for this process: `meter.leases.Leases`."""

    def current(self) -> Lease:
        """Return the lease; where it was lost, another one is taken."""
        ...

    def confirmed(self, lease: Lease) -> Lease:
        """Return the lease if it stands in this database; else another one."""
        ...

    def lost(self, lease: Lease) -> None:
        """Hear that somebody else has taken over the shard."""
        ...


class JournalStore:
    """Writes the shard of the journal that is leased; a newer owner of it fences this one."""

    def __init__(self, engine: Engine, *, leases: Tenure, fresh: Fresh | None = None) -> None:
        """Take the engine, and what holds a shard; `fresh` is told what was committed."""
        self._engine = engine
        self._leases = leases
        self._fresh = fresh
        self._dimensions = DimensionIds(engine)
        self._wanted: list[EventBatch] = []
        self._settled_count = 0
        self._newest_version = VERSION
        event.listen(engine, "rollback", forget_prepared)

    @contextmanager
    def transaction(self) -> Iterator["JournalTransaction"]:
        """Open the one transaction of a group; leaving it without a fault commits.

        A connection lost in the commit leaves its fate unknown: nothing is acknowledged, and what
        is on disk is read anew by whatever comes next, since no state is kept here. Raises
        ShardLost when somebody else has the shard; what comes next is written to another one.
        """
        lease = self._leases.current()
        try:
            with store_faults(), self._engine.begin() as connection:
                if connection_count(self._engine) != self._settled_count:
                    lease = self._settle(lease)
                transaction = JournalTransaction(
                    Trips(connection), lease=lease, newest_version=self._newest_version
                )
                try:
                    yield transaction
                    transaction.commit()
                finally:
                    transaction.drop()
            if self._fresh is not None:
                self._fresh.hold(lease.shard, transaction.written)
        except DBAPIError as error:
            if is_not_owned(error):
                self._leases.lost(lease)
                raise ShardLost(lease.shard) from error
            message = "The database refused the batch; see the server's log."
            raise StoreRefusal(Reason.INTERNAL, message) from error

    def dimension_ids(self, batch: EventBatch) -> IntArray:
        """Return each event's `dimension_id`, after `ensure_dimensions` for the batch."""
        return self._dimensions.of(batch)

    def ensure_dimensions(self, batches: Iterable[EventBatch]) -> list[int]:
        """Give database ids to dimensions seen for the first time: `DimensionIds.ensure`."""
        self._wanted = list(batches)
        return self._dimensions.ensure(self._wanted)

    def _settle(self, lease: Lease) -> Lease:
        """Trust nothing that was learned over earlier connections: this may be an older database.

        Whoever restores one, or fails over, ends every connection. What a transaction begins after
        this on a connection that is then lost, is not committed.
        """
        count = connection_count(self._engine)
        self._dimensions.forget()
        self.ensure_dimensions(self._wanted)
        self._newest_version = self._find_newest_version()
        lease = self._leases.confirmed(lease)
        self._settled_count = count
        return lease

    def _find_newest_version(self) -> int:
        """Return the newest version of a segment that all servers of the database read."""
        newest = select(func.max(segment_versions.c.version)).where(
            segment_versions.c.version <= NAMED_ONCE_VERSION
        )
        with self._engine.connect() as connection:
            return connection.execute(newest).scalar() or VERSION

    def forget_claims(self, *, before_ms: int) -> int:
        """Delete event ids claimed before a time at which no repeat is accepted any more."""
        statement = delete(event_claims).where(event_claims.c.claim_time < to_time(before_ms))
        with store_faults(), self._engine.begin() as connection:
            return connection.execute(statement).rowcount


class JournalTransaction(CorrectionWrites, ObservationWrites, ArbitrationWrites):
    """What one group's transaction can do; the order is the writer's."""

    def __init__(self, trips: Trips, *, lease: Lease, newest_version: int) -> None:
        """Take how to speak in an open transaction, what holds the shard, and what others read."""
        super().__init__(trips, lease=lease)
        self._newest_version = newest_version
        self.written: list[tuple[Written, Gathered]] = []

    def drop(self) -> None:
        """End the session where Postgres was told what it was not heard to do: after a fault."""
        self._trips.drop()

    def commit(self) -> None:
        """Commit, with what was not sent yet."""
        assert self.awaited_position is None, "a correction has its segment"
        self._trips.commit()

    def lock_producers(self, keys: Iterable[ProducerKey]) -> dict[ProducerKey, ProducerState]:
        """Lock producers in sorted order and return their states.

        One that another server holds at this moment is left out, not waited for.
        """
        return lock_producers(self._trips, keys)

    def save_producers(self, states: Mapping[ProducerKey, ProducerState], *, now_ms: int) -> None:
        """Write the states of locked producers."""
        del now_ms  # Producers live by the database's clock.
        save_producers(self._trips, states)

    def claim_events(self, claims: Mapping[bytes, bytes], *, now_ms: int) -> dict[bytes, bytes]:
        """Claim event keys and return those that were claimed before, with their content hashes."""
        # Sorted, so that two servers that claim the same ids wait for each other in one order.
        keys = sorted(claims)
        sent = to_array(UUID, keys)
        hashes = to_array(UUID, [claims[key] for key in keys])
        now = to_timestamp(to_time(now_ms))
        if self._trips.count(CLAIM, sent, hashes, now) == len(keys):
            return {}
        return {row[0]: row[1] for row in self._trips.ask(CLAIMED_BEFORE, sent)}

    def append(self, part: Gathered) -> None:
        """Append a segment; the commit fails with ShardLost when the shard has a newer owner."""
        lease = self._lease
        end_ms = part.columns["end_ms"]
        awaited, self.awaited_position = self.awaited_position, None

        def note(rows: Sequence[Row]) -> None:
            ((position, event_count, commit_time),) = rows
            written = Written(
                from_int(position), from_int(event_count), from_timestamp(commit_time)
            )
            assert awaited in {None, written.position}, "a correction has its segment"
            self.written.append((written, part))

        self._trips.tell(
            APPEND,
            to_int2(lease.shard),
            to_int8(lease.epoch),
            lease.owner,
            to_int4(len(part)),
            to_timestamp(to_time(int(end_ms.min()))),
            to_timestamp(to_time(int(end_ms.max()))),
            body := pack(part, newest_version=self._newest_version),
            on_rows=note,
        )
        if len(body) >= _PUSHED_BYTES_MIN:
            # Postgres writes it while the next is packed.
            self._trips.push()
        if awaited is not None:
            # Nothing is committed before it lies where the correction says.
            self._trips.send()

    def set_aside(self, items: Sequence[tuple[Origin, SetAside]]) -> list[int]:
        """Put events into quarantine and return the entries' ids, in order."""
        return [
            quarantine_id
            for whole, run in groupby(items, key=lambda item: item[1].index < 0)
            for quarantine_id in (self._keep_batches(run) if whole else self._keep_events(run))
        ]

    def _keep_batches(self, items: Iterable[tuple[Origin, SetAside]]) -> Iterator[int]:
        """Keep whole batches, each once however often it is sent: a release counts it once."""
        for origin, item in items:
            known = self._connection.execute(
                select(quarantine.c.quarantine_id).where(
                    quarantine.c.producer == origin.producer,
                    quarantine.c.sequence == origin.sequence,
                    quarantine.c.event_index == item.index,
                    quarantine.c.key_id == origin.key_id,
                    quarantine.c.payload == item.payload,
                )
            ).scalar()
            if known is None:
                yield from self._keep_events([(origin, item)])
            else:
                yield known

    def _keep_events(self, items: Iterable[tuple[Origin, SetAside]]) -> list[int]:
        statement = insert(quarantine).returning(
            quarantine.c.quarantine_id, sort_by_parameter_order=True
        )
        rows = [
            {
                "outcome": item.outcome,
                "state": _HELD,
                "received_time": to_time(origin.received_ms),
                "key_id": origin.key_id,
                "producer": origin.producer,
                "sequence": origin.sequence,
                "event_index": item.index,
                "payload": item.payload,
                "source": item.source or None,
                "is_choice": item.is_choice if item.source else None,
            }
            for origin, item in items
        ]
        return list(self._connection.execute(statement, rows).scalars())

    def release(self, quarantine_id: int, *, key_id: str, now_ms: int) -> bool:
        """Mark a held entry as released; False when it is not held any more."""
        statement = (
            update(quarantine)
            .where(quarantine.c.quarantine_id == quarantine_id, quarantine.c.state == _HELD)
            .values(state=2, decide_time=to_time(now_ms), decided_by=key_id)
        )
        if not self._connection.execute(statement).rowcount:
            return False
        change = Change(
            at_ms=now_ms,
            key_id=key_id,
            action=Action.QUARANTINE_RELEASE,
            subject=str(quarantine_id),
        )
        ChangeLog().write(self._connection, change)
        return True
