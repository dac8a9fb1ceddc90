"""A factory in a real meter: described, measured, served and asked by calls alone."""

from collections.abc import Mapping
from typing import Final

from tests.running_meter import RunningMeter
from tests.wire.energy_caller import EDGE_MS, EnergyCaller
from tests.wire.session import CALL_SECONDS_MAX, event
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1 import energy_service_pb2 as pb
from tokenworks.meter.v1.energy_service_pb2_grpc import EnergyServiceStub
from tokenworks.meter.v1.usage_pb2 import TokenClass

# A noon two days ago: its intervals have ended.
_DAY_MS: Final = 96 * EDGE_MS
NOON_MS: Final = (time_ns() // 1_000_000 // _DAY_MS - 2) * _DAY_MS + _DAY_MS // 2
SPAN: Final = {"start_ms": NOON_MS, "end_ms": NOON_MS + EDGE_MS}
ACCOUNTS: Final = ("acme", "bolt", "crux")
BOARD, HOST, FACILITY = (
    pb.ENERGY_BOUNDARY_BOARD,
    pb.ENERGY_BOUNDARY_HOST,
    pb.ENERGY_BOUNDARY_FACILITY,
)
# Reports lie at most so far apart, or there is a gap between them.
_READINGS: Final = 3


class Plant:
    """What an operator and the servers of a factory do; all of it in the interval of a noon."""

    def __init__(self, meter: RunningMeter) -> None:
        self.meter = meter
        self.caller = EnergyCaller(meter)
        self._stub = EnergyServiceStub(self.caller.session.channel)
        for account in ACCOUNTS:
            self.caller.session.create_account(account)

    def describe(self, toml: str) -> int:
        """Set a description; return its number."""
        answer = self._stub.SetFactory(
            pb.SetFactoryRequest(toml=toml),
            metadata=self.caller.session.metadata,
            timeout=CALL_SECONDS_MAX,
            wait_for_ready=True,
        )
        return int(answer.version.version)

    def draw(
        self,
        energy_mj: int,
        *,
        pool: str = "",
        site: str = "",
        device: str = "",
        boundary: pb.EnergyBoundary.ValueType = BOARD,
        begin_ms: int = 0,
        time_ms: int = EDGE_MS,
    ) -> None:
        """Report the counter of a device that took so much between two times after noon."""
        readings = []
        for place in range(_READINGS + 1):
            message = pb.EnergyReading(
                pool=pool,
                site=site,
                device=device or f"{pool}{site}-{boundary}",
                boundary=boundary,
                counter_mj=energy_mj * place // _READINGS,
            )
            message.time.FromMilliseconds(
                NOON_MS + begin_ms + (time_ms - begin_ms) * place // _READINGS
            )
            readings.append(message)
        self.caller.record(*readings)

    def serve(
        self, classes: Mapping[str, int], *, pool: str, account: str = "acme", model: str = "m"
    ) -> None:
        """Report a request, twice: it has an id, and counts once."""
        tokens = {TokenClass.Value(f"TOKEN_CLASS_{it.upper()}"): n for it, n in classes.items()}
        message = event(account, pool=pool, model=model, tokens=tokens, end_ms=NOON_MS)
        self.caller.session.record(message)
        self.caller.session.record(message)

    def settle(self) -> None:
        """Wait until all is counted and attributed."""
        self.caller.session.counted()
        self.caller.wait_until_attributed(**SPAN)

    def ask(
        self,
        *groups: str,
        pool: str = "",
        boundary: pb.EnergyBoundary.ValueType = BOARD,
    ) -> pb.QueryEfficiencyResponse:
        """Ask for a pool's tokens and energy, or for those of all."""
        return self.caller.ask(*groups, pool=pool, boundary=boundary, **SPAN)
