"""EngineService: tells what engines counted beside what was metered."""

import asyncio
from typing import Any, Final, TypeAlias

import grpc

from meter.domain import limits
from meter.engine_drift import EngineDrift, EngineDrifts, TokenKind
from meter.wire.efficiency_messages import to_edge
from meter.wire.status import invalid
from tokenworks.meter.v1 import engine_service_pb2 as pb
from tokenworks.meter.v1 import engine_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_KINDS: Final = {
    TokenKind.PROMPT: pb.ENGINE_TOKEN_KIND_PROMPT,
    TokenKind.UNCACHED_PROMPT: pb.ENGINE_TOKEN_KIND_UNCACHED_PROMPT,
    TokenKind.OUTPUT: pb.ENGINE_TOKEN_KIND_OUTPUT,
}


class EngineServicer(engine_service_pb2_grpc.EngineServiceServicer):
    """Thin: it translates, and hands on to a thread."""

    def __init__(self, drifts: EngineDrifts) -> None:
        """Take who compares."""
        self._drifts = drifts

    async def QueryEngineDrift(
        self, request: pb.QueryEngineDriftRequest, _context: _Context
    ) -> pb.QueryEngineDriftResponse:
        """Compare a time."""
        start_ms = to_edge(request.start_time, "start_time")
        end_ms = to_edge(request.end_time, "end_time")
        if not 0 < end_ms - start_ms <= limits.ENGINE_DRIFT_MS_MAX:
            raise invalid("end_time", "after start_time, at most 400 days")
        drifts = await asyncio.to_thread(self._drifts.compare, start_ms=start_ms, end_ms=end_ms)
        return pb.QueryEngineDriftResponse(
            drifts=[to_message(it) for it in drifts[: limits.ENGINE_DRIFT_ROWS_MAX]]
        )


def to_message(drift: EngineDrift) -> pb.EngineDrift:
    """Return a drift as a message."""
    message = pb.EngineDrift(
        pool=drift.pool,
        model=drift.model,
        kind=_KINDS[drift.kind],
        compared_ms=drift.compared_ms,
        engine_tokens=drift.engine_tokens,
        metered_tokens=drift.metered_tokens,
        ppm=drift.ppm,
        gap_tokens=drift.gap_tokens,
        reset_count=drift.reset_count,
    )
    message.start_time.FromMilliseconds(drift.start_ms)
    message.end_time.FromMilliseconds(drift.end_ms)
    return message
