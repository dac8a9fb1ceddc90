"""Requests that several report, in Postgres: claimed once, other reports kept, and originals."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import insert, text

from meter.domain.event import Claim, Evidence, Reports
from meter.domain.times import to_time
from meter.sources.observation import RANK_MAX
from meter.store.group_writes import GroupWrites
from meter.store.tables import usage_originals

_CLAIM: Final = text("""
INSERT INTO event_claims (
    event_key, content_hash, source, report_rank, billed_hash, token_count, is_choice, claim_time,
    shard, position
)
SELECT n.*, :now, s.shard, s.position + 1
FROM unnest(
    CAST(:keys AS uuid[]), CAST(:reports AS uuid[]), CAST(:sources AS smallint[]),
    CAST(:ranks AS smallint[]), CAST(:hashes AS uuid[]), CAST(:counts AS bigint[]),
    CAST(:choices AS boolean[])
) AS n
CROSS JOIN (SELECT shard, position FROM shards WHERE shard = :shard) AS s
ORDER BY 1 ON CONFLICT DO NOTHING
""")
_CLAIMED: Final = text("""
SELECT event_key, content_hash, coalesce(source, 0) AS source, token_count, is_choice,
    coalesce(report_rank, :unseen_rank) AS report_rank,
    coalesce(billed_hash, content_hash) AS billed_hash
FROM event_claims
WHERE event_key = ANY(CAST(:keys AS uuid[])) AND xmin <> pg_current_xact_id()::xid
""")
_OBSERVE: Final = text("""
INSERT INTO observations (
    event_key, report_key, source, report_rank, billed_hash, token_count, is_choice, state,
    key_id, profile, event, receive_time
)
SELECT n.*, :now
FROM unnest(
    CAST(:keys AS uuid[]), CAST(:reports AS uuid[]), CAST(:sources AS smallint[]),
    CAST(:ranks AS smallint[]), CAST(:hashes AS uuid[]), CAST(:counts AS bigint[]),
    CAST(:choices AS boolean[]), CAST(:states AS smallint[]), CAST(:key_ids AS text[]),
    CAST(:profiles AS text[]), CAST(:events AS bytea[])
) AS n
ORDER BY 1, 2 ON CONFLICT DO NOTHING
""")
_OBSERVED: Final = text("""
SELECT o.event_key, o.report_key, o.billed_hash
FROM unnest(CAST(:keys AS uuid[]), CAST(:reports AS uuid[])) AS n (event_key, report_key)
JOIN observations o USING (event_key, report_key)
WHERE o.xmin <> pg_current_xact_id()::xid
""")
# As in the table: what is to be decided, and what is not.
_WAITING: Final = 1
_EVIDENCE: Final = 2
_COUNTED_ROWS: Final[Mapping[str, Any]] = {"preserve_rowcount": True}


class ObservationWrites(GroupWrites):
    """The part of a group's transaction that claims requests and keeps what else was reported."""

    def claim_requests(self, claims: Mapping[bytes, Claim], *, now_ms: int) -> dict[bytes, Claim]:
        """Claim requests; return how those are counted that were claimed before.

        They lie in the segment that is appended next.
        """
        # Sorted, so that two servers that claim the same ones wait for each other in one order.
        keys = sorted(claims)
        values = _columns(keys, [claims[key] for key in keys])
        inserted = self._connection.execute(
            _CLAIM,
            {**values, "now": to_time(now_ms), "shard": self._lease.shard},
            execution_options=_COUNTED_ROWS,
        ).rowcount
        if inserted == len(keys):
            return {}
        return {
            row.event_key.bytes: Claim(
                report_key=row.content_hash.bytes,
                source=row.source,
                rank=row.report_rank,
                billed_hash=row.billed_hash.bytes,
                token_count=row.token_count or 0,
                is_choice=bool(row.is_choice),
            )
            for row in self._connection.execute(
                _CLAIMED, {"keys": values["keys"], "unseen_rank": RANK_MAX + 1}
            )
        }

    def observe(self, evidence: Sequence[Evidence], *, now_ms: int) -> dict[bytes, bytes]:
        """Keep reports, each once; return the hashes of those kept before, by event and report."""
        rows = sorted(evidence, key=lambda it: (it.event_key, it.claim.report_key))
        values = _columns([it.event_key for it in rows], [it.claim for it in rows])
        inserted = self._connection.execute(
            _OBSERVE,
            {
                **values,
                "states": [_EVIDENCE if it.is_settled else _WAITING for it in rows],
                "key_ids": [it.key_id for it in rows],
                "profiles": [it.profile for it in rows],
                "events": [it.event for it in rows],
                "now": to_time(now_ms),
            },
            execution_options=_COUNTED_ROWS,
        ).rowcount
        if inserted == len(rows):
            return {}
        before = self._connection.execute(
            _OBSERVED, {"keys": values["keys"], "reports": values["reports"]}
        )
        return {row.event_key.bytes + row.report_key.bytes: row.billed_hash.bytes for row in before}

    def keep_originals(self, reports: Reports, *, span_ms: tuple[int, int], now_ms: int) -> None:
        """Keep usage objects as they came, of events that ended in a span, both ends included."""
        self._connection.execute(
            insert(usage_originals).values(
                receive_time=to_time(now_ms),
                source=reports.source,
                profile=reports.profile,
                event_count=reports.original_count,
                first_end_time=to_time(span_ms[0]),
                last_end_time=to_time(span_ms[1]),
                body=reports.originals,
            )
        )


def to_uuid_array(keys: Sequence[bytes]) -> str:
    """Return the literal of an array of UUIDs.

    Postgres reads it far faster than a driver writes as many objects.
    """
    return "{" + ",".join([key.hex() for key in keys]) + "}"


def _columns(keys: Sequence[bytes], claims: Sequence[Claim]) -> dict[str, object]:
    reports, sources, ranks, hashes, counts, choices = zip(*claims, strict=True)
    return {
        "keys": to_uuid_array(keys),
        "reports": to_uuid_array(reports),
        "sources": _to_array(sources),
        "ranks": _to_array(ranks),
        "hashes": to_uuid_array(hashes),
        "counts": _to_array(counts),
        "choices": list(choices),
    }


def _to_array(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"
