"""A connection that some producers of a site share, and the next one when it is of age."""

from collections import Counter
from collections.abc import Callable

import grpc

from cli.simulate.server import MeterAddress
from tokenworks.client.certificates import CertificateFiles
from tokenworks.client.connection import is_loopback


class Line:
    """The newest connection, and older ones that somebody still has a stream on.

    A meter ends streams in good order before it ends their connection. Who opened its next one on
    the same connection would be cut off with it.
    """

    def __init__(self, connect: Callable[[], grpc.aio.Channel]) -> None:
        """Take what makes a connection."""
        self._connect = connect
        self._newest = connect()
        self._streams: Counter[grpc.aio.Channel] = Counter()

    def take(self) -> grpc.aio.Channel:
        """Return the connection for a stream, which is given back with `leave`."""
        self._streams[self._newest] += 1
        return self._newest

    async def leave(self, channel: grpc.aio.Channel, *, is_of_age: bool) -> None:
        """Give a stream's connection back; no stream begins on one that `is_of_age`."""
        if is_of_age and channel is self._newest:
            self._newest = self._connect()
        self._streams[channel] -= 1
        if not self._streams[channel] and channel is not self._newest:
            del self._streams[channel]
            await channel.close()

    async def close(self) -> None:
        """End all connections."""
        for channel in {self._newest, *self._streams}:
            await channel.close()


def open_channel(meter: MeterAddress) -> grpc.aio.Channel:
    """Make a connection of its own to the meter."""
    options = [
        ("grpc.primary_user_agent", "tokenworks-simulate"),
        ("grpc.enable_http_proxy", int(not is_loopback(meter.target))),
        # Each has a connection of its own.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    if meter.insecure:
        return grpc.aio.insecure_channel(meter.target, options=options)
    files = CertificateFiles(
        ca=meter.ca_certificate,
        certificate=meter.client_certificate,
        key=meter.client_key,
    )
    pems = files.read()
    credentials = grpc.ssl_channel_credentials(pems.roots, pems.key, pems.chain)
    return grpc.aio.secure_channel(meter.target, credentials, options=options)
