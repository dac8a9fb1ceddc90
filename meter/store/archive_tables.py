"""The tables of the journal's parts and of its files, beside those of `meter.store.tables`."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

metadata = MetaData()
_Time = DateTime(timezone=True)

# The journal's parts by the time of commit, `[start_time, end_time)`; the first has no start.
journal_parts = Table(
    "journal_parts",
    metadata,
    Column("part", Text, primary_key=True),
    Column("start_time", _Time),
    Column("end_time", _Time, nullable=False),
)
# A file with a run of segments of one part and shard; the part was dropped at `drop_time`.
journal_archives = Table(
    "journal_archives",
    metadata,
    Column("archive_id", Integer, Identity(always=True), primary_key=True),
    Column("part", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("file_sha256", LargeBinary, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("shard", SmallInteger, nullable=False),
    Column("first_position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("segment_count", BigInteger, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("archive_time", _Time, nullable=False),
    Column("drop_time", _Time),
)
# What is asked of a segment in a file without its body; `place` counts from 0 in the file.
archived_segments = Table(
    "archived_segments",
    metadata,
    Column("shard", SmallInteger, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("event_count", Integer, nullable=False),
    Column("first_end_time", _Time, nullable=False),
    Column("last_end_time", _Time, nullable=False),
    Column("commit_time", _Time, nullable=False),
    Column("archive_id", Integer, nullable=False),
    Column("place", Integer, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
)
