"""The counters of energy beside a site's servers, and how they are reported."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import grpc

from cli.simulate.site.batches import IDLE_PERCENT
from cli.simulate.site.size import PUE, TIERS, Size
from cli.simulate.site.truth import TruthFiles
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1 import energy_service_pb2 as pb

SITE: Final = "site"
COUNTERS_SECONDS: Final = 5
# Servers behind one meter of the site, which may show a hundred megawatts.
_METER_SERVERS: Final = 100
_SECOND_MS: Final = 1_000
_READINGS_MAX: Final = 1_000
_METHOD: Final = "/tokenworks.meter.v1.EnergyService/RecordEnergy"
_CALL_SECONDS_MAX: Final = 20.0
_RETRY_SECONDS: Final = 0.5


class Counters:
    """What each server's boards have used since `begin_ms`, and each meter of the site."""

    def __init__(self, size: Size, *, names: Sequence[str]) -> None:
        """Take the servers' names, dealt to the tiers in turn; they are at rest from now on."""
        self.begin_ms = now_ms()
        self._names = names
        self._idle_mw = size.board_milliwatts * IDLE_PERCENT // 100
        self._served_mj = [0] * len(names)

    def serve(self, server: int, *, energy_mj: int) -> None:
        """Have a server use so much more than it does at rest."""
        self._served_mj[server] += energy_mj

    def read(self, time_ms: int) -> tuple[list[int], list[int]]:
        """Return what the boards of each server show, and what each meter of the site does."""
        idle_mj = self._idle_mw * (time_ms - self.begin_ms) // _SECOND_MS
        boards = [idle_mj + served_mj for served_mj in self._served_mj]
        groups = range(0, len(boards), _METER_SERVERS)
        meters = [int(sum(boards[first : first + _METER_SERVERS]) * PUE) for first in groups]
        return boards, meters

    def requests(
        self, time_ms: int, *, boards: Sequence[int], meters: Sequence[int]
    ) -> Iterator[pb.RecordEnergyRequest]:
        """Yield what is reported of a reading, as many counters in a call as it takes."""
        readings = [
            pb.EnergyReading(pool=TIERS[server % len(TIERS)].pool, device=name, counter_mj=shown)
            for server, (name, shown) in enumerate(zip(self._names, boards, strict=True))
        ]
        readings += [
            pb.EnergyReading(
                site=SITE,
                boundary=pb.ENERGY_BOUNDARY_FACILITY,
                device=f"meter-{self._names[number * _METER_SERVERS]}",
                counter_mj=shown,
            )
            for number, shown in enumerate(meters)
        ]
        for reading in readings:
            reading.time.FromMilliseconds(time_ms)
        for first in range(0, len(readings), _READINGS_MAX):
            yield pb.RecordEnergyRequest(readings=readings[first : first + _READINGS_MAX])


class PowerReports:
    """Reads all counters again and again, and reports what they show; on one event loop."""

    def __init__(
        self, channel: grpc.aio.Channel, *, api_key: str | None, counters: Counters
    ) -> None:
        self._record = channel.unary_unary(
            _METHOD,
            request_serializer=pb.RecordEnergyRequest.SerializeToString,
            response_deserializer=pb.RecordEnergyResponse.FromString,
        )
        self._metadata = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        self._counters = counters
        self.read_ms = 0
        """When was read what is recorded; 0 for never."""

    async def report(self, truth: TruthFiles, *, is_patient: bool) -> None:
        """Read the counters once, and report it.

        Without an answer of the meter it is tried until there is one where `is_patient`, else left
        to the next reading, which has it all. Raises grpc.aio.AioRpcError for a refusal.
        """
        time_ms = now_ms()
        boards, meters = self._counters.read(time_ms)
        truth.read_counters(time_ms, boards, meters)
        for request in self._counters.requests(time_ms, boards=boards, meters=meters):
            while not await self._is_recorded(request):
                if not is_patient:
                    return
                await asyncio.sleep(_RETRY_SECONDS)
        self.read_ms = time_ms

    async def report_always(self, truth: TruthFiles) -> None:
        """Read and report at a fixed interval, until cancelled."""
        while True:
            await asyncio.sleep(COUNTERS_SECONDS)
            await self.report(truth, is_patient=False)

    async def _is_recorded(self, request: pb.RecordEnergyRequest) -> bool:
        try:
            await self._record(request, metadata=self._metadata, timeout=_CALL_SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _AWAY:
                raise
            return False
        return True


def now_ms() -> int:
    """Return the time of this machine."""
    return time_ns() // 1_000_000


_AWAY: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
}
