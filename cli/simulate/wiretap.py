"""Sits between the SDK and the wire: counts batches, and sends some of them twice."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

import grpc

from tokenworks.meter.v1.meter_service_pb2 import StreamUsageRequest
from tokenworks.meter.v1.usage_pb2 import UsageBatch

if TYPE_CHECKING:
    # Only grpc's type stubs know this name.
    from grpc import _CallIterator

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_PERCENT_MAX: Final = 100


class Wiretap(grpc.StreamStreamClientInterceptor):
    """An interceptor of StreamUsage; its counts are read while it works.

    Of every 100 batches `resend_percent` (0–100) go out a second time, at once and with the same
    bytes: every (100 / percent)-th, the first one sooner by `phase` (0–1) of that distance, so that
    the servers of a fleet take turns. What the SDK itself repeats after a broken stream is counted
    apart, and left alone.
    """

    def __init__(self, *, resend_percent: float, phase: float) -> None:
        assert 0 <= resend_percent <= _PERCENT_MAX
        self.stream_count = 0
        self.batch_count = 0
        self.resent_count = 0
        self.repeated_count = 0
        self._share = resend_percent / _PERCENT_MAX
        self._due = phase if resend_percent else 0.0
        self._last_sequence = 0

    def intercept_stream_stream(
        self,
        continuation: (
            "Callable[[grpc.ClientCallDetails, Iterator[_Request]], _CallIterator[_Response]]"
        ),
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[_Request],
    ) -> "_CallIterator[_Response]":
        """Open the stream with the tapped requests."""
        self.stream_count += 1
        return continuation(client_call_details, self._tapped(request_iterator))

    def _tapped(self, requests: Iterator[_Request]) -> Iterator[_Request]:
        for request in requests:
            # The SDK hands over bytes, so that a repetition is identical.
            assert isinstance(request, bytes)
            message = StreamUsageRequest.FromString(request)
            is_due = message.WhichOneof("message") == "batch" and self._is_due(message.batch)
            yield request
            if is_due:
                self.resent_count += 1
                yield request

    def _is_due(self, batch: UsageBatch) -> bool:
        """Count a batch that is about to go out, and tell whether it will a second time."""
        if batch.sequence <= self._last_sequence:
            self.repeated_count += 1
            return False
        self._last_sequence = batch.sequence
        self.batch_count += 1
        self._due += self._share
        if self._due < 1:
            return False
        self._due -= 1
        return True
