"""ClockService: the installation's time, and in a sandbox its way forward."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from meter.domain.clock import Clock
from meter.domain.errors import Reason, Refused
from meter.runtime.driven_clock import ClockDriver
from meter.wire.status import invalid
from tokenworks.meter.v1 import clock_service_pb2 as pb
from tokenworks.meter.v1 import clock_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# The last second that a timestamp may name: the year 9999 ends.
_SECONDS_MAX: Final = 253_402_300_799


class ClockServicer(clock_service_pb2_grpc.ClockServiceServicer):
    """Answers ClockService; drives block and so run in a thread, one after the other."""

    def __init__(self, clock: Clock, *, driver: ClockDriver | None) -> None:
        """Take the clock and who drives it; None for a real one, which nobody does."""
        self._clock = clock
        self._driver = driver
        # Of its own, so that drives that wait for each other take no thread from other calls.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clock")

    async def GetClock(self, _: pb.GetClockRequest, _context: _Context) -> pb.GetClockResponse:
        """Tell the time."""
        response = pb.GetClockResponse(driven=self._driver is not None)
        response.now.FromMilliseconds(self._clock.now_ms())
        return response

    async def AdvanceClock(
        self, request: pb.AdvanceClockRequest, _context: _Context
    ) -> pb.AdvanceClockResponse:
        """Move a driven clock."""
        if self._driver is None:
            raise Refused(
                Reason.CLOCK_REFUSED, "This installation lives on the real clock: nobody moves it."
            )
        to_ms = _instant(request.to)
        given_up = Event()
        driving = partial(self._driver.drive, to_ms, is_given_up=given_up.is_set)
        try:
            drive = await asyncio.get_running_loop().run_in_executor(self._thread, driving)
        finally:
            # Whoever no longer waits for the end does not want the rest of the way.
            given_up.set()
        response = pb.AdvanceClockResponse(edge_count=drive.edge_count, cut_count=drive.cut_count)
        response.start_time.FromMilliseconds(drive.start_ms)
        response.now.FromMilliseconds(drive.end_ms)
        return response


def _instant(time: Timestamp) -> int:
    if not 0 < time.seconds <= _SECONDS_MAX:
        raise invalid("to", "an instant in the years 1970 to 9999")
    return time.seconds * 1000 + time.nanos // 1_000_000
