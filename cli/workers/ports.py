"""The ports that workers share.

For HTTP the parent listens, and whichever worker is awake takes a connection. gRPC takes no socket
from outside: each worker listens for itself, and the system hands each connection to one of them.
The parent holds that port, so that no other server gets it, nor a part of its connections.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from meter.options import MeterOptions

# Connections that wait while no worker takes them.
_WAITING_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The options with the ports that were really got, and what workers listen to for HTTP."""

    options: MeterOptions
    http: socket.socket
    otlp_http: socket.socket | None


@contextmanager
def shared_ports(options: MeterOptions) -> Iterator[Ports]:
    """Hold the ports for the time of the block; raises OSError."""
    with ExitStack() as stack:
        grpc = stack.enter_context(hold_port(options.grpc_address))
        http = stack.enter_context(_listen(options.http_address))
        options = replace(
            options,
            grpc_address=_address(options.grpc_address, grpc),
            http_address=_address(options.http_address, http),
        )
        otlp_http = None
        if options.otlp:
            otlp_grpc = stack.enter_context(hold_port(options.otlp_grpc_address))
            otlp_http = stack.enter_context(_listen(options.otlp_http_address))
            options = replace(
                options,
                otlp_grpc_address=_address(options.otlp_grpc_address, otlp_grpc),
                otlp_http_address=_address(options.otlp_http_address, otlp_http),
            )
        yield Ports(options=options, http=http, otlp_http=otlp_http)


def hold_port(address: str) -> socket.socket:
    """Bind a port that only those get, of this user, who say that they share it; raises OSError."""
    held = socket.socket(_family(address))
    # What is left of the connections of a server that has just ended is no reason not to have it.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(held, address)
    # While no worker listens, it would let others in.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return held


def _address(asked: str, port: socket.socket) -> str:
    """Return the address with the port that was really got."""
    return f"{asked.rpartition(':')[0]}:{port.getsockname()[1]}"


def _listen(address: str) -> socket.socket:
    listener = socket.socket(_family(address))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _bind(listener, address)
    listener.listen(_WAITING_MAX)
    return listener


def _bind(port: socket.socket, address: str) -> None:
    host, _, number = address.rpartition(":")
    try:
        port.bind((host.strip("[]"), int(number)))
    except OSError:
        port.close()
        raise


def _family(address: str) -> socket.AddressFamily:
    host, _, number = address.rpartition(":")
    return socket.getaddrinfo(host.strip("[]"), int(number), type=socket.SOCK_STREAM)[0][0]
