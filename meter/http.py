"""The HTTP port: metrics, liveness, readiness; over TLS where it is asked for."""

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from socket import socket
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from meter.certificates import KeptCertificates
from meter.metrics import Metrics

_log = logging.getLogger(__name__)
# How long a caller may keep a thread waiting.
_CALLER_SECONDS_MAX: Final = 30


class HttpServer:
    """Serves /metrics, /healthz (the process lives) and /readyz (reports can be recorded)."""

    def __init__(self, metrics: Metrics, *, find_obstacles: Callable[[], Sequence[str]]) -> None:
        """Take what it shows; a server is ready while there are no obstacles."""
        self._metrics_app = make_wsgi_app(metrics.registry)
        self._find_obstacles = find_obstacles
        self._server: _Threading | None = None

    def start(self, address: str, *, certificates: KeptCertificates | None = None) -> str:
        """Listen on `host:port` and return the address with its real port; raises OSError.

        With `certificates` it is served over TLS, each connection with those of its moment.
        """
        host, _, port = address.rpartition(":")
        self._server = make_server(
            host, int(port), self._answer, server_class=_Threading, handler_class=_Quiet
        )
        self._server.certificates = certificates
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
    certificates: KeptCertificates | None = None

    def get_request(self) -> tuple[socket, Any]:
        """Take a connection; the handshake is its thread's, so that nobody waits for a slow one."""
        connection, address = super().get_request()
        if self.certificates is not None:
            connection = self.certificates.current.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002
        """Say nothing of callers that break off, or that do not speak TLS."""
        error = sys.exception()
        if not isinstance(error, OSError):
            _log.error("http_failed", exc_info=error)


class _Quiet(WSGIRequestHandler):
    timeout = _CALLER_SECONDS_MAX

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: scrapes come every few seconds."""
