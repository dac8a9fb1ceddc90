"""Requests that several reported, in Postgres: what waits to be decided, and what was decided."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Engine, text

from meter.arbiter import Claimed, FirstReport, Settlement
from meter.corrections import Correction, EventRow, RecordedEvent
from meter.domain.errors import Unavailable
from meter.domain.event import Dimensions
from meter.domain.limits import EVENT_ID_BYTES, REQUEST_REPORTS_MAX
from meter.domain.times import to_ms, to_time
from meter.observations import (
    Claim,
    CountedEvent,
    Dispute,
    KeptOriginal,
    KeptReport,
    OriginalKey,
)
from meter.runtime.engine import store_faults
from meter.segment import decode
from meter.sources.identity import event_key
from meter.sources.originals import unpack
from meter.store.archived_bodies import Archived, ArchivedBodies
from meter.store.corrections import follow_all, require_counted
from meter.store.group_writes import GroupWrites
from meter.store.observations import to_uuid_array
from meter.store.recorded_events import read_recorded

_CLAIM_COLUMNS: Final = """
c.content_hash, c.source, c.report_rank, c.billed_hash, c.token_count, c.is_choice,
c.correction_id, c.claim_time, c.shard, c.position
"""
_WAITING: Final = text("""
SELECT event_key, min(observation_id) AS first_id FROM observations
WHERE state = 1 AND observation_id > :after_id GROUP BY event_key ORDER BY 2 LIMIT :limit
""")
_CLAIMS: Final = text(
    f"SELECT c.event_key, {_CLAIM_COLUMNS} FROM event_claims c"  # noqa: S608
    " WHERE c.event_key = ANY(CAST(:keys AS uuid[])) AND c.source IS NOT NULL"
)
_REPORTS: Final = text("""
SELECT o.*, n.seen_id, n.seen_count FROM (
    SELECT observation_id, max(observation_id) OVER (PARTITION BY event_key) AS seen_id,
        count(*) OVER (PARTITION BY event_key) AS seen_count,
        row_number() OVER (PARTITION BY event_key ORDER BY observation_id) AS place
    FROM observations WHERE event_key = ANY(CAST(:keys AS uuid[]))
) AS n JOIN observations o USING (observation_id) WHERE n.place <= :limit ORDER BY observation_id
""")
_BODIES: Final = text("""
SELECT j.shard, j.position, j.body
FROM unnest(CAST(:shards AS smallint[]), CAST(:positions AS bigint[])) AS n (shard, position)
JOIN journal j USING (shard, position)
""")
_ARCHIVED: Final = text("""
SELECT s.shard, s.position, s.archive_id, s.place, s.sha256
FROM unnest(CAST(:shards AS smallint[]), CAST(:positions AS bigint[])) AS n (shard, position)
JOIN journal_segments s USING (shard, position) WHERE s.archive_id IS NOT NULL
""")
_ORIGINALS: Final = text("""
SELECT profile, body FROM usage_originals WHERE receive_time = :receive_time AND source = :source
""")
_CLAIMED: Final = """
unnest(CAST(:keys AS uuid[]), CAST(:sources AS smallint[]), CAST(:ranks AS smallint[]),
    CAST(:counts AS bigint[]), CAST(:choices AS boolean[]), CAST(:correction_ids AS bigint[]))
    AS n (event_key, source, report_rank, token_count, is_choice, correction_id)
"""
# Whoever holds a claim at this moment decides about it: it is looked at again.
_AS_SEEN: Final = text(
    f"SELECT c.event_key FROM event_claims c JOIN {_CLAIMED} USING (event_key)"  # noqa: S608
    " WHERE (c.source, c.report_rank, c.token_count, c.is_choice)"
    " = (n.source, n.report_rank, n.token_count, n.is_choice)"
    " AND c.correction_id IS NOT DISTINCT FROM n.correction_id FOR UPDATE OF c SKIP LOCKED"
)
_UPDATE_CLAIMS: Final = text(
    "UPDATE event_claims c SET source = n.source, report_rank = n.report_rank,"  # noqa: S608
    " token_count = n.token_count, is_choice = n.is_choice, correction_id = n.correction_id"
    f" FROM {_CLAIMED} WHERE c.event_key = n.event_key"
)
_KEEP_FIRST: Final = text("""
INSERT INTO observations (
    event_key, report_key, source, report_rank, billed_hash, token_count, is_choice, state,
    receive_time, key_id, profile, event
) VALUES (
    :key, :report, :source, :rank, :hash, :count, :is_choice, 2, :receive_time, :key_id, :profile,
    :event
) ON CONFLICT DO NOTHING
""")
# What came since it was looked at is looked at again, whatever was thought of it: it was compared
# with what was counted then. Its number may be a low one: another server had it on its way.
_UPDATE_REPORTS: Final = text("""
UPDATE observations o SET state = CASE
    WHEN o.observation_id = ANY(CAST(:counted AS bigint[])) THEN 3
    WHEN o.observation_id <= n.seen_id AND n.seen_count = (
        SELECT count(*) FROM observations s
        WHERE s.event_key = n.event_key AND s.observation_id <= n.seen_id
    ) THEN 2
    WHEN o.report_key = n.first_key THEN 2
    ELSE 1 END
FROM unnest(
    CAST(:keys AS uuid[]), CAST(:seen_ids AS bigint[]), CAST(:seen_counts AS bigint[]),
    CAST(:firsts AS uuid[])
) AS n (event_key, seen_id, seen_count, first_key)
WHERE o.event_key = n.event_key
""")
_SETTLE_ALL: Final = text("""
UPDATE observations SET state = 2
WHERE state = 1 AND event_key = ANY(CAST(:keys AS uuid[])) AND observation_id <= :seen_id
""")
_WAITING_COUNT: Final = text("SELECT count(*) FROM observations WHERE state = 1")
_FORGET: Final = (
    text("DELETE FROM observations WHERE receive_time < :before"),
    text("DELETE FROM usage_originals WHERE receive_time < :originals_before"),
)
_NO_REPORT: Final = bytes(16)
_COUNTED: Final = 3


class ArbitrationWrites(GroupWrites):
    """The part of a group's transaction that settles what a correction was made for."""

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Note what is counted by corrections, each with its id in `after`."""
        # Whatever became of a claim since it was looked at: there is one correction of a row.
        _settle(self._connection, settlements)


class ArbitrationStore:
    """Finds what is to be decided, and keeps what was decided without a correction."""

    def __init__(
        self,
        engine: Engine,
        *,
        own_shard: Callable[[], int],
        archive: ArchivedBodies | None = None,
    ) -> None:
        """Take the engine and what returns the shard to which this process appends corrections."""
        self._engine = engine
        self._own_shard = own_shard
        self._archive = archive or ArchivedBodies()

    def find_disputes(self, *, after_id: int, limit: int) -> tuple[Sequence[Dispute], int]:
        """Return requests of which reports wait, from an id on, oldest first, and the last id."""
        with store_faults(), self._engine.connect() as connection:
            waiting = connection.execute(_WAITING, {"after_id": after_id, "limit": limit}).all()
            keys = [row.event_key.bytes for row in waiting]
            found = _read_disputes(connection, keys) if keys else []
        return found, max((row.first_id for row in waiting), default=after_id)

    def find_dispute(self, key: bytes) -> Dispute:
        """Return what is known of a request, whether or not anything waits."""
        with store_faults(), self._engine.connect() as connection:
            return _read_disputes(connection, [key])[0]

    def find_originals(self, keys: Sequence[OriginalKey]) -> dict[bytes, KeptOriginal]:
        """Return usage objects as they came, by report key, those that are still kept."""
        wanted = {it.report_key for it in keys}
        calls = sorted({(it.source, it.received_ms) for it in keys})
        found = {}
        with store_faults(), self._engine.connect() as connection:
            for source, received_ms in calls:
                values = {"source": source, "receive_time": to_time(received_ms)}
                for row in connection.execute(_ORIGINALS, values):
                    for it in unpack(bytes(row.body)):
                        if it.report_key in wanted:
                            kept = KeptOriginal(profile=row.profile, usage=it.usage)
                            found[it.report_key] = kept
        return found

    def find_counted(
        self, claims: Mapping[bytes, tuple[Claim, bytes]]
    ) -> Mapping[bytes, CountedEvent]:
        """Return the events of claims, by event key; each is given with its id in the journal.

        One that is not where its claim says is left out. One whose counted row lies in another
        server's shard and is not counted yet is not settled: no correction of it can be made now.
        """
        wanted: dict[tuple[int, int], dict[bytes, bytes]] = {}
        for key, (claim, event_id) in claims.items():
            wanted.setdefault((claim.shard, claim.position), {})[key] = event_id
        with store_faults(), self._engine.connect() as connection:
            found: dict[bytes, RecordedEvent] = {}
            for place, body in self._bodies(connection, sorted(wanted)):
                found.update(_find_events(connection, place, body, wanted=wanted[place]))
            chains = follow_all(connection, [it.row for it in found.values()])
            return {
                key: self._counted(connection, it, chain=chains[it.row])
                for key, it in found.items()
            }

    def confirm(self, settlements: Sequence[Settlement]) -> None:
        """Keep what was decided without corrections, where the claims have not changed since."""
        wanted = {it.event_key: it for it in settlements}
        before = _claim_values([(key, it.before) for key, it in wanted.items()])
        with store_faults(), self._engine.begin() as connection:
            seen = connection.execute(_AS_SEEN, before).scalars().all()
            if seen:
                _settle(connection, [wanted[key.bytes] for key in seen])

    def keep_as_evidence(self, keys: Sequence[bytes], *, seen_id: int) -> None:
        """Decide that nothing is to be decided about these requests' reports, up to an id."""
        values = {"keys": to_uuid_array(keys), "seen_id": seen_id}
        with store_faults(), self._engine.begin() as connection:
            connection.execute(_SETTLE_ALL, values)

    def waiting_count(self) -> int:
        """Return how many reports wait to be compared."""
        with store_faults(), self._engine.connect() as connection:
            return int(connection.execute(_WAITING_COUNT).scalar_one())

    def forget(self, *, before_ms: int, originals_before_ms: int) -> None:
        """Delete reports and originals that came before a time each."""
        values = {
            "before": to_time(before_ms),
            "originals_before": to_time(originals_before_ms),
        }
        for statement in _FORGET:
            with store_faults(), self._engine.begin() as connection:
                connection.execute(statement, values)

    def _counted(
        self,
        connection: Connection,
        recorded: RecordedEvent,
        *,
        chain: tuple[EventRow, Correction | None],
    ) -> CountedEvent:
        target, last = chain
        is_settled = True
        try:
            require_counted(connection, target, own_shard=self._own_shard())
        except Unavailable:
            is_settled = False
        return CountedEvent(
            recorded=recorded,
            target=target,
            event=recorded.event if last is None else last.after,
            correction_id=None if last is None else last.correction_id,
            is_settled=is_settled,
        )

    def _bodies(
        self, connection: Connection, places: Sequence[tuple[int, int]]
    ) -> Iterable[tuple[tuple[int, int], bytes]]:
        values = {
            "shards": [shard for shard, _ in places],
            "positions": [position for _, position in places],
        }
        for row in connection.execute(_BODIES, values).all():
            yield (row.shard, row.position), bytes(row.body)
        rows = connection.execute(_ARCHIVED, values).all()
        wanted = [
            Archived(archive_id=it.archive_id, place=it.place, sha256=bytes(it.sha256))
            for it in rows
        ]
        for row, body in zip(rows, self._archive.read(connection, wanted), strict=True):
            yield (row.shard, row.position), body


def _read_disputes(connection: Connection, keys: Sequence[bytes]) -> list[Dispute]:
    values = {"keys": to_uuid_array(keys)}
    # The claims first: a claim that changes before the reports are read was changed by somebody
    # who saw fewer of them, and is found changed when it is written.
    claims = {row.event_key.bytes: _to_claim(row) for row in connection.execute(_CLAIMS, values)}
    reports: dict[bytes, list[KeptReport]] = {}
    seen: dict[bytes, tuple[int, int]] = {}
    for row in connection.execute(_REPORTS, {**values, "limit": REQUEST_REPORTS_MAX}):
        reports.setdefault(row.event_key.bytes, []).append(_to_report(row))
        seen[row.event_key.bytes] = (row.seen_id, row.seen_count)
    return [
        Dispute(
            event_key=key,
            claim=claims.get(key),
            reports=reports.get(key, []),
            seen_id=seen.get(key, (0, 0))[0],
            seen_count=seen.get(key, (0, 0))[1],
        )
        for key in keys
    ]


def _find_events(
    connection: Connection,
    place: tuple[int, int],
    body: bytes,
    *,
    wanted: Mapping[bytes, bytes],
) -> Iterable[tuple[bytes, RecordedEvent]]:
    """Yield the events of a segment by key; ids are one name space for all keys of an account."""
    segment = decode(body)
    known: dict[int, Dimensions] = {}
    ids = np.frombuffer(segment.event_ids, np.uint8).reshape(-1, EVENT_ID_BYTES)
    for key, event_id in wanted.items():
        matching = (ids == np.frombuffer(event_id, np.uint8)).all(axis=1)
        for row in np.flatnonzero(matching).tolist():
            recorded = read_recorded(connection, segment, EventRow(*place, row), known=known)
            if event_key(recorded.account_id, event_id=event_id) == key:
                yield key, recorded
                break


def _settle(connection: Connection, settlements: Sequence[Settlement]) -> None:
    """Write what was decided; the claims are locked from then on."""
    after = _claim_values([(it.event_key, it.after) for it in settlements])
    connection.execute(_UPDATE_CLAIMS, after)
    firsts = [(it.event_key, it.first) for it in settlements if it.first is not None]
    if firsts:
        connection.execute(_KEEP_FIRST, [_first_values(key, first) for key, first in firsts])
    connection.execute(
        _UPDATE_REPORTS,
        {
            "keys": after["keys"],
            "counted": [number for it in settlements for number in it.counted_ids],
            "seen_ids": [it.seen_id for it in settlements],
            "seen_counts": [it.seen_count for it in settlements],
            "firsts": to_uuid_array(
                [_NO_REPORT if it.first is None else it.first.report_key for it in settlements]
            ),
        },
    )


def _claim_values(claims: Sequence[tuple[bytes, Claimed]]) -> dict[str, object]:
    return {
        "keys": to_uuid_array([key for key, _ in claims]),
        "sources": [it.source for _, it in claims],
        "ranks": [it.rank for _, it in claims],
        "counts": [it.token_count for _, it in claims],
        "choices": [it.is_choice for _, it in claims],
        "correction_ids": [it.correction_id for _, it in claims],
    }


def _first_values(key: bytes, first: FirstReport) -> dict[str, object]:
    return {
        "key": key.hex(),
        "report": first.report_key.hex(),
        "source": first.source,
        "rank": first.rank,
        "hash": first.billed_hash.hex(),
        "count": first.token_count,
        "is_choice": first.is_choice,
        "receive_time": to_time(first.received_ms),
        "key_id": first.key_id,
        "profile": first.profile,
        "event": first.event,
    }


def _to_claim(row: Any) -> Claim:  # noqa: ANN401
    return Claim(
        event_key=row.event_key.bytes,
        claimed=Claimed(
            source=row.source,
            rank=row.report_rank,
            token_count=row.token_count,
            is_choice=row.is_choice,
            correction_id=row.correction_id,
        ),
        first_report_key=row.content_hash.bytes,
        billed_hash=row.billed_hash.bytes,
        claim_ms=to_ms(row.claim_time),
        shard=row.shard,
        position=row.position,
    )


def _to_report(row: Any) -> KeptReport:  # noqa: ANN401
    return KeptReport(
        observation_id=row.observation_id,
        event_key=row.event_key.bytes,
        report_key=row.report_key.bytes,
        source=row.source,
        rank=row.report_rank,
        token_count=row.token_count,
        is_choice=row.is_choice,
        is_counted=row.state == _COUNTED,
        received_ms=to_ms(row.receive_time),
        key_id=row.key_id,
        profile=row.profile,
        event=bytes(row.event),
    )
