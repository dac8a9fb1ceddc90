"""The journal's parts in Postgres: made ahead, written into files, and dropped when those stand."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, insert, select, text

from meter.archive_file import ArchivedRow, ArchiveFolder, WrittenFile
from meter.domain.errors import Reason, StoreRefusal
from meter.domain.times import to_time
from meter.runtime.engine import refusals, store_faults
from meter.store.archive_tables import journal_archives, journal_parts

# Any constant does; it must only be the same in every release.
_ARCHIVE_LOCK: Final = 7_412
# A file has bodies of up to so many bytes, but for one that is larger alone: a step is a second.
_FILE_BYTES_MAX: Final = 64 * 1024 * 1024
_FILE_SEGMENTS_MAX: Final = 100_000
_NEXT: Final = """
SELECT shard, position, epoch, event_count, first_end_time, last_end_time, commit_time,
       octet_length(body) AS size_bytes
FROM journal j WHERE {within} AND {rest} ORDER BY shard, position LIMIT :limit
"""
# Roles reach a part only through the whole.
_WITHIN: Final = """
commit_time >= coalesce(CAST(:start AS timestamptz), '-infinity') AND commit_time < :end
"""
# What follows the newest file; and what does not, and is in none all the same.
_AFTER_NEWEST: Final = """
(shard, position) > ALL (SELECT shard, last_position FROM journal_archives WHERE part = :part
                         ORDER BY shard DESC, last_position DESC LIMIT 1)
"""
_IN_NONE: Final = """
NOT EXISTS (SELECT FROM archived_segments s WHERE (s.shard, s.position) = (j.shard, j.position))
"""
_ROWS: Final = text(f"""
SELECT shard, position, epoch, event_count, first_end_time, last_end_time, commit_time, body
FROM journal WHERE {_WITHIN} AND shard = :shard AND position BETWEEN :first AND :last
ORDER BY position
""")  # noqa: S608  own words
# What the database says of the bodies, by its own arithmetic.
_REGISTER: Final = text(f"""
INSERT INTO archived_segments
SELECT shard, position, event_count, first_end_time, last_end_time, commit_time, :archive,
       row_number() OVER (ORDER BY position) - 1, sha256(body)
FROM journal WHERE {_WITHIN} AND shard = :shard AND position BETWEEN :first AND :last
RETURNING position, event_count, first_end_time, last_end_time, commit_time, place, sha256
""")  # noqa: S608  own words
_SPAN: Final = text("SELECT start_time, end_time FROM journal_parts WHERE part = :part")


class PartStore:
    """Makes and drops parts of the journal; the database holds the rules, whoever asks."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def make_parts(self) -> int:
        """Make those of this month and of three months ahead that are missing; return how many."""
        with refusals("parts"), store_faults(), self._engine.begin() as connection:
            return int(connection.execute(select(func.make_journal_parts())).scalar_one())

    def ended_before(self, before_ms: int) -> Sequence[str]:
        """Return the parts that ended before an instant, oldest first."""
        statement = (
            select(journal_parts.c.part)
            .where(journal_parts.c.end_time <= to_time(before_ms))
            .order_by(journal_parts.c.end_time)
        )
        with store_faults(), self._engine.connect() as connection:
            return connection.execute(statement).scalars().all()

    def drop(self, part: str) -> str:
        """Drop a part whose files stand; return why it stays, or nothing.

        It stays while it is younger than 35 days, not counted, not archived, or has events of a
        month that is open.
        """
        with refusals("the drop"), store_faults(), self._engine.begin() as connection:
            return str(connection.execute(select(func.drop_journal_part(part))).scalar_one())


class ArchiveStore:
    """Writes parts of the journal into files, a file in a transaction; safe to end at any moment.

    A file that stands and is not registered is written again.
    """

    def __init__(self, engine: Engine, folder: ArchiveFolder) -> None:
        """Take the engine and the folder."""
        self._engine = engine
        self._folder = folder

    def archive_step(self, part: str) -> WrittenFile | None:
        """Write what comes next of a part, read it back and register it; None: all of it is.

        None as well while another server does it. Raises Unavailable, and StoreRefusal when what
        was read back is not what was recorded.
        """
        with refusals("the archive"), store_faults(), self._engine.begin() as connection:
            lock = select(func.pg_try_advisory_xact_lock(_ARCHIVE_LOCK))
            if not connection.execute(lock).scalar_one():
                return None
            span = connection.execute(_SPAN, {"part": part}).one_or_none()
            if span is None:
                return None
            within = {"start": span.start_time, "end": span.end_time}
            rows = _read_next(connection, part, within=within)
            if not rows:
                return None
            name = f"{part}/{rows[0].shard}-{rows[0].position:012}.parquet"
            written = self._folder.write(name, rows)
            self._register(connection, written, part=part, rows=rows, within=within)
        return written

    def _register(
        self,
        connection: Connection,
        written: WrittenFile,
        *,
        part: str,
        rows: Sequence[ArchivedRow],
        within: Mapping[str, datetime | None],
    ) -> None:
        """Note what a file has, once it is read back and is what the database has."""
        run = {"shard": rows[0].shard, "first": rows[0].position, "last": rows[-1].position}
        archive_id = connection.execute(
            insert(journal_archives)
            .values(
                part=part,
                file=written.name,
                file_sha256=written.sha256,
                size_bytes=written.size_bytes,
                shard=run["shard"],
                first_position=run["first"],
                last_position=run["last"],
                segment_count=len(rows),
                event_count=sum(it.event_count for it in rows),
                archive_time=func.clock_timestamp(),
            )
            .returning(journal_archives.c.archive_id)
        ).scalar_one()
        values = {**run, **within, "archive": archive_id}
        stored = sorted(tuple(it) for it in connection.execute(_REGISTER, values))
        found = [
            (
                it.position,
                it.event_count,
                it.first_end_time,
                it.last_end_time,
                it.commit_time,
                place,
                it.sha256,
            )
            for place, it in enumerate(self._folder.read(written.name))
        ]
        if stored != found:
            raise StoreRefusal(
                Reason.INTERNAL, f"{written.name} does not read back as it was recorded."
            )


def _read_next(
    connection: Connection, part: str, *, within: Mapping[str, datetime | None]
) -> list[ArchivedRow]:
    """Read the next run of a part: of one shard, without a hole, up to a file's size."""
    heads: Sequence[Any] = ()
    for rest in (_AFTER_NEWEST, _IN_NONE):
        statement = text(_NEXT.format(within=_WITHIN, rest=rest))
        values = {**within, "part": part, "limit": _FILE_SEGMENTS_MAX}
        heads = connection.execute(statement, values).all()
        if heads:
            break
    else:
        return []
    size_bytes, last = 0, heads[0].position
    for head in heads:
        size_bytes += head.size_bytes
        is_next = head.shard == heads[0].shard and head.position <= last + 1
        if not is_next or (size_bytes > _FILE_BYTES_MAX and head is not heads[0]):
            break
        last = head.position
    run = {"shard": heads[0].shard, "first": heads[0].position, "last": last, **within}
    return [_to_row(it) for it in connection.execute(_ROWS, run)]


def _to_row(row: Any) -> ArchivedRow:  # noqa: ANN401
    times: dict[str, datetime] = {
        name: getattr(row, name) for name in ("first_end_time", "last_end_time", "commit_time")
    }
    return ArchivedRow(
        shard=row.shard,
        position=row.position,
        epoch=row.epoch,
        event_count=row.event_count,
        body=bytes(row.body),
        **times,
    )
