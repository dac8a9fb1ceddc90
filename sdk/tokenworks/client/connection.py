"""One call of StreamUsage: bytes out, messages in, each way over a queue."""

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from queue import SimpleQueue
from threading import Thread
from typing import Final, Protocol, TypeAlias, cast

import grpc

from tokenworks.client.certificates import KeptCertificates
from tokenworks.client.messages import Message, read_response
from tokenworks.client.retry import BROKEN, ENDED, Failure
from tokenworks.client.status import failure_from_error
from tokenworks.meter.v1.meter_service_pb2 import StreamUsageResponse

with suppress(ImportError):
    # gRPC imports this with the first channel, on our thread. A process that is forked at that
    # moment would have half of a module for good.
    import_module("grpc._channel")

Interceptor: TypeAlias = grpc.StreamStreamClientInterceptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the meter is, and how to speak to it."""

    target: str
    """`host:port` or any other gRPC target."""
    api_key: str | None = field(repr=False)
    """None: the certificate says who it is."""
    root_certificates: bytes | None = None
    """PEM; None takes the roots that gRPC knows."""
    certificates: KeptCertificates | None = None
    """From files; their roots go before `root_certificates`."""
    insecure: bool = False
    """No TLS to a host that is not this one."""
    interceptors: Sequence[Interceptor] = ()

    @property
    def is_plaintext(self) -> bool:
        """Whether there is no TLS: on the loopback, or where it was asked for."""
        is_told = self.root_certificates is not None or self.certificates is not None
        return not is_told and (self.insecure or is_loopback(self.target))

    def channel(self) -> grpc.Channel:
        """Make a channel; nothing is connected yet."""
        options = [
            ("grpc.primary_user_agent", "tokenworks-client"),
            # A proxy of the environment is no way to reach this very machine.
            ("grpc.enable_http_proxy", int(not is_loopback(self.target))),
            # Ours is the backoff; the channel's own, of up to two minutes, would come on top.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # A new channel is a new connection, with the certificates of now.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self.is_plaintext:
            channel = grpc.insecure_channel(self.target, options=options)
        else:
            channel = grpc.secure_channel(self.target, self._credentials(), options=options)
        return grpc.intercept_channel(channel, *self.interceptors)

    def _credentials(self) -> grpc.ChannelCredentials:
        if self.certificates is None:
            return grpc.ssl_channel_credentials(self.root_certificates)
        pems = self.certificates.current
        return grpc.ssl_channel_credentials(
            pems.roots or self.root_certificates, pems.key, pems.chain
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message of the meter on a connection."""

    connection: "Connection"
    message: Message | None
    """None is a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A connection is gone, or could not be made."""

    connection: "Connection | None"
    """None where none was made."""
    failure: Failure


class Connection:
    """A running call. What it hears goes to `deliver`, from a thread of its own.

    Raises RuntimeError where the process has no room for another thread; the channel may be of no
    more use then.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        api_key: str | None,
        deliver: Callable[[Received | Ended], None],
    ) -> None:
        self._deliver = deliver
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        rpc: grpc.StreamStreamMultiCallable[bytes, StreamUsageResponse] = channel.stream_stream(
            _METHOD,
            # Batches are kept as bytes, so there is nothing left to serialise.
            request_serializer=None,
            response_deserializer=StreamUsageResponse.FromString,
        )
        bearer = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        call = rpc(self._requests(), metadata=bearer)
        self._call = cast("_Call", call)
        self._reader = Thread(target=self._read, name="tokenworks-reader", daemon=True)
        try:
            self._reader.start()
        except RuntimeError:
            self.cut()
            raise

    def send(self, message: bytes) -> None:
        """Send a serialised StreamUsageRequest; returns at once."""
        self._outbox.put(message)

    def finish(self, *, timeout_seconds: float) -> None:
        """Say that no more will come, wait for the meter to end the call, else cut it."""
        self._outbox.put(None)
        self._reader.join(timeout_seconds)
        self._call.cancel()

    def cut(self) -> None:
        """End the call at once; one that has ended already is let go."""
        # Lets gRPC's own thread go, which waits for our next message.
        self._outbox.put(None)
        self._call.cancel()

    def _requests(self) -> Iterator[bytes]:
        return iter(self._outbox.get, None)

    def _read(self) -> None:
        failure = BROKEN
        try:
            for response in self._call:
                self._deliver(Received(connection=self, message=read_response(response)))
            failure = ENDED
        except grpc.RpcError as error:
            failure = failure_from_error(error)
        finally:
            self._deliver(Ended(connection=self, failure=failure))


def is_loopback(target: str) -> bool:
    """Whether a gRPC target can only be this machine."""
    scheme, _, rest = target.rpartition("://")
    if not scheme:
        scheme, colon, rest = target.partition(":")
        if not colon or scheme not in ("ipv4", "ipv6", "dns", "unix", "unix-abstract"):
            scheme, rest = "", target
    if scheme.startswith("unix"):
        return True
    host = rest.rpartition("/")[2]
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_METHOD: Final = "/tokenworks.meter.v1.MeterService/StreamUsage"


class _Call(Protocol):
    """What a call of gRPC is to us."""

    def __iter__(self) -> Iterator[StreamUsageResponse]: ...

    def cancel(self) -> bool: ...
