"""A TCP proxy that does to connections what networks do: cut, swallow, freeze, delay, throttle."""

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

_CHUNK_BYTES: Final = 16_384
_NO_LINGERING: Final = struct.pack("ii", 1, 0)
_START_SECONDS_MAX: Final = 10
UP: Final = "up"
DOWN: Final = "down"


@dataclass(eq=False, slots=True)
class _Link:
    """One connection with its continuation, and whether bytes of it are missing."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    is_torn: bool = False

    def abort(self, *, reset: bool = False) -> None:
        """End both ends at once; with a reset, what was under way is gone too."""
        for writer in (self.near, self.far):
            if reset and not writer.transport.is_closing():
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING
                )
            writer.transport.abort()


@dataclass(slots=True)
class Mischief:
    """What is done to bytes now; all may be set at any time, from any thread."""

    frozen: bool = False
    """Nothing is read or written, and nothing closed: a partition, or a half-open peer."""
    refusing: bool = False
    """New connections are reset."""
    swallows: set[str] = field(default_factory=set)
    """Directions whose bytes vanish."""
    cuts: dict[str, int] = field(default_factory=dict)
    """By direction: so many more chunks are cut in half, with their connection."""
    delays: dict[str, float] = field(default_factory=dict)
    """By direction: seconds that each chunk takes longer."""
    bytes_per_second: int = 0
    """For each direction; 0 means as fast as it goes."""


class Proxy:
    """Listens on a port of its own and passes on to `target`, which may change.

    With `spares` it deals connections out to all of them in turn, as a load balancer does; who
    cannot be reached is passed over.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.spares: list[str] = []
        self._turn = 0
        self.mischief = Mischief()
        self.swallowed_bytes = 0
        self.cut_count = 0
        self.passed_bytes = 0
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._listener.getsockname()[1]
        self._throttles = {UP: asyncio.Lock(), DOWN: asyncio.Lock()}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(_START_SECONDS_MAX)

    @property
    def address(self) -> str:
        """Where it listens, host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def link_count(self) -> int:
        """Connections that stand now."""
        return len(self._links)

    def cut(self) -> int:
        """Reset every connection; returns how many there were."""
        return asyncio.run_coroutine_threadsafe(self._cut(only_torn=False), self._loop).result()

    def heal(self) -> None:
        """Pass everything on again; connections whose bytes are missing are reset."""
        self.mischief = Mischief()
        asyncio.run_coroutine_threadsafe(self._cut(only_torn=True), self._loop).result()

    def close(self) -> None:
        """End it with all its connections."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        serving = asyncio.start_server(self._serve, sock=self._listener)
        self._server = self._loop.run_until_complete(serving)
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()
        self._server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _cut(self, *, only_torn: bool) -> int:
        chosen = [link for link in self._links if link.is_torn or not only_torn]
        for link in chosen:
            link.abort(reset=True)
        self.cut_count += len(chosen)
        return len(chosen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mischief.refusing:
            writer.transport.abort()
            return
        await self._thaw()
        far = await self._connect()
        if far is None:
            writer.transport.abort()
            return
        far_reader, far_writer = far
        link = _Link(writer, far_writer)
        self._links.add(link)
        try:
            # Cancelled only when the proxy ends, which nobody has to be told.
            with suppress(asyncio.CancelledError):
                await asyncio.gather(
                    self._pump(link, reader, far_writer, direction=UP),
                    self._pump(link, far_reader, writer, direction=DOWN),
                )
        finally:
            link.abort()
            self._links.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        targets = [self.target, *self.spares]
        self._turn += 1
        for place in range(len(targets)):
            host, _, port = targets[(self._turn + place) % len(targets)].rpartition(":")
            with suppress(OSError):
                return await asyncio.open_connection(host, int(port))
        return None

    async def _pump(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        direction: str,
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._thaw()
                if direction in self.mischief.swallows:
                    self.swallowed_bytes += len(chunk)
                    link.is_torn = True
                    continue
                if self.mischief.cuts.get(direction):
                    self.mischief.cuts[direction] -= 1
                    self.cut_count += 1
                    # Half of it arrives before the end, so that the peer holds a torn message.
                    writer.write(chunk[: len(chunk) // 2])
                    with suppress(TimeoutError):
                        await asyncio.wait_for(writer.drain(), 1)
                    break
                await self._dawdle(len(chunk), direction=direction)
                writer.write(chunk)
                self.passed_bytes += len(chunk)
                await writer.drain()
        link.abort()

    async def _thaw(self) -> None:
        while self.mischief.frozen:  # noqa: ASYNC110 - set from other threads
            await asyncio.sleep(0.02)

    async def _dawdle(self, size_bytes: int, *, direction: str) -> None:
        if self.mischief.delays.get(direction):
            await asyncio.sleep(self.mischief.delays[direction])
        if self.mischief.bytes_per_second:
            async with self._throttles[direction]:
                await asyncio.sleep(size_bytes / self.mischief.bytes_per_second)
