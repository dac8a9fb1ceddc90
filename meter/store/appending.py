"""The statements of each commit: what claims event ids, and what appends a segment."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Insert, bindparam, func, insert, select, text, update

from meter.store.installation import installation_time
from meter.store.leases import LEASE_END
from meter.store.tables import journal, shards

CLAIM: Final = text(
    "INSERT INTO event_claims (event_key, content_hash, claim_time)"
    " SELECT n.event_key, n.content_hash, :now"
    " FROM unnest(CAST(:keys AS uuid[]), CAST(:hashes AS uuid[]))"
    " AS n (event_key, content_hash) ORDER BY 1 ON CONFLICT DO NOTHING"
)
CLAIMED_BEFORE: Final = text(
    "SELECT event_key, content_hash FROM event_claims"
    " WHERE event_key = ANY(CAST(:keys AS uuid[]))"
    " AND xmin <> pg_current_xact_id()::xid"
)


def _append() -> Insert:
    """Return the statement of a segment, put together once: that costs more than to run it.

    The ownership is checked by the very act that takes the position. A database that was restored
    may give an epoch out twice, but not to the same owner.
    """
    owned = (
        update(shards)
        .where(
            shards.c.shard == bindparam("lease_shard"),
            shards.c.epoch == bindparam("lease_epoch"),
            shards.c.owner == bindparam("lease_owner"),
        )
        .values(position=shards.c.position + 1, lease_until=text(LEASE_END))
        .returning(shards.c.shard, shards.c.position, shards.c.epoch)
        .cte("owned")
    )
    row: dict[str, ColumnElement[Any]] = {
        "shard": owned.c.shard,
        "position": owned.c.position,
        "epoch": owned.c.epoch,
        "event_count": bindparam("events", type_=journal.c.event_count.type),
        "first_end_time": bindparam("first", type_=journal.c.first_end_time.type),
        "last_end_time": bindparam("last", type_=journal.c.last_end_time.type),
        "commit_time": installation_time(func.clock_timestamp()),
        "body": bindparam("bytes", type_=journal.c.body.type),
    }
    return (
        insert(journal)
        .from_select(list(row), select(*row.values()).select_from(owned))
        .returning(journal.c.position, journal.c.event_count, journal.c.commit_time)
    )


APPEND: Final = _append()
