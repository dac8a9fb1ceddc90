"""The gRPC server: services, health, reflection, limits."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from meter.access import METER_ACCESS, Access
from meter.certificates import KeptCertificates
from meter.domain.limits import CONNECTION_STREAMS_MAX, MESSAGE_BYTES_MAX, METADATA_BYTES_MAX
from meter.metrics import Metrics
from meter.options import MeterOptions
from meter.runtime.driven_clock import DrivenClock
from meter.spans import find_tracer
from meter.wire.accepting import make_server
from meter.wire.bounds import Bounds
from meter.wire.credentials import to_credentials
from meter.wire.door import DoorInterceptor, RegistryDoor
from meter.wire.handlers import OncePerMethod
from meter.wire.status import StatusInterceptor
from meter.wire.traced import TracingInterceptor
from meter.wire.turnstile import Turnstile
from tokenworks.meter.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    clock_service_pb2,
    clock_service_pb2_grpc,
    energy_service_pb2,
    energy_service_pb2_grpc,
    engine_service_pb2,
    engine_service_pb2_grpc,
    meter_service_pb2,
    meter_service_pb2_grpc,
    producer_service_pb2,
    producer_service_pb2_grpc,
)

_SERVICES: Final = (
    meter_service_pb2.DESCRIPTOR.services_by_name["MeterService"].full_name,
    account_service_pb2.DESCRIPTOR.services_by_name["AccountService"].full_name,
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name,
    clock_service_pb2.DESCRIPTOR.services_by_name["ClockService"].full_name,
    energy_service_pb2.DESCRIPTOR.services_by_name["EnergyService"].full_name,
    engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"].full_name,
    producer_service_pb2.DESCRIPTOR.services_by_name["ProducerService"].full_name,
)
_OPTIONS: Final = (
    # The transport refuses what is more than twice too large, without our words.
    ("grpc.max_receive_message_length", 2 * MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.max_concurrent_streams", CONNECTION_STREAMS_MAX),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 30_000),
)
# How long calls that are open may go on when their connection is of age. Streams of usage end
# before, by themselves.
_GRACE_SECONDS: Final = 10


class AddressTaken(OSError):
    """The address to listen on is taken or not ours."""


class Receiver(Protocol):
    """A service that takes reports in the shape of others."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register it."""
        ...

    async def stop(self) -> None:
        """Take nothing more, and record what no sender would send again; within seconds."""
        ...


class Server:
    """A gRPC server with the meter's services, health and reflection."""

    def __init__(
        self,
        meter: meter_service_pb2_grpc.MeterServiceServicer,
        *,
        accounts: account_service_pb2_grpc.AccountServiceServicer,
        clock: clock_service_pb2_grpc.ClockServiceServicer,
        energy: energy_service_pb2_grpc.EnergyServiceServicer,
        engines: engine_service_pb2_grpc.EngineServiceServicer,
        producers: producer_service_pb2_grpc.ProducerServiceServicer,
        audit: audit_service_pb2_grpc.AuditServiceServicer,
        metrics: Metrics,
        door: RegistryDoor,
        bounds: Bounds,
        driven: DrivenClock | None,
        certificates: KeptCertificates | None,
        connection_age_seconds: int,
        shares_ports: bool,
        residents: Mapping[str, Callable[[grpc.aio.Server], None]],
        receivers: Sequence[Receiver],
        access: Access,
    ) -> None:
        """Take the servicers, and by full name what registers further services.

        `access` has the rows of those services' calls.
        `driven` is a sandbox's clock, which every answer tells. Without `certificates` it speaks
        in the clear. A connection does not outlive a revoked certificate, or an old server, for
        longer than `connection_age_seconds` and a grace. `start` opens the port; where it
        `shares_ports` with other processes, the system hands each connection to one of them.
        """
        self._certificates = certificates
        own = [
            ("grpc.max_connection_age_ms", connection_age_seconds * 1000),
            ("grpc.max_connection_age_grace_ms", _GRACE_SECONDS * 1000),
            ("grpc.so_reuseport", int(shares_ports)),
        ]
        self._server = make_server(
            interceptors=[
                OncePerMethod(
                    [
                        *_tracing(),
                        StatusInterceptor(metrics, driven=driven),
                        Turnstile(bounds, identify=door.identify),
                        DoorInterceptor(door, access={**METER_ACCESS, **access}),
                    ]
                )
            ],
            options=[*_OPTIONS, *own],
        )
        meter_service_pb2_grpc.add_MeterServiceServicer_to_server(meter, self._server)
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(accounts, self._server)
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, self._server)
        clock_service_pb2_grpc.add_ClockServiceServicer_to_server(clock, self._server)
        energy_service_pb2_grpc.add_EnergyServiceServicer_to_server(energy, self._server)
        engine_service_pb2_grpc.add_EngineServiceServicer_to_server(engines, self._server)
        producer_service_pb2_grpc.add_ProducerServiceServicer_to_server(producers, self._server)
        for add_to in (*residents.values(), *(it.add_to for it in receivers)):
            add_to(self._server)
        self._receivers = receivers
        self._names = (*_SERVICES, *residents)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, options: MeterOptions) -> tuple[str, str | None]:
        """Listen and return the address with its real port, and that for OTLP where it is on.

        Raises AddressTaken. What is served is the same at both.
        """
        address = self._bind(options.grpc_address)
        otlp_address = self._bind(options.otlp_grpc_address) if options.otlp else None
        await self._server.start()
        await self.set_serving(serving=True)
        return address, otlp_address

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks whether reports can be recorded."""
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if serving else states.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, state)

    async def stop_receiving(self) -> None:
        """Have those record what they hold who send no answers; before the writer ends."""
        await asyncio.gather(*(receiver.stop() for receiver in self._receivers))

    async def stop(self, *, grace_seconds: float) -> None:
        """Take no new calls and end open ones after the grace."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)

    def _bind(self, address: str) -> str:
        try:
            if self._certificates is None:
                port = self._server.add_insecure_port(address)
            else:
                credentials = to_credentials(self._certificates)
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            message = f"cannot listen on {address}"
            raise AddressTaken(message) from error
        return f"{address.rpartition(':')[0]}:{port}"


def _tracing() -> list[grpc.aio.ServerInterceptor]:
    """Return what traces calls, if anybody does."""
    tracer = find_tracer()
    return [] if tracer is None else [TracingInterceptor(tracer)]
