"""MarkSoftware and ListSoftwareMarks: which software serves a pool, from when on."""

import asyncio
from typing import Final

from meter.domain import limits
from meter.domain.clock import Clock
from meter.energy.marks import SoftwareMark, SoftwareMarks
from meter.journal.check import is_text
from meter.wire.status import invalid
from tokenworks.meter.v1 import energy_service_pb2 as pb

_MS_PER_SECOND: Final = 1_000
_NANOS_PER_MS: Final = 1_000_000


class SoftwareMarkDesk:
    """Checks, keeps and lists marks for whoever was let in."""

    def __init__(self, marks: SoftwareMarks, *, clock: Clock) -> None:
        """Take who keeps them, and the clock that a mark without a time is set by."""
        self._marks = marks
        self._clock = clock

    async def mark(self, request: pb.MarkSoftwareRequest, *, key_id: str) -> bool:
        """Keep a mark; False when it changes nothing. Raises InvalidArgument, Refused."""
        mark = self._to_mark(request)
        return await asyncio.to_thread(
            self._marks.mark, mark, key_id=key_id, now_ms=self._clock.now_ms()
        )

    async def list_marks(
        self, request: pb.ListSoftwareMarksRequest
    ) -> pb.ListSoftwareMarksResponse:
        """Return marks by pool and time. Raises InvalidArgument."""
        if not is_text(request.pool, limits.POOL_CHARS_MAX):
            raise invalid("pool", f"at most {limits.POOL_CHARS_MAX} printable characters")
        found = await asyncio.to_thread(self._marks.list_marks, pool=request.pool)
        response = pb.ListSoftwareMarksResponse()
        for mark in found:
            message = response.marks.add(pool=mark.pool, software=mark.software)
            message.time.FromMilliseconds(mark.start_ms)
        return response

    def _to_mark(self, request: pb.MarkSoftwareRequest) -> SoftwareMark:
        for field, text, length_max in (
            ("pool", request.pool, limits.POOL_CHARS_MAX),
            ("software", request.software, limits.SOFTWARE_CHARS_MAX),
        ):
            if not text or not is_text(text, length_max):
                raise invalid(field, f"1–{length_max} printable characters")
        now_ms = self._clock.now_ms()
        time_ms = now_ms
        if request.HasField("time"):
            time_ms = request.time.seconds * _MS_PER_SECOND + request.time.nanos // _NANOS_PER_MS
        if not now_ms - limits.LATE_MS_MAX <= time_ms <= now_ms + limits.FUTURE_MS_MAX:
            raise invalid("time", "at most 35 days ago and 5 minutes ahead")
        return SoftwareMark(pool=request.pool, software=request.software, start_ms=time_ms)
