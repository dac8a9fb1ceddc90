"""Traces by OpenTelemetry, sent over OTLP; imported only where somebody asks for them.

Which calls are kept is the SDK's to decide, by its own variables (`OTEL_TRACES_SAMPLER`).
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as version_of
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meter.call_context import find_call, note_trace
from meter.runtime.ids import random_bytes
from meter.spans import Attributes, Trace

_NAME: Final = "tokenworks"
_TIMEOUT_SECONDS: Final = 5
_PROPAGATOR: Final = TraceContextTextMapPropagator()
# What a caller may say of where a call belongs.
_CARRIED: Final = ("traceparent", "tracestate")


class OtelTracer:
    """A tracer of `meter.spans`, with a thread that sends what has ended."""

    def __init__(self, endpoint: str) -> None:
        """Take the collector's URL, `http://host:4317` or `https://…`."""
        about = {
            "service.name": _NAME,
            "service.version": version_of(_NAME),
            "service.instance.id": random_bytes(8).hex(),
        }
        self._provider = TracerProvider(resource=Resource.create(about))
        exporter = OTLPSpanExporter(
            endpoint=endpoint,
            insecure=endpoint.startswith("http://"),
            timeout=_TIMEOUT_SECONDS,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(_NAME, version_of(_NAME))

    @contextmanager
    def call(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[None]:
        """Span a gRPC call; what became known of it while it ran is added at its end."""
        service, _, name = method.strip("/").partition("/")
        carrier = {key: value for key, value in metadata if key in _CARRIED}
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        with self._tracer.start_as_current_span(
            method.strip("/"),
            context=_PROPAGATOR.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes,
            # An error's words may be anybody's; its reason is in the log, under this trace.
            record_exception=False,
        ) as span:
            note_trace(f"{span.get_span_context().trace_id:032x}")
            try:
                yield
            finally:
                _add_context(span)

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[None]:
        """Span a block."""
        with self._tracer.start_as_current_span(
            name, attributes=dict(attributes), record_exception=False
        ):
            yield

    def find_trace(self) -> Trace | None:
        """Return the span at hand, if it is kept."""
        span = trace.get_current_span()
        return span if span.is_recording() else None

    def record(
        self, name: str, *, seconds: float, trace: Trace | None, attributes: Attributes
    ) -> None:
        """Write a span that has just ended."""
        end_ns = time.time_ns()
        span = self._tracer.start_span(
            name,
            context=_within(trace),
            start_time=end_ns - int(seconds * 1e9),
            attributes=dict(attributes),
        )
        span.end(end_ns)

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._provider.force_flush(_TIMEOUT_SECONDS * 1000)
        self._provider.shutdown()


def _within(parent: Trace | None) -> Context:
    """Return the context of a span; an empty one begins a trace."""
    if isinstance(parent, Span):
        return trace.set_span_in_context(parent, Context())
    return Context()


def _add_context(span: Span) -> None:
    call = find_call()
    if call is not None:
        for name, value in call.fields().items():
            if name != "rpc":
                span.set_attribute(f"tokenworks.{name}", value)
