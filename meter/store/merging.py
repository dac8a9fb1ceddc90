"""Rows of sums on their way into a table: sent up, then merged with those that are there.

A row that is there grows, one that is not is put down. UPDATE and INSERT are apart: an upsert looks
each row up in the index and locks it, which is logged, before it writes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from sqlalchemy import Connection, Table, text

from meter.domain.errors import Reason, StoreRefusal
from meter.domain.times import to_time
from meter.runtime.engine import driver_connection

_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_END: Final = b"\xff\xff"
# Postgres counts microseconds from the year 2000.
_POSTGRES_EPOCH: Final = np.datetime64("2000-01-01", "us")
# What a column is in Postgres, by the kind of its array.
_TYPES: Final = {"S": 'text COLLATE "C"', "M": "timestamptz", "i": "bigint"}
# One at a time merges, until its transaction ends: so nobody waits in a circle, in whatever order
# rows are written, and what is not there when a merge begins is put down by nobody else. Given in
# the order of asking; a lock of two numbers is nobody's who locks by one.
_ALONE: Final = text("SELECT pg_advisory_xact_lock(7412, 1)")
_ROWS_AT_ONCE: Final = 2_048
# UTF-8 (S), times in UTC (M), or int64.
_Column: TypeAlias = np.ndarray[tuple[int], np.dtype[Any]]
# All of one length.
Rows: TypeAlias = Mapping[str, _Column]


def send_rows(table: Table, connection: Connection, rows: Rows) -> None:
    """Send rows up as `incoming_` and the table's name; it is gone when the transaction ends."""
    columns = ", ".join(f"{name} {_TYPES[it.dtype.kind]}" for name, it in rows.items())
    connection.execute(text(f"CREATE TEMPORARY TABLE incoming_{table} ({columns}) ON COMMIT DROP"))
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(f"COPY incoming_{table} FROM STDIN (FORMAT binary)") as copy,
    ):
        for part in _copy_parts(list(rows.values())):
            copy.write(part)


def wait_to_merge(connection: Connection) -> None:
    """Wait until nobody else merges; until this transaction ends, nobody else does."""
    connection.execute(_ALONE)


def merge_rows(table: Table, connection: Connection, rows: Rows) -> None:
    """Add the rows that `send_rows` has sent to a table; after `wait_to_merge`.

    They have all of its key, `interval_start` among it, and each key once. All its other columns
    are sums: those of the rows grow, the others are 0 where a row is put down.
    Raises StoreRefusal when not all have found their row: somebody else has written meanwhile.
    """
    keys = [column.name for column in table.columns if column.primary_key]
    sums = [column.name for column in table.columns if not column.primary_key]
    starts = np.unique(rows["interval_start"]).astype("datetime64[ms]").astype(np.int64)
    values = {"starts": [to_time(it) for it in starts.tolist()]}
    same = " AND ".join(f"u.{key} = i.{key}" for key in keys)
    # By name: without these a plan may read all of a long history.
    same += " AND u.interval_start = ANY(CAST(:starts AS timestamptz[]))"
    grown = ", ".join(f"{name} = u.{name} + i.{name}" for name in sums if name in rows)
    count = len(rows["interval_start"])
    # The planner takes each table that was just made for ten pages, and would read an interval's
    # rows to find one.
    incoming = f"(SELECT * FROM incoming_{table} LIMIT {count}) i"  # noqa: S608  its own text
    merged_count = connection.execute(
        text(f"UPDATE {table} u SET {grown} FROM {incoming} WHERE {same}"),  # noqa: S608
        values,
    ).rowcount
    if merged_count < count:
        key, columns = ", ".join(keys), ", ".join(sums)
        new = ", ".join(f"i.{name}" if name in rows else "0" for name in sums)
        merged_count += connection.execute(
            text(
                f"INSERT INTO {table} ({key}, {columns}) SELECT {key}, {new}"  # noqa: S608
                f" FROM {incoming}"
                f" WHERE NOT EXISTS (SELECT FROM {table} u WHERE {same}) ORDER BY {key}"
            ),
            values,
        ).rowcount
    if merged_count != count:
        raise StoreRefusal(
            Reason.INTERNAL,
            f"Of {count} rows {merged_count} were merged into {table}:"
            " somebody else has written there meanwhile.",
        )


def _copy_parts(columns: Sequence[_Column]) -> Iterator[bytes]:
    """Yield columns as a binary COPY, some rows at a time: their bytes stay in the cache."""
    yield _COPY_HEAD
    for begin in range(0, len(columns[0]), _ROWS_AT_ONCE):
        yield _copy_rows([values[begin : begin + _ROWS_AT_ONCE] for values in columns])
    yield _COPY_END


def _copy_rows(columns: Sequence[_Column]) -> bytes:
    """Return rows of a binary COPY: texts are padded at first, then the padding is cut out."""
    fields, starts, end = [("fields", ">i2")], [], 2
    for place, values in enumerate(columns):
        value = values.dtype.str if values.dtype.kind == "S" else ">i8"
        fields += [(f"size{place}", ">i4"), (f"value{place}", value)]
        starts.append(end + 4)
        end += 4 + values.dtype.itemsize
    rows = np.zeros(len(columns[0]), fields)
    rows["fields"] = len(columns)
    kept = np.ones((len(rows), rows.dtype.itemsize), bool)
    for place, values in enumerate(columns):
        size: Any = 8
        if values.dtype.kind == "S":
            size = np.char.str_len(values)
            begin, width = starts[place], values.dtype.itemsize
            kept[:, begin : begin + width] = np.arange(width) < size[:, np.newaxis]
        is_time = values.dtype.kind == "M"
        rows[f"size{place}"] = size
        rows[f"value{place}"] = (values - _POSTGRES_EPOCH).view(np.int64) if is_time else values
    return rows.view(np.uint8).reshape(len(rows), -1)[kept].tobytes()
