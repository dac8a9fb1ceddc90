"""The server that asks for many calls at once, and hears of all events at one look."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # compiled

from meter.wire import accepting
from meter.wire.accepting import CALLS_AWAITED, AcceptingServer, make_server, read_together

_METHOD = "/test.Echo/Echo"


async def _echo(request: bytes, _context: Any) -> bytes:  # noqa: ANN401
    await asyncio.sleep(0)
    return request


@asynccontextmanager
async def _serving() -> AsyncIterator[tuple[grpc.aio.Server, Any]]:
    """Serve echoes, and yield the server and what calls it."""
    server = make_server(interceptors=(), options=())
    handler: Any = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield server, channel.unary_unary(_METHOD)
    await server.stop(None)


def test_serve__many_calls_at_once_have_their_answers() -> None:
    """More than are asked for at once."""

    async def call() -> list[bytes]:
        async with _serving() as (_, echo):
            return list(await asyncio.gather(*(echo(b"%d" % it) for it in range(300))))

    assert asyncio.run(call()) == [b"%d" % it for it in range(300)]


def test_serve__asks_for_as_many_calls_as_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """And for one more when one is taken, not when it comes: what is not taken is bounded."""
    asked = 0
    ask = vars(AcceptingServer.__mro__[1])["_request_call"]

    async def counting(server: Any) -> Any:  # noqa: ANN401
        nonlocal asked
        asked += 1
        return await ask(server)

    async def call() -> list[int]:
        async with _serving() as (_, echo):
            await asyncio.sleep(0)
            counts = [asked]
            for _ in range(3):
                await echo(b"")
                counts.append(asked)
            return counts

    monkeypatch.setattr(AcceptingServer, "_request_call", counting)

    first, *later = asyncio.run(call())

    assert first == CALLS_AWAITED
    assert later == [first + 1, first + 2, first + 3]


def test_stop__calls_that_were_not_taken_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are not waited for, as what is served is; of those that never came nothing is said."""
    count, come_count = 10, 0

    async def call() -> list[grpc.StatusCode]:
        have_come = asyncio.Event()

        def hold(_server: Any) -> None:  # noqa: ANN401
            nonlocal come_count
            come_count += 1
            if come_count == count:
                have_come.set()

        async with _serving() as (server, echo):
            monkeypatch.setattr(AcceptingServer, "_hand_on", hold)
            calls = [echo(b"") for _ in range(count)]
            await have_come.wait()
            async with asyncio.timeout(10):
                await server.stop(60)
            return [await it.code() for it in calls]

    with caplog.at_level(logging.ERROR):
        codes = asyncio.run(call())

    assert set(codes) <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
    assert not caplog.records


def test_read_together__many_wakes_are_one_look() -> None:
    """The last byte is left for gRPC, which takes one each time."""
    source, sink = socket.socketpair()
    readers: list[Callable[[], None]] = []
    looked: list[bytes] = []
    with source, sink:
        source.settimeout(0)
        read_together(
            lambda _, read: readers.append(read), source, lambda: looked.append(source.recv(9))
        )
        for wakes in (b"1", b"1" * 7):
            sink.send(wakes)
            readers[0]()

    assert looked == [b"1", b"1"]


def test_make_server__has_wakes_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is gRPC's own reader that is put behind this; the loop and gRPC are left as they were."""
    heard: list[Any] = []

    def noting(add: Any, source: Any, read: Any) -> None:  # noqa: ANN401
        heard.append(source)
        read_together(add, source, read)

    monkeypatch.setattr(accepting, "read_together", noting)
    bare = cygrpc.AioServer

    async def serve() -> None:
        make_server(interceptors=(), options=())
        assert "add_reader" not in vars(asyncio.get_running_loop())
        assert cygrpc.AioServer is bare

    asyncio.run(serve())

    assert len(heard) == 1
    assert isinstance(heard[0], socket.socket)
