"""How what takes the reports of others is built: routes of the HTTP port, services of gRPC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meter.options import MeterOptions
from meter.wire.cloud_events import CloudEventDesk
from meter.wire.door import RegistryDoor
from meter.wire.envoy_servicer import EnvoyServicer
from meter.wire.http_reports import ReportDesk, WsgiApp
from meter.wire.litellm import LiteLlmDesk
from meter.wire.observed import ObservedIntake
from meter.wire.otlp_servicer import OtlpServicer
from meter.wire.server import Receiver
from meter.wire.stream import StreamParts
from meter.wire.unreadable import UnreadableReports


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivers:
    """What takes reports: by HTTP at paths of every meter, at those of OTLP, and by gRPC."""

    routes: Mapping[str, WsgiApp]
    otlp_routes: Mapping[str, WsgiApp]
    services: Sequence[Receiver]

    @property
    def all_routes(self) -> Mapping[str, WsgiApp]:
        """Both, as every meter's own HTTP port has them."""
        return {**self.routes, **self.otlp_routes}


def make_receivers(options: MeterOptions, parts: StreamParts, *, door: RegistryDoor) -> Receivers:
    """Build what takes the reports of others, on the event loop, on which they are answered."""
    clock, places = parts.clock, options.places
    desk = ReportDesk(door=door, bounds=parts.bounds, metrics=parts.metrics, clock=clock)
    intake = ObservedIntake(parts)
    faults = UnreadableReports(parts.metrics, monotonic_seconds=clock.monotonic_seconds)
    cloud_events = CloudEventDesk(intake, places=places, faults=faults, clock=clock)
    litellm = LiteLlmDesk(intake, places=places, faults=faults, clock=clock)
    envoy = EnvoyServicer(intake, parts=parts, places=places, faults=faults, door=door)
    # By gRPC and by HTTP it is one: exports of both are read in turn, by the same memory.
    otlp = OtlpServicer(intake, places=places, faults=faults, door=door, clock=clock)
    otlp_routes = otlp.routes() if options.otlp else []
    return Receivers(
        routes={it.path: desk.app(it) for it in (cloud_events.route(), litellm.route())},
        otlp_routes={it.path: desk.app(it) for it in otlp_routes},
        services=(envoy, otlp) if options.otlp else (envoy,),
    )
