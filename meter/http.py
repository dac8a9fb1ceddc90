"""The HTTP port: metrics, liveness, readiness, and what takes reports; over TLS where asked for."""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from socket import socket
from socketserver import ThreadingMixIn
from ssl import SSLSocket
from threading import BoundedSemaphore, Thread
from typing import Any, Final, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from meter.certificates import SHOWN, KeptCertificates, find_shown
from meter.domain.limits import HTTP_REQUESTS_AT_ONCE_MAX

_log = logging.getLogger(__name__)
# How long a caller may keep a thread waiting.
_CALLER_SECONDS_MAX: Final = 30
_OK: Final = "200 OK"

WsgiApp: TypeAlias = Callable[[dict[str, Any], Any], Iterable[bytes]]


class HttpServer:
    """Serves apps, each at its path; all that they do happens on threads, at most so many."""

    def __init__(self, apps: Mapping[str, WsgiApp]) -> None:
        """Take what is served by path."""
        self._apps = apps
        self._server: _Threading | None = None

    def start(
        self,
        address: str,
        *,
        certificates: KeptCertificates | None = None,
        listener: socket | None = None,
    ) -> str:
        """Listen on `host:port` and return the address with its real port; raises OSError.

        With `certificates` it is served over TLS, each connection with those of its moment. A
        `listener` listens there already, for several processes; it must not block.
        """
        host, _, port = address.rpartition(":")
        self._server = _Threading((host, int(port)), _Quiet, listener=listener)
        self._server.set_app(self._answer)
        self._server.certificates = certificates
        Thread(target=self._server.serve_forever, name="http", daemon=True).start()
        return f"{host}:{self._server.server_port}"

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
        app = self._apps.get(environ["PATH_INFO"])
        if app is None:
            return _say("404 Not Found", start_response)
        return app(environ, start_response)


def make_pages(
    registry: CollectorRegistry,
    *,
    find_obstacles: Callable[[], Sequence[str]],
    find_silent: Callable[[], Sequence[str]] = tuple,
) -> dict[str, WsgiApp]:
    """Return /metrics, /healthz (the process lives) and /readyz (reports can be recorded).

    A server is ready while there are no obstacles, and lives while none of it is silent.
    """
    return {
        "/metrics": make_wsgi_app(registry),
        "/healthz": _page_of(find_silent),
        "/readyz": _page_of(find_obstacles),
    }


def _page_of(find_faults: Callable[[], Sequence[str]]) -> WsgiApp:
    def tell(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
        faults = find_faults()
        return _say("503 Service Unavailable" if faults else _OK, start_response, *faults)

    return tell


def _say(status: str, start_response: Any, *more: str) -> Iterable[bytes]:  # noqa: ANN401
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return ["".join(f"{line}\n" for line in (status[4:], *more)).encode()]


class _Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    certificates: KeptCertificates | None = None

    def __init__(
        self,
        address: tuple[str, int],
        handler_class: type[WSGIRequestHandler],
        *,
        listener: socket | None,
    ) -> None:
        self._listener = listener
        super().__init__(address, handler_class)
        self._room = BoundedSemaphore(HTTP_REQUESTS_AT_ONCE_MAX)

    def server_bind(self) -> None:
        """Take the address, or the socket that has it."""
        if self._listener is None:
            super().server_bind()
            return
        self.socket.close()
        self.socket = self._listener
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def server_activate(self) -> None:
        """Listen, unless the socket does."""
        if self._listener is None:
            super().server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve a connection on a thread of its own; those above the bound are closed at once."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve it, and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

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

    def get_environ(self) -> dict[str, Any]:
        """Return what WSGI tells of a request, and the certificate that its caller has shown."""
        environ: dict[str, Any] = super().get_environ()
        if isinstance(self.connection, SSLSocket):
            environ[SHOWN] = find_shown(self.connection)
        return environ

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: scrapes come every few seconds."""
