"""llama.cpp, a real engine, in a server of ASGI that reports by the middleware.

Its weights are drawn at random: what it says is noise, what it counts is real.
"""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import pytest

from tests.client.asgi_server import read_body, serving
from tests.running_meter import RunningMeter
from tests.stacks.gguf import write_gguf
from tests.stacks.recorded import recorded_events
from tests.wire.session import Session
from tokenworks.client import Meter, TokenClass
from tokenworks.client.asgi import AnswerCounts, Receive, Scope, Send, UsageMiddleware

pytestmark = pytest.mark.stacks
_LONG: Final = "once upon a time " * 20


class LlamaServer:
    """An app over the engine, as anybody would write it."""

    def __init__(self, engine: Any) -> None:  # noqa: ANN401 - it comes without types
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for a chat, or take no part in what is none."""
        if scope["type"] != "http":
            return
        asked = await read_body(receive)
        kind = b"text/event-stream" if asked.get("stream") else b"application/json"
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-type", kind)]})
        if not asked.get("stream"):
            answer = await asyncio.to_thread(self._engine.handle_chat_completions, asked)
            await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
            return
        async for chunk in self._chunks(asked):
            piece = f"data: {json.dumps(chunk)}\n\n".encode()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _chunks(self, asked: Mapping[str, Any]) -> AsyncIterator[object]:
        chunks: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def take(chunk: object) -> bool:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return False

        running = asyncio.to_thread(self._engine.handle_chat_completions, asked, take)
        task = asyncio.create_task(running)
        task.add_done_callback(lambda _: chunks.put_nowait(None))
        while (chunk := await chunks.get()) is not None:
            yield chunk
        await task


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - it has no types
    """The engine with a model in it."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_gguf(path)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.model_alias = {"tiny"}
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 2048, 1, 1
    parameters.warmup, parameters.verbosity = False, -1
    return xllamacpp.Server(parameters)


@pytest.fixture
def meter(running_meter: RunningMeter) -> Iterator[Meter]:
    """A client of a real meter, which knows the account."""
    Session(running_meter).create_account("acme")
    with Meter(
        running_meter.target, api_key=running_meter.api_key, producer="llama", source="asgi"
    ) as client:
        yield client


def test_answers__of_a_real_engine(
    engine: Any,  # noqa: ANN401 - it has no types
    meter: Meter,
    running_meter: RunningMeter,
) -> None:
    """What each answer said it used is what is counted, cached tokens as the engine knew them."""
    middleware = UsageMiddleware(LlamaServer(engine), meter=meter)
    with serving(middleware) as port:
        shown = {
            "body": ask(port, "body", _LONG),
            "body-again": ask(port, "body-again", _LONG),
            "stream": ask(port, "stream", "hello", stream=True),
        }
        without = ask(port, "not-asked", "hello", stream=True, options={})
    assert without is None
    assert middleware.counts == AnswerCounts(reported=3, without_usage=1)
    assert meter.flush(30)
    events = recorded_events(running_meter.database_url)
    assert {name: dict(event.tokens) for name, (event,) in events.items()} == {
        name: _classes(usage) for name, usage in shown.items() if usage is not None
    }
    assert TokenClass.CACHE_READ in events["body-again"][0].tokens
    assert events["stream"][0].model == "tiny"


def ask(
    port: int,
    name: str,
    prompt: str,
    *,
    stream: bool = False,
    options: Mapping[str, bool] | None = None,
) -> Mapping[str, Any] | None:
    """Ask for some tokens; returns the usage that the caller is shown."""
    body: dict[str, Any] = {
        "model": "tiny", "max_tokens": 7, "messages": [{"role": "user", "content": prompt}]
    }  # fmt: skip
    if stream:
        asked = {"include_usage": True} if options is None else options
        body |= {"stream": True, "stream_options": asked}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {
        "x-request-id": name, "x-tokenworks-account": "acme", "x-tokenworks-tier": "high"
    }  # fmt: skip
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    raw = connection.getresponse().read()
    connection.close()
    said = [json.loads(raw)] if not stream else [
        json.loads(line[5:]) for line in raw.splitlines() if line.startswith(b"data: {")
    ]  # fmt: skip
    usage: Mapping[str, Any] | None = said[-1].get("usage")
    return usage


def _classes(usage: Mapping[str, Any]) -> Mapping[int, int]:
    """Return the classes of a usage object, by arithmetic of the test's own."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    counts = {
        TokenClass.INPUT: usage["prompt_tokens"] - cached,
        TokenClass.CACHE_READ: cached,
        TokenClass.OUTPUT: usage["completion_tokens"],
    }
    return {int(token_class): count for token_class, count in counts.items() if count}
