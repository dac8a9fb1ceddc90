"""Segments of the journal read in parts: Postgres sends of a body only the bytes that are asked.

Bodies are kept outside their rows and not compressed, so a slice of one costs what the slice does.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, text

from meter.domain.event import DEFAULTS, Int64Array
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_ms, to_time
from meter.planes import Packed
from meter.runtime.engine import driver_connection
from meter.segment import HEAD_START_BYTES, Head, read_first, read_head
from meter.segment_columns import find_rows, take
from meter.store.archived_bodies import Archived, ArchivedBodies

# A body up to this size is read at once: asking again would cost more.
_WHOLE_BYTES_MAX: Final = 32 * 1024
# Events whose first columns are held at a time.
_EVENTS_AT_ONCE: Final = 8_000_000
_SEGMENTS_AT_ONCE: Final = 4_000
# Of those in files all of the bodies is held.
_ARCHIVED_AT_ONCE: Final = 64

_PLACES: Final = text("""
SELECT j.shard, j.position, j.event_count, j.first_end_time, j.last_end_time,
       j.archive_id, j.place, j.sha256
FROM journal_segments j
JOIN cut_positions c ON c.shard = j.shard AND c.cut_id = :cut AND j.position <= c.position
LEFT JOIN cut_positions a ON a.shard = j.shard AND a.cut_id = :after
WHERE j.position > coalesce(a.position, 0)
  AND j.first_end_time < :end AND j.last_end_time >= :start
ORDER BY j.shard, j.position
""")
_HIGHEST: Final = text("SELECT coalesce(max(dimension_id), 0) FROM dimensions")
# The length of a head stands in its bytes 1 to 4, the lowest first.
_STARTS: Final = f"""
SELECT CASE WHEN octet_length(j.body) <= {_WHOLE_BYTES_MAX} THEN j.body ELSE
    substring(j.body FROM 1 FOR
        {HEAD_START_BYTES} + get_byte(s.start, 1) + get_byte(s.start, 2) * 256
        + get_byte(s.start, 3) * 65536 + get_byte(s.start, 4) * 16777216
        + (j.event_count + 1) / 2 * %s) END
FROM unnest(%s::smallint[], %s::bigint[]) WITH ORDINALITY AS w (shard, position, place)
JOIN journal j USING (shard, position)
CROSS JOIN LATERAL (SELECT substring(j.body FROM 1 FOR {HEAD_START_BYTES}) AS start) s
ORDER BY w.place
"""  # noqa: S608  own numbers
_SLICES: Final = """
SELECT substring(j.body FROM w.first FOR w.size)
FROM unnest(%s::smallint[], %s::bigint[], %s::int[], %s::int[]) WITH ORDINALITY
    AS w (shard, position, first, size, place)
JOIN journal j USING (shard, position)
ORDER BY w.place
"""
_ARCHIVED: Final = text("""
SELECT archive_id, place, sha256 FROM archived_segments
WHERE (shard, position) = (:shard, :position)
""")
_BODY: Final = "SELECT body FROM journal WHERE shard = %s AND position = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A segment: where it stands, how many events it has, and the interval that all lie in.

    `interval` counts from 1970; None where they lie in more than one. `archived` says where its
    body lies that left the database.
    """

    shard: int
    position: int
    event_count: int
    interval: int | None
    archived: Archived | None = None


class SegmentParts:
    """A segment of which some parts were read."""

    def __init__(self, place: Place, *, head: Head, start: memoryview) -> None:
        """Take what the body begins with; `read_parts` adds what more is needed."""
        self.place = place
        self.head = head
        self._start = start
        self._read: dict[str, Packed] = {}

    def has(self, name: str) -> bool:
        """Tell whether a column is there; one that is not is all default."""
        return name in self.head.parts

    def lacks(self, name: str) -> bool:
        """Tell whether a column is there and not read yet."""
        part = self.head.parts.get(name)
        return (
            part is not None
            and name not in self._read
            and part.offset + part.size_bytes > len(self._start)
        )

    def add(self, name: str, data: bytes) -> None:
        """Take the bytes of a column."""
        self._read[name] = data

    def take(self, name: str, rows: Int64Array) -> Int64Array:
        """Return the values of a column at some rows; those of its default where it is absent."""
        part = self.head.parts.get(name)
        if part is None:
            return np.full(len(rows), DEFAULTS.get(name, 0), np.int64)
        return take(self.data(name), part.column, count=self.head.event_count, rows=rows)

    def data(self, name: str) -> Packed:
        """Return the bytes of a column that was read."""
        part = self.head.parts[name]
        return self._read.get(name) or self._start[part.offset : part.offset + part.size_bytes]


def find_places(
    connection: Connection, *, cut_id: int, after_cut_id: int, intervals: Int64Array
) -> list[Place]:
    """Return the segments between two cuts that may hold events of some intervals, in order.

    `intervals` rise, and count from 1970.
    """
    values = {
        "cut": cut_id,
        "after": after_cut_id,
        "start": to_time(int(intervals[0]) * INTERVAL_MS),
        "end": to_time((int(intervals[-1]) + 1) * INTERVAL_MS),
    }
    rows = connection.execute(_PLACES, values).all()
    first = np.array([to_ms(it.first_end_time) for it in rows], np.int64) // INTERVAL_MS
    last = np.array([to_ms(it.last_end_time) for it in rows], np.int64) // INTERVAL_MS
    # The first interval at or after a segment's begin lies before its end, or it has none.
    at = np.searchsorted(intervals, first)
    meets = (at < len(intervals)) & (intervals[np.minimum(at, len(intervals) - 1)] <= last)
    return [
        Place(
            shard=rows[it].shard,
            position=int(rows[it].position),
            event_count=rows[it].event_count,
            interval=int(first[it]) if first[it] == last[it] else None,
            archived=_to_archived(rows[it]),
        )
        for it in np.flatnonzero(meets).tolist()
    ]


def read_parts(
    connection: Connection,
    places: Sequence[Place],
    *,
    dimension_ids: Int64Array,
    columns: Callable[[Place], Sequence[str]],
    archive: ArchivedBodies,
) -> Iterator[tuple[SegmentParts, Int64Array]]:
    """Yield the segments with any event of these dimensions, and the rows of those events.

    They come in order, with the columns that `columns` asks for. Those in files are read whole.
    """
    highest = int(connection.execute(_HIGHEST).scalar_one())
    half_bytes = (highest.bit_length() + 3) // 4
    for run in _runs(places):
        found: list[tuple[SegmentParts, Int64Array]] = []
        if run[0].archived is not None:
            starts = archive.read(connection, [it.archived for it in run if it.archived])
        else:
            key = ([it.shard for it in run], [it.position for it in run])
            starts = _ask(connection, _STARTS, (half_bytes, *key))
        for place, start in zip(run, starts, strict=True):
            first = read_first(start, count=place.event_count)
            rows = find_rows(
                memoryview(start)[first.offset : first.offset + first.size_bytes],
                first.column,
                count=place.event_count,
                wanted=dimension_ids,
            )
            if len(rows):
                parts = SegmentParts(place, head=read_head(start), start=memoryview(start))
                found.append((parts, rows))
        _read_columns(connection, [parts for parts, _ in found], columns=columns)
        yield from found


def read_body(connection: Connection, place: Place, *, archive: ArchivedBodies) -> bytes:
    """Return all of a segment's body.

    One that left the database since it was found is looked for in the files.
    """
    if place.archived is not None:
        return archive.read(connection, [place.archived])[0]
    found = _ask(connection, _BODY, (place.shard, place.position))
    if not found:
        row = connection.execute(_ARCHIVED, {"shard": place.shard, "position": place.position})
        archived = _to_archived(row.one())
        assert archived is not None, "a segment lies in the database or in a file"
        return archive.read(connection, [archived])[0]
    return found[0]


def _to_archived(row: Any) -> Archived | None:  # noqa: ANN401
    if row.archive_id is None:
        return None
    return Archived(archive_id=row.archive_id, place=row.place, sha256=bytes(row.sha256))


def _read_columns(
    connection: Connection,
    segments: Sequence[SegmentParts],
    *,
    columns: Callable[[Place], Sequence[str]],
) -> None:
    wanted = [
        (parts, name) for parts in segments for name in columns(parts.place) if parts.lacks(name)
    ]
    if not wanted:
        return
    slices = [parts.head.parts[name] for parts, name in wanted]
    values = (
        [parts.place.shard for parts, _ in wanted],
        [parts.place.position for parts, _ in wanted],
        [it.offset + 1 for it in slices],
        [it.size_bytes for it in slices],
    )
    for (parts, name), data in zip(wanted, _ask(connection, _SLICES, values), strict=True):
        parts.add(name, data)


def _runs(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    """Yield runs that are read at once: none has both such in files and others."""
    run: list[Place] = []
    events = 0
    for place in places:
        if run and (run[0].archived is None) is not (place.archived is None):
            yield run
            run, events = [], 0
        run.append(place)
        events += place.event_count
        count_max = _SEGMENTS_AT_ONCE if place.archived is None else _ARCHIVED_AT_ONCE
        if events >= _EVENTS_AT_ONCE or len(run) >= count_max:
            yield run
            run, events = [], 0
    if run:
        yield run


def _ask(connection: Connection, question: str, values: tuple[Any, ...]) -> list[bytes]:
    """Return the one column of a question, in binary: as text it would come twice as long."""
    with driver_connection(connection).cursor(binary=True) as cursor:
        cursor.execute(question, values)
        return [data for (data,) in cursor]
