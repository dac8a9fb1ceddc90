"""EnergyService: takes readings of energy counters, and tells what the tokens took."""

import asyncio
from typing import Any, TypeAlias

import grpc

from meter.domain import limits
from meter.domain.clock import Clock
from meter.energy.efficiency import EfficiencyReader
from meter.energy.recorder import EnergyRecorder
from meter.wire.door import RegistryDoor
from meter.wire.efficiency_messages import to_query, to_response
from meter.wire.energy_readings import to_reading, to_sources
from meter.wire.factory_messages import FactoryDesk
from meter.wire.software_marks import SoftwareMarkDesk
from meter.wire.status import invalid
from tokenworks.meter.v1 import energy_service_pb2 as pb
from tokenworks.meter.v1 import energy_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class EnergyServicer(energy_service_pb2_grpc.EnergyServiceServicer):
    """Thin: each method lets in, translates, and hands on to a thread."""

    def __init__(
        self,
        recorder: EnergyRecorder,
        *,
        reader: EfficiencyReader,
        factory: FactoryDesk,
        marks: SoftwareMarkDesk,
        door: RegistryDoor,
        clock: Clock,
    ) -> None:
        """Take who records and who answers, and who keeps descriptions and marks."""
        self._recorder = recorder
        self._reader = reader
        self._factory = factory
        self._marks = marks
        self._door = door
        self._clock = clock

    async def RecordEnergy(
        self, request: pb.RecordEnergyRequest, _context: _Context
    ) -> pb.RecordEnergyResponse:
        """Record readings."""
        if not 1 <= len(request.readings) <= limits.RECORD_READINGS_MAX:
            raise invalid("readings", f"1–{limits.RECORD_READINGS_MAX} readings")
        now_ms = self._clock.now_ms()
        readings = [to_reading(reading, now_ms=now_ms) for reading in request.readings]
        count = await asyncio.to_thread(self._recorder.record, readings)
        return pb.RecordEnergyResponse(recorded_count=count, ignored_count=len(readings) - count)

    async def QueryEfficiency(
        self, request: pb.QueryEfficiencyRequest, _context: _Context
    ) -> pb.QueryEfficiencyResponse:
        """Sum tokens and energy."""
        query = to_query(request)
        # Asked first: what it names as attributed is in the sums.
        until_ms = self._recorder.attributed_until_ms
        answer = await asyncio.to_thread(self._reader.query, query)
        response = to_response(answer, boundary=query.boundary)
        if until_ms is not None:
            response.attributed_until.FromMilliseconds(until_ms)
        return response

    async def ListEnergySources(
        self, _: pb.ListEnergySourcesRequest, _context: _Context
    ) -> pb.ListEnergySourcesResponse:
        """List sources and pools."""
        pools = await asyncio.to_thread(self._recorder.power)
        silent = await asyncio.to_thread(self._recorder.silent)
        return to_sources(self._recorder.source_states(), pools=pools, silent=silent)

    async def SetFactory(
        self, request: pb.SetFactoryRequest, _context: _Context
    ) -> pb.SetFactoryResponse:
        """Take in a version of the description."""
        caller = self._door.caller()
        return await self._factory.set(request, key_id=caller.key_id)

    async def ListFactoryVersions(
        self, _: pb.ListFactoryVersionsRequest, _context: _Context
    ) -> pb.ListFactoryVersionsResponse:
        """List the versions of the description."""
        return await self._factory.list_versions()

    async def GetFactory(
        self, request: pb.GetFactoryRequest, _context: _Context
    ) -> pb.GetFactoryResponse:
        """Return a version of the description."""
        return await self._factory.get(request)

    async def MarkSoftware(
        self, request: pb.MarkSoftwareRequest, _context: _Context
    ) -> pb.MarkSoftwareResponse:
        """Say which software serves a pool."""
        caller = self._door.caller()
        changed = await self._marks.mark(request, key_id=caller.key_id)
        return pb.MarkSoftwareResponse(changed=changed)

    async def ListSoftwareMarks(
        self, request: pb.ListSoftwareMarksRequest, _context: _Context
    ) -> pb.ListSoftwareMarksResponse:
        """List marks."""
        return await self._marks.list_marks(request)
