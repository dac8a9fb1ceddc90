"""How what takes the reports of others is built: routes of the HTTP port, services of gRPC."""

from meter.options import MeterOptions
from meter.wire.door import RegistryDoor
from meter.wire.http_reports import ReportDesk, Route, WsgiApp
from meter.wire.stream import StreamParts


def make_routes(
    options: MeterOptions, parts: StreamParts, *, door: RegistryDoor
) -> tuple[dict[str, WsgiApp], dict[str, WsgiApp]]:
    """Build what takes reports by HTTP, by path: that of every meter, and that of OTLP.

    Made on the event loop, on which the reports are answered.
    """
    desk = ReportDesk(door=door, bounds=parts.bounds, metrics=parts.metrics, clock=parts.clock)
    routes: list[Route] = []
    otlp_routes: list[Route] = []
    if not options.otlp:
        otlp_routes.clear()
    return (
        {route.path: desk.app(route) for route in routes},
        {route.path: desk.app(route) for route in otlp_routes},
    )
