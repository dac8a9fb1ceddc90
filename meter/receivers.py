"""How what takes the reports of others is built: routes of the HTTP port, services of gRPC."""

from collections.abc import Sequence

from meter.options import MeterOptions
from meter.wire.cloud_events import CloudEventDesk
from meter.wire.door import RegistryDoor
from meter.wire.envoy_servicer import EnvoyServicer
from meter.wire.http_reports import ReportDesk, Route, WsgiApp
from meter.wire.litellm import LiteLlmDesk
from meter.wire.observed import ObservedIntake
from meter.wire.otlp_servicer import OtlpServicer
from meter.wire.server import Receiver
from meter.wire.stream import StreamParts
from meter.wire.unreadable import UnreadableReports


def make_routes(
    options: MeterOptions, parts: StreamParts, *, door: RegistryDoor
) -> tuple[dict[str, WsgiApp], dict[str, WsgiApp]]:
    """Build what takes reports by HTTP, by path: that of every meter, and that of OTLP.

    Made on the event loop, on which the reports are answered.
    """
    desk = ReportDesk(door=door, bounds=parts.bounds, metrics=parts.metrics, clock=parts.clock)
    clock = parts.clock
    intake = ObservedIntake(parts)
    faults = UnreadableReports(parts.metrics, monotonic_seconds=clock.monotonic_seconds)
    cloud_events = CloudEventDesk(intake, places=options.places, faults=faults, clock=clock)
    litellm = LiteLlmDesk(intake, places=options.places, faults=faults, clock=clock)
    routes: list[Route] = [cloud_events.route(), litellm.route()]
    otlp_routes = make_otlp(options, parts, door=door).routes() if options.otlp else []
    return (
        {route.path: desk.app(route) for route in routes},
        {route.path: desk.app(route) for route in otlp_routes},
    )


def make_receivers(
    options: MeterOptions, parts: StreamParts, *, door: RegistryDoor
) -> Sequence[Receiver]:
    """Build what takes reports by gRPC in the shapes of others."""
    clock = parts.clock
    envoy = EnvoyServicer(
        ObservedIntake(parts),
        parts=parts,
        places=options.places,
        faults=UnreadableReports(parts.metrics, monotonic_seconds=clock.monotonic_seconds),
        door=door,
    )
    return (envoy, make_otlp(options, parts, door=door)) if options.otlp else (envoy,)


def make_otlp(options: MeterOptions, parts: StreamParts, *, door: RegistryDoor) -> OtlpServicer:
    """Build what takes exports of OpenTelemetry."""
    clock = parts.clock
    return OtlpServicer(
        ObservedIntake(parts),
        places=options.places,
        faults=UnreadableReports(parts.metrics, monotonic_seconds=clock.monotonic_seconds),
        door=door,
        clock=clock,
    )
