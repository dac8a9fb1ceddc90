"""The log of a process: one line an event on stderr, its name first, then its fields."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from meter.call_context import find_call

# What every record has; all else was given by the caller as `extra` and is a field of the event.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_PACKAGES: Final = ("billing", "cli", "meter", "migrations", "tokenworks")


def configure_logging(level: str, *, form: str) -> None:
    """Send all our records from `level` ("debug", "info", "warning", "error") up to stderr.

    `form` is "text" or "json", a JSON object a line. What libraries say counts from a warning on.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else FieldFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    for name in _PACKAGES:
        logging.getLogger(name).setLevel(level.upper())


class FieldFormatter(logging.Formatter):
    """`2026-11-23T14:12:48.250Z info meter.journal group_committed events=400 shard=0`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line; a traceback follows on lines of its own."""
        words = [
            _time(record),
            record.levelname.lower(),
            record.name,
            record.getMessage(),
            *(
                f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}"
                for name, value in sorted(_fields(record).items())
            ),
        ]
        line = " ".join(words)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": "info", "logger": "meter.journal", "event": …, "events": 400}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line, its traceback in it; values of other kinds as texts."""
        told: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the event's own fields, and those of the call that it belongs to."""
    call = find_call()
    given = {name: value for name, value in vars(record).items() if name not in _OWN}
    own = {name: value for name, value in given.items() if value not in (None, "")}
    return own if call is None else {**call.fields(), **own}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
