"""When to try again: what a failed call means, and for how long to wait."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from tokenworks.client import limits
from tokenworks.client.clock import uniform


class Fate(Enum):
    """What a failure asks of the client; in each case it keeps what it holds."""

    RETRY = "retry"
    RETRY_SLOWLY = "retry_slowly"
    """Only a person can mend it, say by a new API key."""
    STOP = "stop"
    """A newer process owns the producer's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a call ended."""

    fate: Fate
    code: str
    """Name of the gRPC status."""
    reason: str
    """Name of the ErrorReason without its prefix; empty where none came."""
    detail: str
    retry_seconds: float | None = None
    """How long the server asked to wait."""


ENDED: Final = Failure(fate=Fate.RETRY, code="OK", reason="", detail="the meter ended the stream")
BROKEN: Final = Failure(fate=Fate.RETRY, code="UNKNOWN", reason="", detail="the call broke")
SILENT: Final = Failure(fate=Fate.RETRY, code="UNKNOWN", reason="", detail="nothing was heard")
DISAGREED: Final = Failure(
    fate=Fate.RETRY, code="UNKNOWN", reason="", detail="the meter named numbers that do not fit"
)
OVERTAKEN: Final = Failure(
    fate=Fate.STOP, code="UNKNOWN", reason="", detail="somebody else has used our numbers"
)

REASON_KEY: Final = "tokenworks-error-reason"
DETAILS_KEY: Final = "grpc-status-details-bin"

_NOT_BY_ITSELF: Final = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def failure_from_error(error: object) -> Failure:
    """Read the status, the reason and the wish for a pause from what a call raised."""
    if not isinstance(error, grpc.Call):
        return BROKEN
    code = error.code()
    metadata = dict(error.trailing_metadata() or ())
    reason = metadata.get(REASON_KEY, "")
    details = metadata.get(DETAILS_KEY, b"")
    return Failure(
        fate=_fate(code, reason=str(reason)),
        code=code.name,
        reason=str(reason),
        detail=error.details() or "",
        retry_seconds=asked_seconds(details) if isinstance(details, bytes) else None,
    )


class Backoff:
    """Waits that double from one attempt to the next, each drawn from its upper half."""

    def __init__(
        self,
        *,
        seconds_min: float = limits.RETRY_SECONDS_MIN,
        seconds_max: float = limits.RETRY_SECONDS_MAX,
        refused_seconds: float = limits.RETRY_REFUSED_SECONDS,
    ) -> None:
        self._seconds_min = seconds_min
        self._seconds_max = seconds_max
        self._refused_seconds = refused_seconds
        self._seconds = seconds_min

    def succeeded(self) -> None:
        """Begin again from the shortest wait."""
        self._seconds = self._seconds_min

    def seconds_after(self, failure: Failure) -> float:
        """Return how long to wait now, in seconds."""
        if failure.fate is Fate.RETRY_SLOWLY:
            seconds = self._refused_seconds
        else:
            seconds = self._seconds
            self._seconds = min(2 * self._seconds, self._seconds_max)
        seconds = uniform(seconds / 2, seconds)
        if failure.retry_seconds is None:
            return seconds
        # Later than asked, never earlier, and not all clients at one moment.
        return min(failure.retry_seconds, limits.RETRY_ASKED_SECONDS_MAX) + seconds / 2


def asked_seconds(status: bytes) -> float | None:
    """Return the delay of a RetryInfo in a serialised google.rpc.Status; None where there is none.

    Read by hand: these two messages would be the only ones from a further package.
    """
    try:
        for number, value in _length_delimited(status):
            if number == _STATUS_DETAILS:
                detail = Any.FromString(value)
                if detail.type_url.endswith("/google.rpc.RetryInfo"):
                    return _retry_delay(detail.value)
    except (DecodeError, IndexError):
        return None
    return None


_STATUS_DETAILS: Final = 3
_RETRY_INFO_DELAY: Final = 1
_WIRE_VARINT: Final = 0
_WIRE_LENGTH_DELIMITED: Final = 2


def _fate(code: grpc.StatusCode, *, reason: str) -> Fate:
    if reason == "PRODUCER_TAKEN_OVER":
        return Fate.STOP
    return Fate.RETRY_SLOWLY if code in _NOT_BY_ITSELF else Fate.RETRY


def _retry_delay(retry_info: bytes) -> float | None:
    for number, value in _length_delimited(retry_info):
        if number == _RETRY_INFO_DELAY:
            delay = Duration.FromString(value)
            return max(delay.seconds + delay.nanos / 1e9, 0.0)
    return None


def _length_delimited(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each length-delimited field; IndexError where it is cut off."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        value, position = _varint(message, position)
        if wire_type == _WIRE_LENGTH_DELIMITED:
            yield number, message[position : position + value]
            position += value
        elif wire_type != _WIRE_VARINT:
            return


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says "more follows"
            return value, position
        shift += 7
