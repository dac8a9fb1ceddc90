"""Envoy's access log service: streams of entries, to which no answer is ever given.

Envoy sends none of it again: what was read is held here until it is recorded, and a stream that
has to end does so after a message, when Envoy most likely has nothing under way.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from meter.domain.credential import Credential
from meter.domain.limits import OBSERVED_AT_ONCE_MAX
from meter.sources.envoy import PROFILE, read
from meter.sources.observation import Source, sort_out
from meter.sources.places import Places
from meter.wire.door import RegistryDoor
from meter.wire.held import HeldReports
from meter.wire.observed import ObservedIntake
from meter.wire.status import readable, unreadable
from meter.wire.stream import StreamParts, draw_life
from meter.wire.unreadable import UnreadableReports
from tokenworks.foreign.envoy.v1 import access_log_pb2 as pb

SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# How long a stream that is to end waits for one more message: Envoy sends each second.
_QUIET_SECONDS: Final = 1.5
# How long a server that stops waits for what is held to be recorded.
_DRAIN_SECONDS: Final = 3.0


class EnvoyServicer:
    """Takes the access logs of Envoys under the name and the messages that Envoy has for it."""

    def __init__(
        self,
        intake: ObservedIntake,
        *,
        parts: StreamParts,
        places: Places,
        faults: UnreadableReports,
        door: RegistryDoor,
    ) -> None:
        """Take where reports go, and where the entries have what."""
        self._held = HeldReports(
            intake, source=Source.ENVOY, profile=PROFILE, metrics=parts.metrics
        )
        self._parts = parts
        self._places = places
        self._faults = faults
        self._door = door
        self._stopping = asyncio.Event()
        self._streams: set[asyncio.Task[None]] = set()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register it; a stream is answered once, at its end."""
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self._serve, response_serializer=pb.AccessLogAnswer.SerializeToString
        )
        handlers = {"StreamAccessLogs": handler}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])

    async def stop(self) -> None:
        """End the streams and record what is held, within seconds; the rest is lost and told of."""
        self._stopping.set()
        if self._streams:
            await asyncio.wait(self._streams, timeout=2 * _QUIET_SECONDS)
        await self._held.drain(seconds=_DRAIN_SECONDS)

    async def _serve(self, requests: AsyncIterator[Any], context: _Context) -> None:
        stream = _Stream(self, context)
        reading = asyncio.create_task(stream.read(requests))
        self._streams.add(reading)
        stopping = asyncio.create_task(self._stopping.wait())
        life_seconds = draw_life(self._parts.life_seconds)
        try:
            await asyncio.wait(
                (reading, stopping), timeout=life_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            stream.is_ending = True
            await asyncio.wait((reading,), timeout=_QUIET_SECONDS)
            if reading.done():
                reading.result()
            await context.write(pb.AccessLogAnswer())
        finally:
            reading.cancel()
            stopping.cancel()
            self._streams.discard(reading)

    async def take(
        self, message: pb.AccessLogMessage, *, node: str, credential: Credential
    ) -> None:
        """Hold what a message reports, however large it is, with others' turns between."""
        entries = message.http_logs.log_entry
        now_ms = self._parts.clock.now_ms()
        for first in range(0, len(entries), OBSERVED_AT_ONCE_MAX):
            some = entries[first : first + OBSERVED_AT_ONCE_MAX]
            observations, faults = sort_out(
                read(some, node=node, places=self._places, received_ms=now_ms)
            )
            self._faults.note(Source.ENVOY, faults)
            self._held.hold(observations, credential=credential)
            await asyncio.sleep(0)

    async def wait_for_room(self) -> None:
        """Return when more may be read."""
        await self._held.wait_for_room()

    def again(self, context: _Context) -> Credential:
        """Return who calls, looked up anew; raises Unauthenticated, PermissionDenied."""
        return self._door.again(context)


class _Stream:
    """One Envoy's stream, of one of its threads; `is_ending` ends it with its next message."""

    def __init__(self, servicer: EnvoyServicer, context: _Context) -> None:
        self._servicer = servicer
        self._context = context
        self._node = ""
        self.is_ending = False

    async def read(self, requests: AsyncIterator[Any]) -> None:
        """Read until the stream's end."""
        async for item in requests:
            try:
                message = pb.AccessLogMessage.FromString(readable(item))
            except DecodeError as error:
                raise unreadable() from error
            if message.HasField("identifier"):
                self._node = message.identifier.node.id
            credential = self._servicer.again(self._context)
            await self._servicer.take(message, node=self._node, credential=credential)
            if self.is_ending:
                return
            await self._servicer.wait_for_room()
