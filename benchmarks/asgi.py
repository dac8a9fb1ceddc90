"""The row of the middleware: what `UsageMiddleware` adds to an answer of the server it stands in.

The same app is asked with and without it, in turn, in one event loop and without sockets: those
cost a hundred times as much, and their spread would hide it.
"""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import running_plant
from benchmarks.workload import MODELS, TIERS, account_name
from tokenworks.client import Meter
from tokenworks.client.asgi import AnswerCounts, App, Message, Receive, Scope, Send, UsageMiddleware

_NUMBERS = itertools.count()
_PROMPT_TOKENS, _GENERATED_TOKENS = 1_020, 211
_HEADERS = [
    (b"host", b"engine"),
    (b"content-type", b"application/json"),
    (b"x-tokenworks-account", account_name(0).encode()),
    (b"x-tokenworks-tier", TIERS[0].encode()),
]


def measure_overhead(seconds: float) -> Measurement:
    """Take the median of what each of many pairs of answers differ by, streams and bodies."""
    with running_plant() as plant:
        meter = Meter(plant.target, api_key=plant.api_key, producer="bench-asgi", source="asgi")
        streams = asyncio.run(_pairs(_stream, meter, seconds=0.7 * seconds))
        bodies = asyncio.run(_pairs(_body, meter, seconds=0.3 * seconds))
        assert meter.close(60)
        plant.wait_until_counted(seconds=60)
        counted = plant.query("SELECT sum(request_count) FROM usage")[0]
        check_answer(counted=counted, sent=len(streams) + len(bodies))
    added = sorted(wrapped - bare for bare, wrapped in streams)
    added_to_bodies = [wrapped - bare for bare, wrapped in bodies]
    return Measurement(
        value=statistics.median(added) / 1e6,
        bound=statistics.median(bare for bare, _ in streams) / 1e6,
        bound_of="ms at the median that the app takes by itself, JSON of each event included",
        workload=f"{len(streams)} pairs of a stream of {_GENERATED_TOKENS} events with usage in"
        f" each, {len(bodies)} of a body, without sockets, to a meter on this machine",
        notes={
            "p99_ms": added[int(0.99 * len(added))] / 1e6,
            "body_p50_ms": statistics.median(added_to_bodies) / 1e6,
            "event_p50_us": statistics.median(added) / 1e3 / _GENERATED_TOKENS,
        },
    )


async def _pairs(app: App, meter: Meter, *, seconds: float) -> Sequence[tuple[int, int]]:
    """Return how long answers take, bare and wrapped, in nanoseconds."""
    middleware = UsageMiddleware(app, meter=meter)
    pairs = []
    begin = time.perf_counter()
    while time.perf_counter() < begin + seconds:
        pairs.append((await _timed(app), await _timed(middleware)))
    check_answer(counted=middleware.counts, sent=AnswerCounts(reported=len(pairs)))
    return pairs


async def _timed(app: App) -> int:
    headers = [*_HEADERS, (b"x-request-id", b"bench-%d" % next(_NUMBERS))]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    before = time.perf_counter_ns()
    await app(scope, _receive, _send)
    return time.perf_counter_ns() - before


async def _receive() -> Message:
    return {"type": "http.request", "body": b"{}", "more_body": False}


async def _send(message: Message) -> None:
    """Take an answer's piece, as a server whose buffer has room does."""


async def _stream(_scope: Scope, receive: Receive, send: Send) -> None:
    await _start(b"text/event-stream", receive=receive, send=send)
    for generated in range(1, _GENERATED_TOKENS + 1):
        reason = "stop" if generated == _GENERATED_TOKENS else None
        chunk = _answer({"delta": {"content": " word"}, "finish_reason": reason}, generated)
        await _send_piece(send, f"data: {json.dumps(chunk)}\n\n", more=True)
    await _send_piece(send, "data: [DONE]\n\n", more=True)
    await _send_piece(send, "", more=False)


async def _body(_scope: Scope, receive: Receive, send: Send) -> None:
    await _start(b"application/json", receive=receive, send=send)
    message = {"role": "assistant", "content": " word" * _GENERATED_TOKENS}
    answer = _answer({"message": message, "finish_reason": "stop"}, _GENERATED_TOKENS)
    await _send_piece(send, json.dumps(answer), more=False)


async def _start(kind: bytes, *, receive: Receive, send: Send) -> None:
    await receive()
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send_piece(send: Send, text: str, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": more})


def _answer(choice: dict[str, Any], generated: int) -> dict[str, Any]:
    return {
        "id": "chatcmpl-2f1d7e0a-6f2c-4c56-9a6e-6f0f8e0f1f3a",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": MODELS[0],
        "choices": [{"index": 0, "logprobs": None, **choice}],
        "usage": {
            "prompt_tokens": _PROMPT_TOKENS,
            "completion_tokens": generated,
            "total_tokens": _PROMPT_TOKENS + generated,
        },
    }
