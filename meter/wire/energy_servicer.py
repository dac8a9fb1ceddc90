"""EnergyService: takes readings of energy counters, and tells what the tokens took."""

import asyncio
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from meter.domain import limits
from meter.domain.clock import Clock
from meter.domain.credential import Permission
from meter.domain.interval import is_on_edge
from meter.energy.efficiency import (
    Efficiency,
    EfficiencyGroup,
    EfficiencyQuery,
    EfficiencyReader,
    EfficiencyRow,
    PoolEnergy,
)
from meter.energy.recorder import EnergyRecorder
from meter.journal.check import is_text
from meter.wire.auth import RegistryDoor
from meter.wire.energy_readings import to_reading, to_sources
from meter.wire.software_marks import SoftwareMarkDesk
from meter.wire.status import invalid
from tokenworks.meter.v1 import energy_service_pb2 as pb
from tokenworks.meter.v1 import energy_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# The last second that a timestamp may name: the year 9999 ends.
_SECONDS_MAX: Final = 253_402_300_799
_TIMES: Final = (EfficiencyGroup.INTERVAL, EfficiencyGroup.HOUR, EfficiencyGroup.DAY)


class EnergyServicer(energy_service_pb2_grpc.EnergyServiceServicer):
    """Thin: each method lets in, translates, and hands on to a thread."""

    def __init__(
        self,
        recorder: EnergyRecorder,
        *,
        reader: EfficiencyReader,
        marks: SoftwareMarkDesk,
        door: RegistryDoor,
        clock: Clock,
    ) -> None:
        """Take who records, who answers, and who keeps marks."""
        self._recorder = recorder
        self._reader = reader
        self._marks = marks
        self._door = door
        self._clock = clock

    async def RecordEnergy(
        self, request: pb.RecordEnergyRequest, context: _Context
    ) -> pb.RecordEnergyResponse:
        """Record readings. Scope: report on the whole installation."""
        self._door.require(self._door.caller(context), Permission.REPORT, None)
        if not 1 <= len(request.readings) <= limits.RECORD_READINGS_MAX:
            raise invalid("readings", f"1–{limits.RECORD_READINGS_MAX} readings")
        now_ms = self._clock.now_ms()
        readings = [to_reading(reading, now_ms=now_ms) for reading in request.readings]
        count = await asyncio.to_thread(self._recorder.record, readings)
        return pb.RecordEnergyResponse(recorded_count=count, ignored_count=len(readings) - count)

    async def QueryEfficiency(
        self, request: pb.QueryEfficiencyRequest, context: _Context
    ) -> pb.QueryEfficiencyResponse:
        """Sum tokens and energy. Scope: read on the whole installation."""
        self._door.require(self._door.caller(context), Permission.READ, None)
        query = _to_query(request)
        # Asked first: what it names as attributed is in the sums.
        until_ms = self._recorder.attributed_until_ms
        answer = await asyncio.to_thread(self._reader.query, query)
        response = _to_response(answer)
        if until_ms is not None:
            response.attributed_until.FromMilliseconds(until_ms)
        return response

    async def ListEnergySources(
        self, _: pb.ListEnergySourcesRequest, context: _Context
    ) -> pb.ListEnergySourcesResponse:
        """List sources and pools. Scope: read on the whole installation."""
        self._door.require(self._door.caller(context), Permission.READ, None)
        pools = await asyncio.to_thread(self._recorder.power)
        silent = await asyncio.to_thread(self._recorder.silent)
        return to_sources(self._recorder.source_states(), pools=pools, silent=silent)

    async def MarkSoftware(
        self, request: pb.MarkSoftwareRequest, context: _Context
    ) -> pb.MarkSoftwareResponse:
        """Say which software serves a pool. Scope: report on the whole installation."""
        caller = self._door.caller(context)
        self._door.require(caller, Permission.REPORT, None)
        changed = await self._marks.mark(request, key_id=caller.key_id)
        return pb.MarkSoftwareResponse(changed=changed)

    async def ListSoftwareMarks(
        self, request: pb.ListSoftwareMarksRequest, context: _Context
    ) -> pb.ListSoftwareMarksResponse:
        """List marks. Scope: read on the whole installation."""
        self._door.require(self._door.caller(context), Permission.READ, None)
        return await self._marks.list_marks(request)


def _to_query(request: pb.QueryEfficiencyRequest) -> EfficiencyQuery:
    groups = [int(group) for group in request.group_by]
    known = frozenset(EfficiencyGroup)
    if any(group not in known for group in groups) or len(set(groups)) < len(groups):
        raise invalid("group_by", "known fields, each once")
    if len(set(groups).intersection(_TIMES)) > 1:
        raise invalid("group_by", "one of interval, hour and day")
    if not is_text(request.pool, limits.POOL_CHARS_MAX):
        raise invalid("pool", f"at most {limits.POOL_CHARS_MAX} printable characters")
    start_ms = _edge(request.start_time, "start_time")
    end_ms = _edge(request.end_time, "end_time")
    if end_ms <= start_ms:
        raise invalid("end_time", "after start_time")
    return EfficiencyQuery(
        start_ms=start_ms,
        end_ms=end_ms,
        group_by=tuple(EfficiencyGroup(group) for group in groups),
        pool=request.pool,
    )


def _edge(time: Timestamp, field: str) -> int:
    if not 0 <= time.seconds <= _SECONDS_MAX or time.nanos or not is_on_edge(time.seconds * 1000):
        raise invalid(field, "a 15-minute edge in the years 1970 to 9999")
    return time.seconds * 1000


def _to_response(answer: Efficiency) -> pb.QueryEfficiencyResponse:
    return pb.QueryEfficiencyResponse(
        rows=[_to_row(row) for row in answer.rows], pools=[_to_pool(it) for it in answer.pools]
    )


def _to_row(row: EfficiencyRow) -> pb.EfficiencyRow:
    keys = row.keys
    message = pb.EfficiencyRow(
        pool=str(keys.get(EfficiencyGroup.POOL, "")),
        tier=str(keys.get(EfficiencyGroup.TIER, "")),
        model=str(keys.get(EfficiencyGroup.MODEL, "")),
        output_tokens=row.output_tokens,
        total_tokens=row.total_tokens,
        request_count=row.request_count,
        energy_mj=row.energy_mj,
        attributed_output_tokens=row.attributed_output_tokens,
    )
    for key in _TIMES:
        if key in keys:
            message.start_time.FromMilliseconds(int(keys[key]))
    return message


def _to_pool(pool: PoolEnergy) -> pb.PoolEnergy:
    message = pb.PoolEnergy(
        pool=pool.pool,
        measured_mj=pool.measured_mj,
        attributed_mj=pool.attributed_mj,
        gap_ms=pool.gap_ms,
        reset_count=pool.reset_count,
    )
    for reason, energy_mj in pool.unattributed_mj.items():
        number = pb.UnattributedReason.Value(f"UNATTRIBUTED_REASON_{reason.upper()}")
        message.unattributed.add(reason=number, energy_mj=energy_mj)
    return message
