"""An asyncio server that is kept busy, in this process: what `record` has to share Python with.

Each request is a JSON document that is parsed, worked on and answered, as a gateway does. The
requests come from a process of their own, which sends the next one as soon as it has an answer.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

_CONNECTIONS: Final = 8
_MESSAGES: Final = [{"role": "user", "content": "word " * 100} for _ in range(4)]
_REQUEST: Final = json.dumps({"model": "m", "messages": _MESSAGES}).encode() + b"\n"


@contextmanager
def busy_server() -> Iterator["BusyServer"]:
    """Serve and be asked, for the time of the block."""
    server = BusyServer()
    thread = Thread(target=lambda: asyncio.run(server.run()), name="asyncio-server")
    thread.start()
    server.started.wait()
    command = [sys.executable, "-m", "benchmarks.busy_server", str(server.port)]
    try:
        with subprocess.Popen(command) as load:
            try:
                yield server
            finally:
                load.kill()
    finally:
        server.stop()
        thread.join()


class BusyServer:
    """A server in an event loop of its own."""

    def __init__(self) -> None:
        self.started = Event()
        self.port = 0
        self.answered_count = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    async def run(self) -> None:
        """Serve until `stop`."""
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        self.started.set()
        await self._stopping.wait()
        server.close()

    def stop(self) -> None:
        """Have `run` return; from another thread."""
        assert self._loop is not None
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                asked = json.loads(line)
                texts = [message["content"].split() for message in asked["messages"]]
                lengths = [sum(map(len, words)) for words in texts]
                writer.write(json.dumps({"model": asked["model"], "lengths": lengths}).encode())
                writer.write(b"\n")
                await writer.drain()
                self.answered_count += 1
        except ConnectionError:
            pass
        finally:
            writer.close()


async def _ask(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(_REQUEST)
        await reader.readline()


async def _ask_all(port: int) -> None:
    await asyncio.gather(*(_ask(port) for _ in range(_CONNECTIONS)))


if __name__ == "__main__":
    asyncio.run(_ask_all(int(sys.argv[1])))
