"""`UsageMiddleware`: reports what an ASGI server answers, without touching it.

    vllm serve MODEL --middleware tokenworks.client.asgi.UsageMiddleware

Each piece of an answer passes first and is looked at afterwards; none is held back or changed. A
fault in here never reaches the server: it is counted, and the request goes on unmetered.
"""

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from tokenworks.client import limits
from tokenworks.client.answers import (
    EMBEDDINGS,
    PROFILES_BY_PATH,
    UNREADABLE,
    Answer,
    AnswerReader,
    with_no_output,
)
from tokenworks.client.asgi_settings import read_callers, read_environment
from tokenworks.client.attribution import REQUEST_ID, Attributed, Attribution, Caller
from tokenworks.client.clock import monotonic, new_request_id
from tokenworks.client.foreign import Unfit, guarded
from tokenworks.client.meter import Meter
from tokenworks.client.report import Details
from tokenworks.client.trace_context import named
from tokenworks.client.vocabulary import Finish, Quality

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["AnswerCounts", "Caller", "UsageMiddleware", "read_callers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCounts:
    """What became of the requests of metered paths; answers with an error status are left out.

    All but `reported` are not billed, whatever the engine did for them.
    """

    reported: int = 0
    """Handed to the client, whose `statistics` go on from here."""
    without_usage: int = 0
    """No usage object in it, perhaps because the caller left before the first one came."""
    compressed: int = 0
    """Its bytes cannot be read in passing."""
    unreadable: int = 0
    """No JSON, or too long."""
    faults: int = 0
    """A fault of this middleware, or a scope that is not as ASGI says."""


class UsageMiddleware:
    """Reports each answered request of the paths in `PROFILES_BY_PATH` to a meter.

    With the app alone, as a server constructs it that was only told its name, all else comes from
    the environment (`TOKENWORKS_SERVER`, …), and the meter is closed when the server shuts down.
    """

    def __init__(
        self,
        app: App,
        *,
        meter: Meter | None = None,
        model: str = "",
        callers: Mapping[str, Caller] | None = None,
        account_header: str = "x-tokenworks-account",
        tier_header: str = "x-tokenworks-tier",
    ) -> None:
        """Prepare; raises ValueError where the environment or an argument makes no sense.

        `meter`: made with `source="asgi"`, and closed by whoever made it; without one, the
        environment says all, and no other argument is heeded. `model`: the name under which
        answers are sold, empty for the one that they name. `callers`: by the SHA-256 of a key in
        hexadecimal, whom its requests are counted for; then no header is believed. Without it
        the headers that are named say so, which a gateway has to set.
        """
        self._app = app
        self._is_meter_ours = meter is None
        if meter is None:
            settings = read_environment()
            self._meter, self._model = settings.meter, settings.model
            self._attribution = settings.attribution
        else:
            self._meter, self._model = meter, model
            self._attribution = Attribution(
                account_header=account_header, tier_header=tier_header, callers=callers
            )
        self._counts = AnswerCounts()
        self._told_time = -limits.LOG_INTERVAL_SECONDS

    @property
    def counts(self) -> AnswerCounts:
        """What became of answers so far."""
        return self._counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        exchange = self._begin(scope)
        if exchange is not None:
            await self._serve(exchange, receive=receive, send=send)
        elif self._is_meter_ours and scope["type"] == "lifespan":
            await self._live(scope, receive=receive, send=send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, *, receive: Receive, send: Send) -> None:
        """Close the meter before the server hears that all is shut down: it ends then."""
        has_answered = False

        async def close_and_send(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            if message["type"].startswith("lifespan.shutdown."):
                await self._meter.async_close(limits.EXIT_SECONDS_MAX)
            await send(message)

        await self._app(scope, receive, close_and_send)
        if not has_answered:
            # An app that takes no part in this would never hear of the end, nor would we.
            await send({"type": "lifespan.startup.complete"})
            while (await receive())["type"] != "lifespan.shutdown":
                pass
            await close_and_send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, exchange: "_Exchange", *, receive: Receive, send: Send) -> None:
        async def receive_and_look() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                exchange.is_left = True
            return message

        async def send_and_end(message: Message) -> None:
            try:
                await send(message)
            finally:
                self._look(exchange, message)

        def send_and_look(message: Message) -> Awaitable[None]:
            # Once for each piece of a stream: neither a coroutine of its own nor a call of ours,
            # which would cost as much as all else.
            if not message.get("more_body"):
                return send_and_end(message)
            reader = exchange.reader
            if reader is not None:
                try:
                    reader.kept += message.get("body", b"")
                    if len(reader.kept) > reader.cut_at:
                        guarded(reader.cut)
                except (BufferError, TypeError, Unfit):
                    self._give_up(exchange)
            return send(message)

        try:
            await self._app(exchange.scope, receive_and_look, send_and_look)
        finally:
            error = sys.exception()
            # How some servers say that the caller is gone, and what Starlette makes of it.
            if isinstance(error, OSError) or isinstance(getattr(error, "__cause__", None), OSError):
                exchange.is_left = True
            self._end(exchange)

    def _begin(self, scope: Scope) -> "_Exchange | None":
        try:
            return guarded(self._begun, scope)
        except Unfit:
            self._count("faults")
            return None

    def _begun(self, scope: Scope) -> "_Exchange | None":
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        path = scope["path"]
        # Wherever it is mounted.
        path = path[path.rfind("/v1/") :]
        profile = PROFILES_BY_PATH.get(path)
        if profile is None:
            return None
        # What they are for us and for the app; some servers hand over what is read but once.
        headers = scope["headers"] = list(scope["headers"])
        attributed = self._attribution.attribute(headers, new_id=new_request_id)
        _tell_request_id(scope, attributed.request_id)
        if profile == "openai_responses":
            scope["headers"] = named(scope["headers"], attributed, new_id=new_request_id)
        # Made before the app copies the scope, so that what the engine leaves in it is seen here.
        scope.setdefault("state", {})
        exchange = _Exchange(scope, profile=profile, attributed=attributed)
        exchange.is_embedding = path == EMBEDDINGS
        return exchange

    def _look(self, exchange: "_Exchange", message: Message) -> None:
        try:
            is_last = guarded(exchange.look, message)
        except Unfit:
            self._give_up(exchange)
            return
        if is_last:
            self._end(exchange)

    def _give_up(self, exchange: "_Exchange") -> None:
        """Leave an exchange alone whose answer is not as ASGI has it, or that we fail to read."""
        exchange.reader = None
        if exchange.is_open:
            exchange.is_open = False
            self._count("faults")

    def _end(self, exchange: "_Exchange") -> None:
        """Report what is known; of several calls for one exchange the first one does."""
        if not exchange.is_open:
            return
        exchange.is_open = False
        try:
            became = guarded(self._report, exchange)
        except Unfit as error:
            became = "unreadable" if str(error) in UNREADABLE else "faults"
        if became:
            self._count(became)

    def _report(self, exchange: "_Exchange") -> str:
        """Report an exchange; returns the count that it belongs to, empty for none."""
        answer = exchange.read()
        if answer is None:
            return exchange.why_unread
        usage: object = answer.usage
        if answer.usage is not None and exchange.is_embedding:
            usage = with_no_output(answer.usage)
        profile = exchange.profile
        if usage is None:
            usage, profile = _engine_usage(exchange.scope), "openai"
        if usage is None:
            return "without_usage"
        details = exchange.details(answer, sold_as=self._model)
        self._meter.record_usage(usage, profile=profile, **details)
        return "reported"

    def _count(self, name: str) -> None:
        self._counts = replace(self._counts, **{name: getattr(self._counts, name) + 1})
        if name == "reported":
            return
        now = monotonic()
        if now - self._told_time >= limits.LOG_INTERVAL_SECONDS:
            self._told_time = now
            counts = self._counts
            _LOG.warning(
                "answers_unreported without_usage=%d compressed=%d unreadable=%d faults=%d",
                counts.without_usage, counts.compressed, counts.unreadable, counts.faults,
            )  # fmt: skip


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "_attributed", "_begin_time", "_is_sent", "is_embedding", "is_left", "is_open", "profile",
        "reader", "scope", "why_unread",
    )  # fmt: skip

    def __init__(self, scope: Scope, *, profile: str, attributed: Attributed) -> None:
        self.scope = scope
        self.profile = profile
        self.reader: AnswerReader | None = None
        """Takes the answer, where it can be read."""
        self.why_unread = "without_usage"
        """What the exchange counts as where there is nothing to read, empty for nothing."""
        self.is_embedding = False
        """Whether the answer generates nothing, and says nothing of that."""
        self.is_left = False
        """Whether the caller is known to be gone."""
        self.is_open = True
        """Whether it has still to be reported."""
        self._attributed = attributed
        self._is_sent = False
        self._begin_time = monotonic()

    def look(self, message: Message) -> bool:
        """Look at what was sent; returns whether it was the end of the answer."""
        if message["type"] == "http.response.body":
            if self.reader is not None:
                self.reader.feed(message.get("body", b""))
            self._is_sent = not message.get("more_body", False)
            return self._is_sent
        if message["type"] == "http.response.start":
            self._choose_reader(message)
        return False

    def read(self) -> Answer | None:
        """Return what the answer said; None where there is nothing to read."""
        # Half of a body is no JSON; half of a stream has said much already.
        if self.reader is None or not (self.reader.is_stream or self._is_sent):
            return None
        return self.reader.read()

    def details(self, answer: Answer, *, sold_as: str) -> Details:
        """What is said of the request beside its tokens."""
        is_whole = answer.is_whole or self._is_sent
        finish = answer.finish
        if not is_whole:
            finish = Finish.CANCELLED if self.is_left else Finish.FAILED
        return Details(
            account=self._attributed.account,
            tier=self._attributed.tier,
            request_id=self._attributed.request_id,
            model=sold_as or answer.model or None,
            served_model=answer.model if sold_as else None,
            duration_ms=1000 * (monotonic() - self._begin_time),
            finish=finish,
            quality=Quality.FINAL if is_whole else Quality.PARTIAL,
        )

    def _choose_reader(self, message: Message) -> None:
        if not _OK <= message["status"] < _NOT_OK:
            self.why_unread = ""
            return
        headers = {name.lower(): value for name, value in message.get("headers", ())}
        kind = headers.get(b"content-type", b"").lower()
        if headers.get(b"content-encoding", b"identity") != b"identity":
            self.why_unread = "compressed"
        elif kind.startswith((b"text/event-stream", b"application/json")):
            is_stream = kind.startswith(b"text/event-stream")
            self.reader = AnswerReader(profile=self.profile, is_stream=is_stream)


_LOG: Final = logging.getLogger("tokenworks.client")
_OK: Final = 200
_NOT_OK: Final = 300


def _tell_request_id(scope: Scope, request_id: str) -> None:
    """Have the engine call the request by the same id, so that its own reports are found."""
    headers = [(name, value) for name, value in scope["headers"] if name != REQUEST_ID]
    scope["headers"] = [*headers, (REQUEST_ID, request_id.encode("latin-1"))]


def _engine_usage(scope: Scope) -> object:
    """What vLLM leaves beside the answer at its end, whether the caller asked for usage or not."""
    metadata = scope["state"].get("request_metadata")
    return getattr(metadata, "final_usage_info", None)
