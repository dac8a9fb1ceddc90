"""Every event that the command logs while a meter runs, and all that there are."""

from collections.abc import Mapping
from typing import Final

from meter import log_events
from meter.log_events import Level, LogEvent

FIELDS: Final[Mapping[str, str]] = {
    **log_events.FIELDS,
    "driven_ms": "Where a sandbox's clock stands, in ms since 1970; None on the real one.",
    "grpc": "Where it listens for gRPC, host:port.",
    "http": "Where it listens for HTTP, host:port.",
    "pid": "The number that the system has given to a process.",
    "port": "The port of Postgres.",
    "version": "The version of Tokenworks.",
    "worker": "Which of several workers of a machine, from 1.",
}

_CATALOGUE: Final = (
    LogEvent(
        name="meter_started",
        level=Level.INFO,
        fields=("version", "grpc", "http", "driven_ms"),
        meaning="The meter answers calls.",
    ),
    LogEvent(
        name="meter_stopping",
        level=Level.INFO,
        meaning="It was asked to stop: what waits is answered, and no new calls are taken.",
    ),
    LogEvent(
        name="meter_stopped",
        level=Level.INFO,
        meaning="It has stopped in good order.",
    ),
    LogEvent(
        name="postgres_died",
        level=Level.ERROR,
        meaning="The Postgres that `up` runs is gone; it is started again.",
    ),
    LogEvent(
        name="postgres_not_started",
        level=Level.ERROR,
        fields=("fault",),
        meaning="It could not be started, and is tried again.",
    ),
    LogEvent(
        name="postgres_started",
        level=Level.INFO,
        fields=("port",),
        meaning="The Postgres that `up` runs was started again.",
    ),
    LogEvent(
        name="worker_ended",
        level=Level.ERROR,
        fields=("worker", "fault", "seconds"),
        meaning="One of several workers ended, though nobody asked it to: it is started again after"
        " so many seconds, and the others go on. What it had recorded is counted by another.",
    ),
    LogEvent(
        name="worker_started",
        level=Level.INFO,
        fields=("worker", "pid"),
        meaning="One of several workers answers calls.",
    ),
)
CATALOGUE: Final = tuple(sorted((*log_events.CATALOGUE, *_CATALOGUE), key=lambda event: event.name))
