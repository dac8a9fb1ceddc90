"""A small OpenAI-compatible server that counts as vLLM does, and answers what its caller plans.

What an answer is to count stands in the prompt itself, since a prompt passes every gateway as it
is: `Plan.words` writes it, the server reads it. So whoever asks knows the truth before the request
leaves. Nothing is drawn by chance, and nothing waits for a time.
"""

import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Final

_WORD: Final = re.compile(r"\b([a-z]+)=([0-9]+)\b")
_HOLD_SECONDS_MAX: Final = 60
_RESPONSES: Final = "/v1/responses"
_MESSAGES: Final = "/v1/messages"
_PATHS: Final = {
    "/v1/chat/completions": "chatcmpl",
    "/v1/completions": "cmpl",
    _RESPONSES: "resp",
    _MESSAGES: "msg",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one answer is to be: `prompt` includes `cached`, `completion` includes `reasoning`.

    A stream comes in `chunks` pieces and, where `hold` > 0, stops after so many until its caller is
    gone. `status` other than 200 is an error without usage.
    """

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0
    chunks: int = 4
    hold: int = 0
    status: int = 200

    @property
    def words(self) -> str:
        """The prompt that asks for it."""
        return " ".join(f"{each.name}={getattr(self, each.name)}" for each in fields(self))

    @classmethod
    def read(cls, text: str) -> "Plan":
        """Read what `words` wrote, wherever it stands in a prompt; small counts without any."""
        known = {each.name for each in fields(cls)}
        found = {name: int(count) for name, count in _WORD.findall(text) if name in known}
        return cls(**({"prompt": 8, "completion": 3} | found))

    def generated_after(self, chunk_count: int) -> int:
        """Tokens that are generated when so many chunks are sent."""
        return self.completion * chunk_count // self.chunks

    @property
    def response_usage(self) -> dict[str, Any]:
        """The usage object of a response."""
        return {
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.completion,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.prompt + self.completion,
        }

    def usage(self, *, generated: int | None = None) -> dict[str, Any]:
        """The usage object: at the end with its details, under way (`generated`) without them."""
        completion = self.completion if generated is None else generated
        counts: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + completion,
            "completion_tokens": completion,
        }
        if generated is None:
            counts["prompt_tokens_details"] = {"cached_tokens": self.cached}
            counts["completion_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came in; header names are lower case."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class OpenAiServer:
    """A running server; its fields may be changed between requests.

    `continuous` is vLLM's `--enable-force-include-usage`: usage in every chunk, asked for or not.
    `details` is `--enable-prompt-tokens-details`. A `response_id` that is set is the same for all.
    `failing` is a status that every request gets; 0 ends its connection without an answer.
    """

    address: str
    continuous: bool = True
    details: bool = True
    response_id: str | None = None
    failing: int | None = None
    asked: list[Asked] = field(default_factory=list)
    aborted: list[Asked] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])

    @property
    def url(self) -> str:
        """What an OpenAI client takes as its base."""
        return f"http://{self.address}/v1"

    def note(self, asked: Asked, *, is_aborted: bool = False) -> None:
        """Keep a request."""
        with self._lock:
            (self.aborted if is_aborted else self.asked).append(asked)

    def shown(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return a usage object as this server shows it."""
        if not self.details:
            usage.pop("prompt_tokens_details", None)
        return usage


@contextmanager
def running_openai_server(
    *, continuous: bool = True, details: bool = True
) -> Iterator[OpenAiServer]:
    """A server on a free port of this machine, for the time of the block."""
    listener = _Listener(("127.0.0.1", 0), _Handler)
    server = OpenAiServer(
        address=f"127.0.0.1:{listener.server_port}", continuous=continuous, details=details
    )
    listener.state = server
    thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    state: OpenAiServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: callers that break off are what it is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A chunk leaves at once.
    disable_nagle_algorithm = True
    server: _Listener

    def do_GET(self) -> None:
        """Answer who asks for models, or whether it lives."""
        self._send_json(200, {"object": "list", "data": [{"id": "llama-70b", "object": "model"}]})

    def do_POST(self) -> None:
        """Answer a request for a completion."""
        state = self.server.state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(path=self.path, headers=headers, body=body)
        state.note(asked)
        plan = Plan.read(_prompt_of(body))
        status = plan.status if state.failing is None else state.failing
        if self.path not in _PATHS:
            status = 404
        if status == 0:
            self.close_connection = True
        elif status != 200:
            self._send_json(status, {"error": {"message": "as planned", "code": status}})
        elif body.get("stream"):
            self._stream(asked, plan)
        else:
            self._answer(asked, plan)

    def _answer(self, asked: Asked, plan: Plan) -> None:
        state = self.server.state
        if asked.path == _RESPONSES:
            self._send_json(200, self._response(asked, plan, is_done=True))
            return
        if asked.path == _MESSAGES:
            self._send_json(200, _message(asked, plan))
            return
        choice = {"index": 0, "finish_reason": "stop", **_part(asked.path, "word " * plan.chunks)}
        self._send_json(
            200,
            {
                **self._head(asked, is_chunk=False),
                "choices": [choice],
                "usage": state.shown(plan.usage()),
            },
        )

    def _stream(self, asked: Asked, plan: Plan) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            if asked.path == _RESPONSES:
                self._send_events(asked, plan)
            else:
                for chunk in self._chunks(asked, plan):
                    self._send_chunk(f"data: {chunk}\n\n")
                self._send_chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except (_Gone, OSError):
            self.close_connection = True
            self.server.state.note(asked, is_aborted=True)

    def _send_events(self, asked: Asked, plan: Plan) -> None:
        """Stream a response, which has its usage in its last event alone."""
        begun = self._response(asked, plan, is_done=False)
        ended = self._response(asked, plan, is_done=True) | {"id": begun["id"]}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            *[{"type": "response.output_text.delta", "delta": "word "}] * plan.chunks,
            {"type": "response.completed", "response": ended},
        ]
        for place, event in enumerate(events):
            self._send_chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")
            if place == plan.hold > 0:
                self._wait_until_gone()

    def _response(self, asked: Asked, plan: Plan, *, is_done: bool) -> dict[str, Any]:
        state = self.server.state
        text = {"type": "output_text", "text": "word " * plan.chunks, "annotations": []}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
        return {
            # Of its own, or its caller's choice, whatever the edge calls the request.
            "id": state.response_id
            or asked.body.get("request_id")
            or f"resp_{len(state.asked):032x}",
            "object": "response",
            "created_at": 1_790_000_000,
            "model": asked.body.get("model", ""),
            "status": "completed" if is_done else "in_progress",
            "output": [{**message, "content": [text]}] if is_done else [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": plan.response_usage if is_done else None,
        }

    def _chunks(self, asked: Asked, plan: Plan) -> Iterator[str]:
        state = self.server.state
        options = asked.body.get("stream_options") or {}
        continuous = state.continuous or options.get("continuous_usage_stats")
        head = self._head(asked, is_chunk=True)
        for place in range(1, plan.chunks + 1):
            reason = "stop" if place == plan.chunks else None
            choice = {"index": 0, "finish_reason": reason, **_part(asked.path, "word ", "delta")}
            chunk = {**head, "choices": [choice]}
            if continuous:
                chunk["usage"] = plan.usage(generated=plan.generated_after(place))
            yield json.dumps(chunk)
            if place == plan.hold:
                self._wait_until_gone()
        if state.continuous or options.get("include_usage"):
            yield json.dumps({**head, "choices": [], "usage": state.shown(plan.usage())})

    def _wait_until_gone(self) -> None:
        self.connection.settimeout(_HOLD_SECONDS_MAX)
        if not self.connection.recv(1, socket.MSG_PEEK):
            raise _Gone

    def _head(self, asked: Asked, *, is_chunk: bool) -> dict[str, Any]:
        prefix = _PATHS[asked.path]
        own = self.server.state.response_id
        kind = "chat.completion" if prefix == "chatcmpl" else "text_completion"
        return {
            "id": own or f"{prefix}-{asked.headers.get('x-request-id', 'none')}",
            "object": f"{kind}.chunk" if is_chunk and prefix == "chatcmpl" else kind,
            "created": 1_790_000_000,
            "model": asked.body.get("model", ""),
        }

    def _send_chunk(self, text: str) -> None:
        raw = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))

    def _send_json(self, status: int, answer: Mapping[str, Any]) -> None:
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


class _Gone(Exception):
    """The caller has left."""


def _message(asked: Asked, plan: Plan) -> dict[str, Any]:
    """Return a message in one piece, whose input has no cached tokens in it."""
    return {
        "id": f"chatcmpl-{asked.headers.get('x-request-id', 'none')}",
        "type": "message",
        "role": "assistant",
        "model": asked.body.get("model", ""),
        "content": [{"type": "text", "text": "word " * plan.chunks}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": plan.prompt - plan.cached,
            "cache_read_input_tokens": plan.cached,
            "cache_creation_input_tokens": None,
            "output_tokens": plan.completion,
        },
    }


def _prompt_of(body: Mapping[str, Any]) -> str:
    messages = body.get("messages")
    if not messages:
        return str(body.get("prompt", body.get("input", "")))
    return " ".join(json.dumps(each.get("content")) for each in messages)


def _part(path: str, text: str, kind: str = "message") -> dict[str, Any]:
    if _PATHS[path] == "cmpl":
        return {"text": text}
    return {kind: {"role": "assistant", "content": text}}
