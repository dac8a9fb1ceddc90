"""What a client keeps and says of requests has neither prompts nor answers in it."""

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.wire import marked
from tests.wire.marked import mark
from tokenworks.client import Meter
from tokenworks.client.asgi import Message, Receive, Scope, Send, UsageMiddleware
from tokenworks.client.litellm import TokenworksLogger
from tokenworks.client.profiles import PROFILES

USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 4,
    "input_tokens": 10,
    "output_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": None, "text": mark("details")},
    "input_tokens_details": {"cached_tokens": 1, mark("deep"): {"text_tokens": mark("count")}},
    "iterations": [{"type": mark("type"), "input_tokens": 1, "output_tokens": 1}, mark("part")],
    "total_tokens": mark("total"),
    "text": mark("usage"),
    mark("key"): 1,
}
CHUNK = {"model": "m", "choices": [{"delta": {"content": mark("delta")}}], "usage": USAGE}
ANSWER = {"model": "m", "choices": [{"message": {"content": mark("answer")}}], "usage": USAGE}
JSON, EVENTS = b"application/json", b"text/event-stream"
BODIES: list[tuple[bytes, Sequence[bytes]]] = [
    (JSON, [json.dumps(ANSWER).encode()]),
    (EVENTS, [f"data: {json.dumps(CHUNK)}\n\n".encode(), b"data: [DONE]\n\n"]),
    (JSON, [json.dumps({**ANSWER, "usage": mark("usage")}).encode()]),
    (JSON, [json.dumps({**ANSWER, "usage": {"prompt_tokens": mark("count")}}).encode()]),
    (JSON, [f'{{"{mark("torn")}'.encode()]),
    (EVENTS, [f"data: {{{mark('torn')}\n\n".encode()]),
]
HEADERS = [
    (b"x-tokenworks-account", b"acme"),
    (b"x-tokenworks-tier", b"high"),
    (b"authorization", mark("authorization").encode()),
    (b"cookie", mark("cookie").encode()),
]
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


def test_spool__has_no_prompts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests that a middleware and a logger saw are on the disk, without a word of theirs."""
    caplog.set_level(logging.DEBUG)
    spool = tmp_path / "spool"
    client = Meter("127.0.0.1:1", api_key="tw_x", spool=spool, source="asgi", fsync="event")
    asyncio.run(serve_all(UsageMiddleware(answer, meter=client)))
    logger = TokenworksLogger(meter=client)
    for record in marked.litellm_records("1", "acme"):
        said = {"standard_logging_object": record}
        asyncio.run(logger.async_log_success_event(said, None, None, None))
    assert logger.counts.reported
    assert logger.counts.unreadable
    for profile in PROFILES:
        client.record(usage=USAGE, profile=profile, account="acme", request_id=profile)
    assert client.close(timeout_seconds=0)
    files = [path.read_bytes() for path in spool.rglob("*") if path.is_file()]
    kept = b"\n".join(map(marked.readable, files))
    for named in (b"acme", b'"prompt_tokens"', *(f'"{it}"'.encode() for it in PROFILES)):
        assert named in kept
    assert marked.MARK.encode() not in kept
    assert marked.MARK not in caplog.text


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what stands in the scope."""
    await receive()
    kind, pieces = scope["answer"]
    headers = [(b"content-type", kind), (b"x-answer", mark("header").encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def serve_all(app: UsageMiddleware) -> None:
    """Ask for each answer at each endpoint."""

    async def receive() -> Message:
        body = json.dumps({"model": "m", "messages": [{"content": mark("prompt")}]}).encode()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        del message

    for path in PATHS:
        for answered in BODIES:
            scope: Scope = {
                "type": "http", "method": "POST", "path": path, "headers": HEADERS, "state": {},
                "query_string": mark("query").encode(), "answer": answered,
            }  # fmt: skip
            await app(scope, receive, send)
