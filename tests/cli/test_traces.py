"""Tracing is asked for by a setting, and costs nothing where it is not."""

import subprocess
import sys
from typing import cast

import pytest

from billing.close_result import Closed
from billing.closers import Chunk, ChunkDone, close_chunk
from billing.issued import Doing
from billing.period_closing import PeriodClosing
from cli.process import CommandError
from cli.setting_values import read_collector_url
from cli.traces import tracing
from meter import spans
from tests.wire.collector import Collector, attributes, running_collector


class Nothing:
    """Closes nothing."""

    def close(self, ready: object, **_: object) -> list[Closed]:  # noqa: ARG002
        """Return what was closed."""
        return []


def close_none() -> ChunkDone:
    """Close an empty chunk."""
    doing = cast("Doing", None)
    chunk = Chunk(ready=(), cut_id=7, doing=doing, tells_all=True)
    return close_chunk(cast("PeriodClosing", Nothing()), chunk)


def test_tracing__off_loads_nothing() -> None:
    """Without the setting a server does not even import OpenTelemetry, but for its messages."""
    program = (
        "import sys, cli.main, cli.serve, cli.up, cli.billing.close\n"
        "from cli.traces import tracing\n"
        "with tracing(None): pass\n"
        "names = [name for name in sys.modules if name.startswith('opentelemetry.')]\n"
        "print([name for name in names if not name.startswith('opentelemetry.proto')])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)  # noqa: PLW1510
    assert (shown.stdout, shown.stderr) == ("[]\n", "")
    assert spans.find_tracer() is None


def test_tracing__without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenTelemetry is not installed, the setting ends the command with what to install."""
    monkeypatch.setitem(sys.modules, "meter.runtime.otel", None)
    with (
        pytest.raises(CommandError, match=r"pip install 'tokenworks\[otel\]'"),
        tracing("http://x:1"),
    ):
        pass


def test_tracing__of_a_close() -> None:
    """A batch of a close is a span, with its periods and its cut; afterwards nothing is traced."""
    with running_collector() as (collector, url):
        close_none()
        with tracing(url):
            close_none()
        assert spans.find_tracer() is None
        close_none()
    assert isinstance(collector, Collector)
    (span,) = collector.of("close batch")
    assert attributes(span) == {"periods": 0, "cut_id": 7}


@pytest.mark.parametrize(
    "url", ["collector:4317", "http://collector", "ftp://c:1", "http://c:1/v1/traces", "http://:1"]
)
def test_endpoint__that_is_none(url: str) -> None:
    """A collector is a whole address of OTLP by gRPC: a scheme, a host, a port and no path."""
    with pytest.raises(ValueError, match="must be http://host:port"):
        read_collector_url(url)
