"""The HTTP port: metrics, liveness, readiness."""

from collections.abc import Callable, Iterable, Sequence
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from meter.metrics import Metrics


class HttpServer:
    """Serves /metrics, /healthz (the process lives) and /readyz (reports can be recorded)."""

    def __init__(self, metrics: Metrics, *, find_obstacles: Callable[[], Sequence[str]]) -> None:
        """Take what it shows; a server is ready while there are no obstacles."""
        self._metrics_app = make_wsgi_app(metrics.registry)
        self._find_obstacles = find_obstacles
        self._server: WSGIServer | None = None

    def start(self, address: str) -> str:
        """Listen on `host:port` and return the address with its real port; raises OSError."""
        host, _, port = address.rpartition(":")
        self._server = make_server(
            host, int(port), self._answer, server_class=_Threading, handler_class=_Quiet
        )
        Thread(target=self._server.serve_forever, name="http", daemon=True).start()
        return f"{host}:{self._server.server_port}"

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
        path = environ["PATH_INFO"]
        if path == "/metrics":
            page: Iterable[bytes] = self._metrics_app(environ, start_response)
            return page
        obstacles = self._find_obstacles() if path == "/readyz" else ()
        known = path in ("/healthz", "/readyz")
        status = "503 Service Unavailable" if obstacles else "200 OK" if known else "404 Not Found"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return ["".join(f"{line}\n" for line in (status[4:], *obstacles)).encode()]


class _Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: scrapes come every few seconds."""
