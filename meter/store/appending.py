"""The statements of each commit: what claims event ids, and what appends a segment."""

from typing import Final

from psycopg.errors import NotNullViolation
from sqlalchemy.exc import DBAPIError

from meter.runtime.trips import Statement
from meter.store.leases import LEASE_END
from meter.store.producer_list import CLOCK

CLAIM: Final = Statement(
    name="tokenworks_claim",
    text="""
    INSERT INTO event_claims (event_key, content_hash, claim_time)
    SELECT n.event_key, n.content_hash, $3::timestamptz
    FROM unnest($1::uuid[], $2::uuid[]) AS n (event_key, content_hash)
    ORDER BY 1 ON CONFLICT DO NOTHING
    """,
)
CLAIMED_BEFORE: Final = Statement(
    name="tokenworks_claimed_before",
    text="""
    SELECT event_key, content_hash FROM event_claims
    WHERE event_key = ANY($1::uuid[]) AND xmin <> pg_current_xact_id()::xid
    """,
)
# The ownership is checked by the very act that takes the position. A database that was restored may
# give an epoch out twice, but not to the same owner. Whoever owns the shard no more has no position
# for the row, and the row cannot be: what was sent with it is not done, nor is the commit.
APPEND: Final = Statement(
    name="tokenworks_append",
    text=f"""
    WITH owned AS (
        UPDATE shards SET position = position + 1, lease_until = {LEASE_END}
        WHERE shard = $1::smallint
            AND epoch = $2::bigint
            AND owner = $3::text
        RETURNING shard, position, epoch
    )
    INSERT INTO journal (
        shard, position, epoch, event_count, first_end_time, last_end_time, commit_time, body
    )
    SELECT o.shard, o.position, o.epoch, $4::integer, $5::timestamptz, $6::timestamptz,
        {CLOCK}, $7::bytea
    FROM (SELECT) AS segment LEFT JOIN owned o ON true
    RETURNING position, event_count, commit_time
    """,  # noqa: S608
)


def is_not_owned(error: DBAPIError) -> bool:
    """Tell whether a segment was refused since its shard is somebody else's."""
    fault = error.orig
    return isinstance(fault, NotNullViolation) and fault.diag.column_name == "shard"
