"""Usage in Postgres: the follower's transaction, cuts, and queries."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Final

import numpy as np
from sqlalchemy import Connection, Engine, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from meter.counting.aggregate import UsageDelta, regroup
from meter.counting.fresh import Fresh, Run, Written
from meter.counting.reports import News, ReportMemory
from meter.domain.errors import Reason, StoreRefusal
from meter.domain.limits import COUNTING_IDLE_SECONDS_MAX
from meter.domain.times import to_ms
from meter.domain.tokens import TokenClass
from meter.runtime.engine import (
    SNAPSHOT,
    connection_count,
    driver_connection,
    refusals,
    store_faults,
)
from meter.segment import Gathered
from meter.store.cuts import CutStore
from meter.store.dimension_keys import DimensionKeys
from meter.store.energy_tables import pool_usage
from meter.store.folding import fold_late
from meter.store.installation import installation_time
from meter.store.merging import Rows, merge_rows, send_rows, wait_to_merge
from meter.store.pool_usage import merge_pool_usage, pool_rows
from meter.store.reporters import note_reports, select_accounts_of, select_reports
from meter.store.tables import counting, cut_positions, cuts, journal, shards, usage
from meter.store.usage_query import read_usage
from meter.usage import UsageQuery, UsageRow

_OPEN_CUT: Final = select(func.coalesce(func.max(cuts.c.cut_id), 0) + 1)
# Segments that one look reads: bounds the rows held at a time, whatever their size.
_SEGMENTS_MAX: Final = 2_000


# Counting adds up between two statements, and a server that hangs there holds up each cut.
_PATIENCE: Final = text(
    f"SET LOCAL idle_in_transaction_session_timeout = '{COUNTING_IDLE_SECONDS_MAX}s'"
)
# What lies in shards that nobody holds, or somebody of a version without leases. Not what would be
# counted again: `ensure_watermark` says so.
_ORPHANS: Final = text(
    """
    SELECT s.shard FROM shards s JOIN counting c USING (shard)
    WHERE s.position > c.position AND s.shard <> :own_shard
        AND (s.lease_until IS NULL OR s.lease_until <= clock_timestamp())
        AND NOT EXISTS (
            SELECT FROM cut_positions p WHERE p.shard = s.shard AND p.position > c.position
        )
    ORDER BY 1
    """
)


class UsageStore:
    """Counts shards of the journal into usage, and answers questions about all of it."""

    def __init__(
        self, engine: Engine, *, own_shard: Callable[[], int], fresh: Fresh | None = None
    ) -> None:
        """Take the engine and what returns the shard that this process writes.

        `fresh` is what it has just committed; without it all is read back.
        """
        self._engine = engine
        self._own_shard = own_shard
        self._fresh = fresh or Fresh()
        self._cuts = CutStore(engine)
        self._memory = ReportMemory()
        self._keys = DimensionKeys()
        self._settled_count = 0

    def ensure_watermark(self, shard: int) -> None:
        """Begin a shard's watermark at zero unless it is there.

        Raises StoreRefusal when it lies behind a cut that was taken: parts of the database are
        older than others, and counting on would count again what a cut has sealed.
        """
        mark = select(counting.c.position).filter_by(shard=shard)
        sealed = select(func.max(cut_positions.c.position)).filter_by(shard=shard)
        with store_faults(), self._engine.begin() as connection:
            counted = connection.execute(mark).scalar_one_or_none()
            if counted is None:
                _begin_watermark(connection, shard)
                counted = connection.execute(mark).scalar_one()
            cut = connection.execute(sealed).scalar() or 0
        if counted < cut:
            raise StoreRefusal(
                Reason.INTERNAL,
                f"Shard {shard} is counted up to {counted}, behind a cut at {cut}:"
                " the database was restored in part. Restore all of it from one backup.",
            )

    @contextmanager
    def counting(self, shard: int | None = None) -> Iterator["CountingStep"]:
        """Open a transaction that holds the watermark of our own shard, or of one that is named.

        Our own is waited for; of another one, which somebody counts just then, nothing is read.
        """
        with refusals("to count"), store_faults(), self._engine.begin() as connection:
            count = connection_count(self._engine)
            if count != self._settled_count:
                # What was written through connections that are gone may be gone with them.
                self._keys.forget()
                self._memory.forget()
                self._fresh.forget()
            connection.execute(_PATIENCE)
            step = CountingStep(
                connection,
                shard=self._own_shard() if shard is None else shard,
                memory=self._memory,
                keys=self._keys,
                fresh=self._fresh if shard is None else None,
            )
            yield step
        self._settled_count = count
        self._memory.learn(step.news)

    def add_up_ahead(self) -> None:
        """Add up what was just committed, for the next round; asks no database."""
        self._fresh.add_up_ahead(is_noted=self._memory.knows)

    def find_orphans(self) -> Sequence[int]:
        """Return the shards that have something to count, and nobody who does."""
        values = {"own_shard": self._own_shard()}
        with store_faults(), self._engine.connect() as connection:
            return list(connection.execute(_ORPHANS, values).scalars())

    def take_cut_if_due(self, *, now_ms: int, every_ms: int) -> int | None:
        """Take a cut when the last one is `every_ms` old or of another day; return its id."""
        cut = self._cuts.take_cut_if_due(now_ms=now_ms, every_ms=every_ms)
        return None if cut is None else cut.cut_id

    def lag(self) -> tuple[int, int | None]:
        """Return how many segments are not counted, and when (ms) the oldest was recorded."""
        statement = (
            select(func.count(), func.min(journal.c.commit_time))
            .select_from(journal)
            .join(counting, counting.c.shard == journal.c.shard)
            .where(journal.c.position > counting.c.position)
        )
        with store_faults(), self._engine.connect() as connection:
            count, oldest = connection.execute(statement).one()
        return count, None if oldest is None else to_ms(oldest)

    def find_own_oldest_ms(self) -> int | None:
        """Return when (ms) the oldest of this process's shard was recorded that is not counted."""
        counted = select(counting.c.position).filter_by(shard=self._own_shard()).scalar_subquery()
        oldest = select(func.min(journal.c.commit_time)).where(
            journal.c.shard == self._own_shard(), journal.c.position > counted
        )
        with store_faults(), self._engine.connect() as connection:
            time = connection.execute(oldest).scalar()
        return None if time is None else to_ms(time)

    def query(self, query: UsageQuery) -> tuple[Sequence[UsageRow], int]:
        """Return rows ordered by their keys, and until when (ms) all is counted."""
        with store_faults(), self._engine.begin() as connection:
            connection.execute(SNAPSHOT)
            return read_usage(connection, query), select_counted_until_ms(connection)


class CountingStep:
    """One transaction of the follower."""

    def __init__(
        self,
        connection: Connection,
        *,
        shard: int,
        memory: ReportMemory,
        keys: DimensionKeys,
        fresh: Fresh | None,
    ) -> None:
        """Lock the shard's watermark; `memory` is of who is known to have reported for whom.

        Our own is waited for, and has `fresh`, what was just committed; another one has none.
        """
        self._connection = connection
        self._shard = shard
        self._memory = memory
        self._keys = keys
        self._fresh = fresh
        self.news: list[News] = []
        self._last: tuple[int, datetime] | None = None
        self._starts_ms: Sequence[int] = ()
        self._classes: Sequence[TokenClass] = ()
        mark = select(counting.c.position).where(counting.c.shard == shard)
        # None: somebody else counts it at this moment.
        self._position: int | None = connection.execute(
            mark.with_for_update(skip_locked=fresh is None)
        ).scalar_one_or_none()

    def recall(self) -> Run | None:
        """Return the next segments from memory, added up; None where they have to be read.

        Each call goes on behind the last one, or behind the last one of `read`.
        """
        if self._fresh is None or self._position is None:
            return None
        found = self._fresh.take(self._shard, after=self._position, is_noted=self._memory.knows)
        if found is None:
            return None
        # The journal says what was recorded: memory may be of a database that is no more.
        if self._find_rows(len(found.rows)) != found.rows:
            self._fresh.forget()
            return None
        self._pass_over(found.rows[-1])
        return found.run

    def read(self, *, events_max: int) -> Sequence[bytes]:
        """Return the bodies of the next segments, at least one if there is any.

        Each call goes on behind the last one, or behind the last one of `recall`.
        """
        if self._position is None:
            return []
        first = self._position + 1
        rows: Sequence[Written] = self._find_rows(_SEGMENTS_MAX)
        if not rows:
            return []
        if self._fresh is not None:
            # All of them, where they were committed since `recall`.
            rows = self._fresh.without_held(self._shard, rows) or rows
        totals = np.cumsum([row.event_count for row in rows])
        last = rows[max(1, int(np.searchsorted(totals, events_max, "right"))) - 1]
        # Binary: as text, the bytes would come twice as long and be read digit by digit.
        with driver_connection(self._connection).cursor(binary=True) as cursor:
            cursor.execute(
                "SELECT body FROM journal WHERE shard = %s AND position BETWEEN %s AND %s"
                " ORDER BY position",
                (self._shard, first, last.position),
            )
            bodies = [body for (body,) in cursor]
        self._pass_over(last)
        return bodies

    def _find_rows(self, count_max: int) -> list[Written]:
        """Return what the journal has next, without its bodies."""
        statement = (
            select(journal.c.position, journal.c.event_count, journal.c.commit_time)
            .where(journal.c.shard == self._shard, journal.c.position > self._position)
            .order_by(journal.c.position)
            .limit(count_max)
        )
        return [Written(*row) for row in self._connection.execute(statement)]

    def _pass_over(self, last: Written) -> None:
        self._last = (last.position, last.commit_time)
        self._position = last.position

    def add(self, delta: UsageDelta) -> None:
        """Add to usage, under the cut that is open: our watermark's lock holds the next one off."""
        self._keys.learn(self._connection, delta.dimension_id)
        rows = self._usage_rows(delta)
        pools = pool_rows(delta, keys=self._keys)
        send_rows(usage, self._connection, rows)
        if len(pools["pool"]):
            send_rows(pool_usage, self._connection, pools)
        wait_to_merge(self._connection)
        merge_rows(usage, self._connection, rows)
        if len(pools["pool"]):
            merge_pool_usage(self._connection, pools)
        self._starts_ms = np.unique(delta.interval_start_ms).tolist()
        self._classes = tuple(delta.tokens)

    def _usage_rows(self, delta: UsageDelta) -> Rows:
        """Return the rows of usage that a delta comes to: pools are not in their key."""
        pair = self._keys.pair_of(delta.dimension_id)
        whole = regroup(delta, dimension_id=pair, band=delta.band, finish_class=delta.finish_class)
        account_id, sku_id = self._keys.account_and_sku(whole.dimension_id)
        cut_id = self._connection.execute(_OPEN_CUT).scalar_one()
        return {
            "account_id": account_id,
            "interval_start": whole.interval_start_ms.astype("datetime64[ms]"),
            "sku_id": sku_id,
            "band": whole.band,
            "finish_class": whole.finish_class,
            "cut_id": np.full(len(whole), cut_id),
            **{it.name.lower(): counts for it, counts in whole.tokens.items()},
            "request_count": whole.request_count,
            "delivered_output_count": whole.delivered_output_count,
            "estimated_count": whole.estimated_count,
        }

    def note_reports(self, segments: Sequence[Gathered]) -> None:
        """Note for which accounts producers have reported, where that is new."""
        self.news += self._memory.find_new(
            segments,
            accounts_of=partial(select_accounts_of, self._connection),
            reports_of=partial(select_reports, self._connection),
        )

    def advance(self) -> None:
        """Move the watermark over what was read, and fold what of it is late: last of all."""
        assert self._last is not None, "advance comes after read"
        note_reports(self._connection, list(self._memory.spell_out(self.news)))
        position, until = self._last
        self._connection.execute(
            update(counting)
            .where(counting.c.shard == self._shard)
            .values(position=position, counted_until=until, totalled_position=position)
        )
        if self._starts_ms:
            fold_late(self._connection, starts_ms=self._starts_ms, classes=self._classes)


def _begin_watermark(connection: Connection, shard: int) -> None:
    # A cut locks the watermarks that there are. One that began beside it would be counted below the
    # cut after it was taken: so it begins before or after, and counting waits for that moment.
    connection.execute(text("LOCK TABLE counting IN EXCLUSIVE MODE"))
    connection.execute(
        upsert(counting)
        .values(
            shard=shard,
            position=0,
            counted_until=installation_time(func.now()),
            totalled_position=0,
        )
        .on_conflict_do_nothing()
    )


def select_counted_until_ms(connection: Connection) -> int:
    """Return the time before which all that was acknowledged is counted, over all shards."""
    statement = select(
        func.min(counting.c.counted_until).filter(counting.c.position < shards.c.position),
        installation_time(func.statement_timestamp()),
    ).select_from(counting.join(shards, shards.c.shard == counting.c.shard))
    behind, now = connection.execute(statement).one()
    return to_ms(now if behind is None else behind)
