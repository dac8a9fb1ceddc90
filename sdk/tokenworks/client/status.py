"""What a failed call means: its gRPC status, read into a `Failure`."""

from collections.abc import Iterator
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from tokenworks.client.retry import BROKEN, Failure, Fate

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
