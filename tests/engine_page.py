"""Stands for a replica of an inference engine: real counters of prometheus_client, over HTTP."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MODEL = "meta-llama/Llama-4"


class EngineProcess:
    """The counters of one process, named as vLLM names them; others by `names` and `labels`."""

    def __init__(
        self,
        *,
        names: tuple[str, str] = ("vllm:prompt_tokens", "vllm:generation_tokens"),
        labels: tuple[str, ...] = ("model_name", "engine"),
    ) -> None:
        self.registry = CollectorRegistry()
        self._labels = labels
        self.prompt, self.output = (
            Counter(name, "Number of tokens.", labels, registry=self.registry) for name in names
        )
        prefix = names[0].partition("prompt")[0]
        running = Gauge(f"{prefix}num_requests_running", "Running.", registry=self.registry)
        running.set(0)
        lengths = Histogram(f"{prefix}request_prompt_tokens", "Lengths.", registry=self.registry)
        lengths.observe(100)

    def serve(self, *, prompt: int, output: int, model: str = MODEL, engine: str = "0") -> None:
        """Count what a request took."""
        values = [{"model_name": model, "engine": engine}[it] for it in self._labels]
        for counter, tokens in ((self.prompt, prompt), (self.output, output)):
            (counter.labels(*values) if values else counter).inc(tokens)

    def page(self) -> bytes:
        """Return its page."""
        return generate_latest(self.registry)


class Replica:
    """A replica whose process a test replaces; `page`, where it is set, is shown instead."""

    def __init__(self) -> None:
        self.process = EngineProcess()
        self.page: bytes | None = None
        self.status = 200
        self.ask_count = 0
        replica = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                replica.ask_count += 1
                body = replica.process.page() if replica.page is None else replica.page
                self.send_response(replica.status)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
                """Log nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self._server.server_port}/metrics"

    def restart(self, process: EngineProcess | None = None) -> None:
        """Begin anew with counters at 0."""
        self.process = process or EngineProcess()

    def vanish(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def running_replica() -> Iterator[Replica]:
    """A replica for the time of the block."""
    replica = Replica()
    try:
        yield replica
    finally:
        replica.vanish()
