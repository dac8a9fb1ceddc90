"""The log of a process: one line an event on stderr, its name first, then its fields."""

import logging
import sys
from datetime import UTC, datetime

# What every record has; all else was given by the caller as `extra` and is a field of the event.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(level: str) -> None:
    """Send all records from `level` ("debug", "info", "warning", "error") up to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class FieldFormatter(logging.Formatter):
    """`2026-11-23T14:12:48.250Z info meter.journal group_committed events=400 shard=0`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line; a traceback follows on lines of its own."""
        moment = datetime.fromtimestamp(record.created, tz=UTC)
        words = [
            moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            record.levelname.lower(),
            record.name,
            record.getMessage(),
            *(
                f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}"
                for name, value in sorted(vars(record).items())
                if name not in _OWN
            ),
        ]
        line = " ".join(words)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line
