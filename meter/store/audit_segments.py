"""Segments as an audit reads them: those of the table over COPY, those in files by their rows."""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, LiteralString

from psycopg import sql
from sqlalchemy import Connection, text

from meter.counting.audit import Window
from meter.counting.auditor import StoredSegment
from meter.counting.windows import Extent
from meter.domain.times import to_ms, to_time
from meter.runtime.engine import driver_connection
from meter.store.archived_bodies import Archived, ArchivedBodies

# Runs of positions that one window reads by themselves; above it, all between first and last.
_RUNS_MAX: Final = 200
# Of those in files the bodies are held together.
_ARCHIVED_AT_ONCE: Final = 64
_POSTGRES_EPOCH_MS: Final = 946_684_800_000
_COPY_HEAD_BYTES: Final = 19
_SEGMENT_ROW: Final = struct.Struct(">hihiqiiiqiqi")
_SEGMENTS: Final[LiteralString] = """
SELECT shard, position, event_count, first_end_time, last_end_time, body FROM journal
WHERE shard = {shard} AND position BETWEEN {first} AND {last}
  AND first_end_time < {end} AND last_end_time >= {start}
ORDER BY position
"""
_ARCHIVED: Final = text("""
SELECT shard, position, event_count, first_end_time, last_end_time, archive_id, place, sha256
FROM journal_segments
WHERE archive_id IS NOT NULL AND shard = :shard AND position BETWEEN :first AND :last
  AND first_end_time < :end AND last_end_time >= :start
ORDER BY position
""")


def read_segments(
    connection: Connection,
    window: Window,
    *,
    extents: Sequence[Extent],
    archive: ArchivedBodies,
) -> Iterator[StoredSegment]:
    """Yield what is counted and may hold events of a window; of a run, what is in files first."""
    counted = connection.execute(text("SELECT shard, position FROM counting ORDER BY shard")).all()
    span = {"start": to_time(window.start_ms), "end": to_time(window.end_ms)}
    for shard, position in counted:
        for first, last in _runs(extents, shard=shard, newest=position, window=window):
            run = {"shard": shard, "first": first, "last": last, **span}
            yield from _read_archived(connection, run, archive=archive)
            yield from map(_to_segment, copy_rows(connection, sql.SQL(_SEGMENTS).format(**run)))


def copy_rows(connection: Connection, question: sql.Composable) -> Iterator[bytes]:
    """Yield the rows of a question in COPY's binary form, as they come over the wire."""
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(question)
    is_first = True
    with driver_connection(connection).cursor() as cursor, cursor.copy(statement) as copy:
        for data in copy:
            row = bytes(data)
            if is_first:
                row, is_first = row[_COPY_HEAD_BYTES:], False
            # The end has no fields, but a mark in their place.
            if len(row) > len(b"\xff\xff"):
                yield row


def _read_archived(
    connection: Connection, run: dict[str, Any], *, archive: ArchivedBodies
) -> Iterator[StoredSegment]:
    rows = connection.execute(_ARCHIVED, run).all()
    for first in range(0, len(rows), _ARCHIVED_AT_ONCE):
        some = rows[first : first + _ARCHIVED_AT_ONCE]
        wanted = [
            Archived(archive_id=it.archive_id, place=it.place, sha256=bytes(it.sha256))
            for it in some
        ]
        for row, body in zip(some, archive.read(connection, wanted), strict=True):
            yield StoredSegment(
                shard=row.shard,
                position=row.position,
                event_count=row.event_count,
                first_end_ms=to_ms(row.first_end_time),
                last_end_ms=to_ms(row.last_end_time),
                body=body,
            )


def _runs(
    extents: Sequence[Extent], *, shard: int, newest: int, window: Window
) -> list[tuple[int, int]]:
    """Return the runs of positions in which segments of a window can lie, up to the newest."""
    own = [each for each in extents if each.shard == shard]
    near = [
        (each.first_position, each.last_position)
        for each in own
        if each.first_ms < window.end_ms and each.last_ms >= window.start_ms
    ]
    # What came after the survey may be of any time.
    surveyed = max((each.last_position for each in own), default=0)
    runs: list[tuple[int, int]] = []
    for first, last in [*near, (surveyed + 1, newest)]:
        if runs and first <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], max(last, runs[-1][1]))
        else:
            runs.append((first, last))
    if len(runs) > _RUNS_MAX:
        runs = [(runs[0][0], runs[-1][1])]
    return [(first, min(last, newest)) for first, last in runs if first <= min(last, newest)]


def _to_segment(row: bytes) -> StoredSegment:
    _, _, shard, _, position, _, count, _, first_us, _, last_us, size = _SEGMENT_ROW.unpack_from(
        row
    )
    begin = _SEGMENT_ROW.size
    return StoredSegment(
        shard=shard,
        position=position,
        event_count=count,
        first_end_ms=first_us // 1000 + _POSTGRES_EPOCH_MS,
        last_end_ms=last_us // 1000 + _POSTGRES_EPOCH_MS,
        body=row[begin : begin + size],
    )
