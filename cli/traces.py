"""Tracing, for the time that a process runs: OpenTelemetry is loaded only where it is asked for."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cli.process import CommandError
from meter import spans

_MODULE: Final = "meter.runtime.otel"


@contextmanager
def tracing(endpoint: str | None) -> Iterator[None]:
    """Send traces to a collector for the time of the block; None: to nobody, at no cost.

    Raises CommandError when the extra is not installed.
    """
    if endpoint is None:
        yield
        return
    try:
        module = importlib.import_module(_MODULE)
    except ImportError as error:
        raise CommandError(
            "TOKENWORKS_OTLP_TRACES_ENDPOINT needs OpenTelemetry: pip install 'tokenworks[otel]'"
        ) from error
    tracer = module.OtelTracer(endpoint)
    spans.install(tracer)
    try:
        yield
    finally:
        spans.install(None)
        tracer.close()
