"""gRPC's asyncio server, for many small calls: what it does for each is done for all that came.

What is changed are three things that it does for every call and that cost a small one as much as
what it brings. A version of gRPC that does them in another way is served by as it is.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # compiled

# So many calls may come between two looks of the loop without one waiting for the other's.
CALLS_AWAITED: Final = 32
# As many events as are heard of at one look.
_WAKES_READ_MAX: Final = 4096


def make_server(
    *, interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, Any]]
) -> grpc.aio.Server:
    """Return a server on the running loop; what serves is added as to any other."""
    loop: Any = asyncio.get_running_loop()
    bare = cygrpc.AioServer
    add_reader = loop.add_reader
    cygrpc.AioServer = AcceptingServer
    loop.add_reader = partial(read_together, add_reader)
    try:
        server = grpc.aio.server(interceptors=interceptors, options=options)
    finally:
        cygrpc.AioServer = bare
        del loop.add_reader
    # gRPC waits for a call of each method that is registered, and begins to wait for all of them
    # anew at every call. So every call is looked up by its name, whatever services are added.
    server.add_registered_method_handlers = lambda *_: None  # type: ignore[method-assign]
    return server


class AcceptingServer(cygrpc.AioServer):  # type: ignore[misc]  # of compiled code
    """Asks for many calls at once; gRPC asks for the next one when the last has reached the loop.

    A call that nobody has asked for waits in gRPC until the loop has taken the one before, several
    rounds of the loop and two turns of threads later.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._asked_count = 0
        self._came: deque[Any] = deque()
        self._next: asyncio.Future[Any] | None = None

    def _make_request_call_future(self, method_bytes: bytes | None) -> "asyncio.Future[Any]":
        """Return a future of the next call; gRPC asks when it has taken the last."""
        assert method_bytes is None, "no method is registered"
        loop = asyncio.get_running_loop()
        while self._asked_count < CALLS_AWAITED:
            self._asked_count += 1
            loop.create_task(self._request_call()).add_done_callback(self._take)
        self._next = loop.create_future()
        self._hand_on()
        return self._next

    async def shutdown(self, grace: float | None) -> None:
        """Stop; calls that were not taken end at once, as those do that nobody has asked for."""
        self._came = deque(maxlen=0)
        await super().shutdown(grace)

    def _take(self, asked: "asyncio.Task[Any]") -> None:
        if asked.cancelled():
            return
        fault = asked.exception()
        if fault is None:
            self._came.append(asked.result())
            self._hand_on()
            return
        # The server stops.
        self._asked_count -= 1
        if self._next is not None and not self._next.done():
            self._next.set_exception(fault)

    def _hand_on(self) -> None:
        if self._came and self._next is not None and not self._next.done():
            self._asked_count -= 1
            self._next.set_result(self._came.popleft())


def read_together(
    add_reader: Callable[..., None], source: socket.socket, read: Callable[[], None]
) -> None:
    """Hear of gRPC's events once for all that are there.

    Its thread writes a byte for each event. At the first one the loop takes all events, and then
    comes back for each further byte to find nothing.
    """

    def read_all() -> None:
        count = len(source.recv(_WAKES_READ_MAX, socket.MSG_PEEK))
        if count > 1:
            # All but the last, which `read` takes. An event is there before its byte is.
            source.recv(count - 1)
        read()

    add_reader(source, read_all)
