"""Requests that several reported, in Postgres: what waits to be decided, and what was decided."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Engine, text

from meter.arbiter import Claimed, FirstReport, Settlement
from meter.corrections import EventRow, RecordedEvent
from meter.domain.errors import Unavailable
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
from meter.store.corrections import follow_corrections, require_counted
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
SELECT o.*, n.seen_id FROM (
    SELECT observation_id, max(observation_id) OVER (PARTITION BY event_key) AS seen_id,
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
_AS_SEEN: Final = text("""
SELECT FROM event_claims WHERE event_key = :key AND source = :source AND report_rank = :rank
    AND token_count = :count AND is_choice = :is_choice
    AND correction_id IS NOT DISTINCT FROM CAST(:correction_id AS bigint) FOR UPDATE
""")
_UPDATE_CLAIM: Final = text("""
UPDATE event_claims SET source = :source, report_rank = :rank, token_count = :count,
    is_choice = :is_choice, correction_id = :correction_id
WHERE event_key = :key
""")
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
# with what was counted then.
_UPDATE_REPORTS: Final = text("""
UPDATE observations SET state = CASE
    WHEN observation_id = ANY(CAST(:counted AS bigint[])) THEN 3
    WHEN observation_id <= :seen_id OR report_key = :first THEN 2
    ELSE 1 END
WHERE event_key = :key
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


class ArbitrationWrites:
    """The part of a group's transaction that settles what a correction was made for."""

    _connection: Connection

    def settle(self, settlement: Settlement, *, correction_id: int) -> None:
        """Note what is counted by the correction."""
        # Whatever became of the claim since it was looked at: there is one correction of a row.
        _settle(self._connection, settlement, correction_id=correction_id)


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
            return {key: self._counted(connection, it) for key, it in found.items()}

    def confirm(self, settlement: Settlement) -> None:
        """Keep what was decided without a correction, unless the claim has changed since."""
        before = settlement.before
        with store_faults(), self._engine.begin() as connection:
            seen = connection.execute(_AS_SEEN, _claim_values(settlement.event_key, before))
            if seen.first() is not None:
                _settle(connection, settlement, correction_id=before.correction_id)

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

    def _counted(self, connection: Connection, recorded: RecordedEvent) -> CountedEvent:
        target, last = follow_corrections(connection, recorded.row)
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
    seen_ids: dict[bytes, int] = {}
    for row in connection.execute(_REPORTS, {**values, "limit": REQUEST_REPORTS_MAX}):
        reports.setdefault(row.event_key.bytes, []).append(_to_report(row))
        seen_ids[row.event_key.bytes] = row.seen_id
    return [
        Dispute(
            event_key=key,
            claim=claims.get(key),
            reports=reports.get(key, []),
            seen_id=seen_ids.get(key, 0),
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
    ids = np.frombuffer(segment.event_ids, np.uint8).reshape(-1, EVENT_ID_BYTES)
    for key, event_id in wanted.items():
        matching = (ids == np.frombuffer(event_id, np.uint8)).all(axis=1)
        for row in np.flatnonzero(matching).tolist():
            recorded = read_recorded(connection, segment, EventRow(*place, row))
            if event_key(recorded.account_id, event_id=event_id) == key:
                yield key, recorded
                break


def _settle(connection: Connection, decided: Settlement, *, correction_id: int | None) -> None:
    first = decided.first
    after = replace(decided.after, correction_id=correction_id)
    connection.execute(_UPDATE_CLAIM, _claim_values(decided.event_key, after))
    if first is not None:
        connection.execute(_KEEP_FIRST, _first_values(decided.event_key, first))
    connection.execute(
        _UPDATE_REPORTS,
        {
            "key": decided.event_key.hex(),
            "counted": list(decided.counted_ids),
            "seen_id": decided.seen_id,
            "first": (_NO_REPORT if first is None else first.report_key).hex(),
        },
    )


def _claim_values(key: bytes, claimed: Claimed) -> dict[str, object]:
    return {
        "key": key.hex(),
        "source": claimed.source,
        "rank": claimed.rank,
        "count": claimed.token_count,
        "is_choice": claimed.is_choice,
        "correction_id": claimed.correction_id,
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
