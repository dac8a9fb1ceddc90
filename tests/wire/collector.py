"""A collector of OpenTelemetry, which keeps what it receives."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that come."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def Export(self, request: Any, context: object) -> Any:  # noqa: ANN401, ARG002, N802
        """Take spans."""
        for each in request.resource_spans:
            named = {it.key: it.value.string_value for it in each.resource.attributes}
            self.services.add(named["service.name"])
            self.spans += [span for scope in each.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, name: str) -> list[Span]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]


@contextlib.contextmanager
def running_collector() -> Iterator[tuple[Collector, str]]:
    """A collector that listens for the time of the block, and its URL."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None)


def attributes(span: Span) -> dict[str, object]:
    """Return a span's attributes, whichever kind they are."""
    return {it.key: getattr(it.value, it.value.WhichOneof("value") or "") for it in span.attributes}
