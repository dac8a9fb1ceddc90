"""What a failed call means, and how long to wait after it."""

from random import uniform

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from tokenworks.client import limits
from tokenworks.client.retry import (
    BROKEN,
    Backoff,
    Failure,
    Fate,
)
from tokenworks.client.status import asked_seconds, failure_from_error


class _Error(grpc.RpcError, grpc.Call):
    """A failed call, as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, metadata: dict[str, str | bytes]) -> None:
        super().__init__()
        self._code = code
        self._metadata = metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "a detail"

    def trailing_metadata(  # type: ignore[override] # plain pairs do
        self,
    ) -> tuple[tuple[str, str | bytes], ...]:
        return tuple(self._metadata.items())

    def initial_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: object) -> bool:
        return callback is None


@pytest.mark.parametrize(
    ("code", "reason", "fate"),
    [
        ("UNAVAILABLE", "STORE_UNAVAILABLE", Fate.RETRY),
        ("UNAVAILABLE", "", Fate.RETRY),
        ("RESOURCE_EXHAUSTED", "OVERLOADED", Fate.RETRY),
        ("INTERNAL", "INTERNAL", Fate.RETRY),
        ("CANCELLED", "", Fate.RETRY),
        ("UNAUTHENTICATED", "API_KEY_REVOKED", Fate.RETRY_SLOWLY),
        ("PERMISSION_DENIED", "SCOPE_MISSING", Fate.RETRY_SLOWLY),
        ("INVALID_ARGUMENT", "ARGUMENT_INVALID", Fate.RETRY_SLOWLY),
        ("UNIMPLEMENTED", "", Fate.RETRY_SLOWLY),
        ("FAILED_PRECONDITION", "STREAM_NOT_OPENED", Fate.RETRY_SLOWLY),
        ("FAILED_PRECONDITION", "PRODUCER_TAKEN_OVER", Fate.STOP),
    ],
)
def test_failure_from_error__gives_each_its_fate(code: str, reason: str, fate: Fate) -> None:
    """What heals by itself is retried, what a person must mend slowly, a newer process never."""
    error = _Error(grpc.StatusCode[code], {"tokenworks-error-reason": reason})
    failure = failure_from_error(error)
    assert (failure.fate, failure.code, failure.reason) == (fate, code, reason)


def test_failure_from_error__without_a_status_is_retried() -> None:
    """An error that is no answer of a server is one of the way there."""
    assert failure_from_error(grpc.RpcError()) is BROKEN


def test_failure_from_error__reads_the_pause_asked_for() -> None:
    """RetryInfo is found among the details of a status."""
    details = _status(ErrorInfo(reason="OVERLOADED"), _retry_info(2.5))
    error = _Error(grpc.StatusCode.RESOURCE_EXHAUSTED, {"grpc-status-details-bin": details})
    assert failure_from_error(error).retry_seconds == 2.5


def test_asked_seconds__none_without_retry_info() -> None:
    """A status without RetryInfo asks for nothing."""
    assert asked_seconds(_status(ErrorInfo(reason="INTERNAL"))) is None


def test_asked_seconds__garbage_asks_for_nothing() -> None:
    """Bytes that are cut off or no message do no harm."""
    status = _status(_retry_info(2.5))
    assert asked_seconds(status[:-1]) is None
    for end in range(len(status)):
        assert asked_seconds(status[:end]) in (None, 2.0, 2.5)
    assert asked_seconds(b"\xff" * 40) is None


def test_seconds_after__doubles_up_to_its_bound() -> None:
    """Waits double, stay within half and all of their bound, and begin anew after success."""
    backoff = Backoff(seconds_min=1, seconds_max=4, draw=uniform)
    for bound in (1, 2, 4, 4):
        assert bound / 2 <= backoff.seconds_after(BROKEN) <= bound
    backoff.succeeded()
    assert backoff.seconds_after(BROKEN) <= 1


def test_seconds_after__refused_waits_long() -> None:
    """What only a person can mend is not tried again at once."""
    failure = Failure(fate=Fate.RETRY_SLOWLY, code="UNAUTHENTICATED", reason="", detail="")
    assert Backoff(draw=uniform).seconds_after(failure) >= limits.RETRY_REFUSED_SECONDS / 2


@pytest.mark.parametrize(("asked", "at_least", "at_most"), [(3.0, 3.0, 4.0), (1e9, 60.0, 61.0)])
def test_seconds_after__heeds_what_was_asked(asked: float, at_least: float, at_most: float) -> None:
    """A pause that the server asked for is never cut short, but bounded."""
    failure = Failure(fate=Fate.RETRY, code="", reason="", detail="", retry_seconds=asked)
    assert at_least <= Backoff(draw=uniform).seconds_after(failure) <= at_most


def _retry_info(seconds: float) -> RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    return RetryInfo(retry_delay=delay)


def _status(*details: ErrorInfo | RetryInfo) -> bytes:
    status = Status(code=8, message="full")
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status.SerializeToString()
