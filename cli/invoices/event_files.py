"""The events behind a line as rows: on the screen, and in files of CSV or Parquet."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from billing.documents.table import harmless
from cli.process import CommandError, Exit
from meter.domain.times import to_iso
from tokenworks.billing.v1 import billing_service_pb2 as pb

Row = dict[str, str | int | bool]
COLUMNS: Final = (
    *("shard", "position", "row", "account", "end_time", "tokens", "event_id", "request_id"),
    *("model", "served_model", "key_id", "correction"),
)
_TEXTS: Final = ("account", "request_id", "model", "served_model", "key_id")
# Takes some rows, in order.
Write = Callable[[Iterable[Row]], None]


def to_row(event: pb.LineEvent) -> Row:
    """Return an event as names and values; its id in hexadecimal, its time in ISO 8601."""
    return {
        "shard": event.shard,
        "position": event.position,
        "row": event.row,
        "account": event.account,
        "end_time": to_iso(event.end_time.ToMilliseconds()),
        "tokens": event.token_count,
        "event_id": event.event_id.hex(),
        "request_id": event.request_id,
        "model": event.model,
        "served_model": event.served_model,
        "key_id": event.key_id,
        "correction": event.correction,
    }


def check_name(path: Path) -> None:
    """Refuse a file that is neither CSV nor Parquet, and Parquet without what writes it."""
    if path.suffix not in _WRITERS:
        raise CommandError(f"{path}: name it .csv or .parquet", code=Exit.USAGE)
    if path.suffix == ".parquet":
        _import_pyarrow()


@contextmanager
def writing(path: Path) -> Iterator[Write]:
    """Lend what writes rows into a file, in the form that its name ends with.

    A file that is not whole does not stay: it has its name when all of it is written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with _WRITERS[path.suffix](part) as write:
            yield write
        part.replace(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def harmless_row(row: Mapping[str, str | int | bool]) -> Row:
    """Return a row whose texts no spreadsheet runs."""
    return {name: harmless(str(it)) if name in _TEXTS else it for name, it in row.items()}


@contextmanager
def _writing_csv(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\r\n")
        writer.writeheader()
        yield lambda rows: writer.writerows(map(harmless_row, rows))


@contextmanager
def _writing_parquet(path: Path) -> Iterator[Write]:
    arrow, parquet = _import_pyarrow()
    numbers = {"shard": arrow.int32(), "position": arrow.int64(), "row": arrow.int32()}
    types = {**numbers, "tokens": arrow.int64(), "correction": arrow.bool_()}
    schema = arrow.schema([(name, types.get(name, arrow.string())) for name in COLUMNS])
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(arrow.Table.from_pylist(list(rows), schema=schema))


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and slow to load
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise CommandError(
            "pyarrow is not installed; it comes with `pip install 'tokenworks[parquet]'`. CSV needs"
            " nothing more."
        ) from error
    return pa, parquet


_WRITERS: Final = {".csv": _writing_csv, ".parquet": _writing_parquet}
