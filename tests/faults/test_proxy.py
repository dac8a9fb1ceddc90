"""The proxy does to bytes what it is told."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy
from tests.faults.waiting import wait_until

SECONDS_MAX = 10


@pytest.fixture
def echo() -> Iterator[Proxy]:
    """A proxy before a server that sends everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer:
            try:
                while chunk := peer.recv(65536):
                    peer.sendall(chunk)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=[peer], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    proxy = Proxy(f"127.0.0.1:{listener.getsockname()[1]}")
    yield proxy
    proxy.close()
    listener.close()


def connected(proxy: Proxy) -> socket.socket:
    """Return a connection to it."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SECONDS_MAX)


def test_proxy__passes_on(echo: Proxy) -> None:
    """Untold, it changes nothing."""
    with connected(echo) as peer:
        peer.sendall(b"hello")
        assert peer.recv(100) == b"hello"


def test_proxy__cuts_a_request_in_half(echo: Proxy) -> None:
    """Half of the next chunk goes out, then the connection is gone."""
    with connected(echo) as peer:
        echo.mischief.cuts["up"] = 1
        peer.sendall(b"0123456789")
        received = b""
        try:
            while chunk := peer.recv(100):
                received += chunk
        except ConnectionResetError:
            pass
        assert received in (b"", b"01234")
        assert echo.cut_count == 1


def test_proxy__swallows_and_heals(echo: Proxy) -> None:
    """Swallowed bytes are counted, and their connection does not outlive the healing."""
    with connected(echo) as peer:
        echo.mischief.swallows.add("down")
        peer.sendall(b"0123456789")
        wait_until(lambda: echo.swallowed_bytes == 10, seconds_max=SECONDS_MAX, what="swallowed")
        echo.heal()
        with pytest.raises(ConnectionResetError):
            peer.recv(100)
    with connected(echo) as peer:
        peer.sendall(b"again")
        assert peer.recv(100) == b"again"


def test_proxy__freezes_and_goes_on(echo: Proxy) -> None:
    """A frozen connection carries nothing, stays, and then delivers what it was given."""
    with connected(echo) as peer:
        peer.sendall(b"a")
        assert peer.recv(100) == b"a"
        echo.mischief.frozen = True
        peer.sendall(b"b")
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.recv(100)
        assert echo.link_count == 1
        echo.heal()
        peer.settimeout(SECONDS_MAX)
        assert peer.recv(100) == b"b"
