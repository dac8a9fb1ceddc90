"""Instants between the domain (ms since 1970 in UTC) and Postgres (timestamptz)."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_time(time_ms: int) -> datetime:
    """Return the aware time of an instant."""
    return _EPOCH + timedelta(milliseconds=time_ms)


def to_iso(time_ms: int) -> str:
    """Return an instant as ISO 8601 in UTC: whole seconds, or milliseconds where there are any."""
    form = "milliseconds" if time_ms % 1000 else "seconds"
    return to_time(time_ms).isoformat(timespec=form).replace("+00:00", "Z")


def to_ms(time: datetime) -> int:
    """Return the instant of an aware time, to the nearest millisecond."""
    return round((time - _EPOCH) / timedelta(milliseconds=1))
