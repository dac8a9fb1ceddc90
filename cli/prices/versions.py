"""Versions of books as commands name them, and files with all their faults."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from cli.connection import find_reason
from cli.process import CommandError, Exit
from tokenworks.billing.v1 import billing_service_pb2 as pb

_FAULTY: Final = frozenset({"BOOK_INVALID", "CONTRACT_INVALID", "FACTORY_INVALID"})
_AT: Final = re.compile(r"(?P<book>[^@]+)@(?P<time>.+)")


def read_text(path: Path) -> str:
    """Return a file's text, or end the command saying why it cannot be read."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} cannot be read: it is no UTF-8", code=Exit.USAGE) from error
    except OSError as error:
        # Its own text has a number and the path once more.
        why = (error.strerror or str(error)).lower()
        raise CommandError(f"{path} cannot be read: {why}", code=Exit.USAGE) from error


@contextmanager
def faults_of(source: object) -> Iterator[None]:
    """Name the file in each line of the faults that the server found in it."""
    try:
        yield
    except grpc.RpcError as error:
        faults = _find_faults(error)
        if faults is None:
            raise
        message = "\n".join(f"{source}:{line}" for line in faults.splitlines())
        raise CommandError(message, code=Exit.USAGE) from error


def to_timestamp(text: str) -> Timestamp:
    """Return the time that a text means, UTC unless it says otherwise; raises BadParameter."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text} is no time: write it like 2026-12-01 or 2026-12-01T09:15"
        ) from error
    message = Timestamp()
    message.FromDatetime(time if time.tzinfo else time.replace(tzinfo=UTC))
    return message


def split_version(text: str) -> tuple[str, Timestamp | None]:
    """Return the book and the time of BOOK or BOOK@TIME; None: now."""
    match = _AT.fullmatch(text)
    return (text, None) if match is None else (match["book"], to_timestamp(match["time"]))


def is_file(text: str) -> bool:
    """Tell whether a text means a file, and not a book."""
    path = Path(text)
    return path.suffix == ".toml" or path.exists()


def version_to_json(version: pb.PriceVersion) -> dict[str, object]:
    """Return a version in short as JSON has it."""
    return {
        "book": version.book,
        "from": version.start_time.ToJsonString(),
        "currency": version.currency,
        "model_count": version.model_count,
    }


def _find_faults(error: Exception) -> str | None:
    if not isinstance(error, grpc.Call) or find_reason(error) not in _FAULTY:
        return None
    return str(error.details())
