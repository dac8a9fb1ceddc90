"""An inference server in ASGI, served by uvicorn over real sockets: what the middleware stands in.

It answers as `tests.stacks.openai_server` does: what an answer is to count stands in the prompt.
"""

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Thread
from types import SimpleNamespace
from typing import Any, Final

import uvicorn

from tests.stacks.openai_server import Plan
from tokenworks.client.asgi import App, Message, Receive, Scope, Send

_JSON: Final = [(b"content-type", b"application/json")]
_EVENTS: Final = [(b"Content-Type", b"text/event-stream; charset=utf-8")]


@dataclass(slots=True, kw_only=True)
class Engine:
    """The app. `continuous` has usage in every chunk, `asked` in the last one.

    `knows_usage` has it leave its counts in the scope, as vLLM does; `headers` go with each answer;
    `fault` is raised instead of a stream's end; `status` is that of each answer.
    """

    continuous: bool = True
    asked: bool = True
    knows_usage: bool = False
    headers: Sequence[tuple[bytes, bytes]] = ()
    fault: Exception | None = None
    status: int = 200
    headers_heard: list[dict[str, str]] = field(default_factory=list)

    @property
    def request_ids(self) -> list[str]:
        """The ids of the requests that it heard of, empty for one without."""
        return [each.get("x-request-id", "") for each in self.headers_heard]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        body = await read_body(receive)
        self.headers_heard.append(
            {name.decode(): value.decode() for name, value in scope["headers"]}
        )
        plan = Plan.read(json.dumps(body))
        if body.get("stream"):
            await self._stream(plan, receive=receive, send=send)
        else:
            await self._answer(plan, receive=receive, send=send)
        if self.knows_usage:
            usage = SimpleNamespace(**plan.usage(generated=plan.completion))
            scope["state"]["request_metadata"] = SimpleNamespace(final_usage_info=usage)
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, plan: Plan, *, receive: Receive, send: Send) -> None:
        if plan.hold:
            await _wait_until_left(receive)
            return
        answer: dict[str, Any] = {"model": "llama-70b", "choices": [{"finish_reason": "stop"}]}
        if self.asked:
            answer["usage"] = plan.usage()
        await self._start(send, _JSON)
        await send(_body(json.dumps(answer)))

    async def _stream(self, plan: Plan, *, receive: Receive, send: Send) -> None:
        await self._start(send, _EVENTS)
        head: dict[str, Any] = {"model": "llama-70b"}
        for place in range(1, plan.chunks + 1):
            reason = "length" if place == plan.chunks else None
            choice = {"delta": {"content": 'a "usage": {"lie": 1}'}, "finish_reason": reason}
            chunk: dict[str, Any] = {**head, "choices": [choice], "usage": None}
            if self.continuous:
                chunk["usage"] = plan.usage(generated=plan.generated_after(place))
            await send(_body(f"data: {json.dumps(chunk)}\n\n"))
            if place == plan.hold and self.fault is not None:
                raise self.fault
            if place == plan.hold:
                await _wait_until_left(receive)
                raise asyncio.CancelledError
        if self.asked:
            last = {**head, "choices": [], "usage": plan.usage()}
            await send(_body(f"data: {json.dumps(last)}\n\n"))
        await send(_body("data: [DONE]\n\n"))

    async def _start(self, send: Send, headers: Sequence[tuple[bytes, bytes]]) -> None:
        start = {"type": "http.response.start", "status": self.status}
        await send({**start, "headers": [*headers, *self.headers]})


class Stage:
    """A server whose app can be changed between requests: starting one takes a quarter of a second.

    `settle` waits until no request is being served.
    """

    def __init__(self) -> None:
        self.app: App = Engine()
        self.port = 0
        self._changed = Condition()
        self._asked_count = self._served_count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                with self._changed:
                    self._served_count += 1
                    self._changed.notify_all()

    def ask(self, plan: Plan, **asked: Any) -> bytes:  # noqa: ANN401 - as `ask` has them
        """Ask as `ask` does, and wait until the app is done with it."""
        answered = ask(self.port, plan, **asked)
        self.settle()
        return answered

    def settle(self) -> None:
        """Wait until the app is done with one more request."""
        self._asked_count += 1
        with self._changed:
            assert self._changed.wait_for(lambda: self._served_count == self._asked_count, 30)


@contextmanager
def serving(app: App) -> Iterator[int]:
    """Serve an app on a free port, for the time of the block; tells the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, http="h11", ws="none", lifespan="on", log_level="critical")
    )
    # It listens already: who comes before the server has started waits in its queue.
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def ask(
    port: int,
    plan: Plan,
    *,
    stream: bool,
    path: str = "/v1/chat/completions",
    headers: Mapping[str, str] | None = None,
    leave_after: bytes = b"",
) -> bytes:
    """Ask, and return all that was answered; with `leave_after`, hang up once that has come."""
    body = json.dumps({"prompt": plan.words, "stream": stream}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        answered = b""
        while piece := connection.recv(65536):
            answered += piece
            if leave_after and answered.count(leave_after) >= plan.hold:
                break
    return answered


async def read_body(receive: Receive) -> dict[str, Any]:
    """Return what was asked, a JSON object."""
    raw = b""
    while True:
        message = await receive()
        raw += message.get("body", b"")
        if not message.get("more_body"):
            read: dict[str, Any] = json.loads(raw)
            return read


def _body(text: str) -> Message:
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}


async def _wait_until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
