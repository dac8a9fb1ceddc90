"""Reports by HTTP: who may bring one, how its body is read, and how it is answered.

A thread of the HTTP port reads and unpacks the body; what is done with it runs on the event loop,
where all else runs that records usage.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from meter.access import HTTP_ACCESS, Rule
from meter.call_context import begin_call, note_key
from meter.certificates import SHOWN, Shown
from meter.domain import errors, limits
from meter.domain.clock import Clock
from meter.domain.credential import Credential
from meter.domain.errors import MeterError, Overloaded, Reason, Unauthenticated, Unavailable
from meter.domain.times import to_iso
from meter.metrics import Metrics
from meter.runtime.driven_clock import DrivenClock
from meter.wire.bounds import Bounds
from meter.wire.door import RegistryDoor
from meter.wire.http_bodies import Body, BodyFault
from meter.wire.refusals import RefusalLog
from meter.wire.status import SANDBOX_KEY, as_meter_error, code_of, invalid

_JSON: Final = "application/json"
_STATUSES: Final[Mapping[type[MeterError], int]] = {
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.InvalidArgument: 400,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.Refused: 409,
    errors.Overloaded: 429,
    errors.Unavailable: 503,
}
_WORDS: Final[Mapping[int, str]] = {
    200: "OK",
    202: "Accepted",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_TOO_LARGE: Final = 413

_Result = TypeVar("_Result")
WsgiApp: TypeAlias = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReport:
    """A report as it came: whose it is, of what kind, and its body, unpacked.

    `content_type` is in small letters and without parameters; `headers` have names in small
    letters.
    """

    credential: Credential
    content_type: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """What a report is answered; without a body there is no content type either."""

    status: int = 204
    content_type: str = ""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class FormatError(Protocol):
    """Writes an error as the protocol of a route has it; `status` is that of HTTP."""

    def __call__(self, error: MeterError, *, status: int, content_type: str) -> HttpAnswer:
        """Return the answer; `content_type` is the report's, in small letters, maybe empty."""


def format_json_error(error: MeterError, *, status: int, content_type: str) -> HttpAnswer:  # noqa: ARG001
    """Return `{"error": {"reason", "message"}}`."""
    told = {"error": {"reason": str(error.reason), "message": error.message}}
    return HttpAnswer(status=status, content_type=_JSON, body=json.dumps(told).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A place that takes reports by POST.

    `answer` runs on the event loop, and returns once what it answers for is committed; what it
    raises of `MeterError` becomes a status. Of the `content_types` only those are taken, in small
    letters and without parameters. `body_bytes_max` holds for the body as it came and unpacked.
    Who is sent away for a while is told for how long, unless `is_own_pace`: its senders wait
    longer each time by themselves.
    """

    path: str
    answer: Callable[[HttpReport], Awaitable[HttpAnswer]]
    content_types: frozenset[str]
    body_bytes_max: int = limits.HTTP_BODY_BYTES_MAX
    format_error: FormatError = format_json_error
    is_own_pace: bool = False


class ReportDesk:
    """Serves routes; made on the event loop that their answers run on."""

    def __init__(
        self,
        *,
        door: RegistryDoor,
        bounds: Bounds,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """Take who judges callers, what they may take, and where failures are counted."""
        self._door = door
        self._bounds = bounds
        self._metrics = metrics
        self._clock = clock
        self._refusals = RefusalLog(clock.monotonic_seconds)
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._at_once: dict[str, int] = {}

    def app(self, route: Route) -> WsgiApp:
        """Return what serves a route on a thread of the HTTP port; it has a row of the access."""
        assert route.path in HTTP_ACCESS

        def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
            begin_call(route.path)
            body = Body(environ)
            content_type = str(environ.get("CONTENT_TYPE") or "").partition(";")[0].strip().lower()
            retry_seconds: float | None = None
            try:
                answer = self._serve(route, environ, body, content_type=content_type)
            except Exception as error:  # noqa: BLE001  the HTTP edge
                body.drain(bytes_max=2 * route.body_bytes_max)
                answer, retry_seconds = self._fail(route, error, content_type=content_type)
            return self._write(answer, start_response, retry_seconds=retry_seconds)

        return serve

    def _serve(
        self, route: Route, environ: dict[str, Any], body: Body, *, content_type: str
    ) -> HttpAnswer:
        if environ["REQUEST_METHOD"] != "POST":
            raise BodyFault(405, invalid("method", "POST"))
        headers = _headers(environ)
        shown: Shown | None = environ.get(SHOWN)
        authorization = headers.get("authorization")
        credential = self._run(self._let_in(authorization, shown, HTTP_ACCESS[route.path]))
        note_key(credential.key_id)
        if content_type not in route.content_types:
            known = ", ".join(sorted(route.content_types))
            raise BodyFault(415, invalid("content-type", f"one of {known}"))
        with self._place(credential.key_id):
            content = body.read(
                bytes_max=route.body_bytes_max,
                monotonic_seconds=self._clock.monotonic_seconds,
            )
            report = HttpReport(
                credential=credential, content_type=content_type, headers=headers, body=content
            )
            return self._run(_answer(route, report))

    async def _let_in(
        self, authorization: str | None, shown: Shown | None, rule: Rule
    ) -> Credential:
        """Return who calls, in the turn that its API key has."""
        try:
            key_id = self._door.identify_http(authorization, shown)
        except (Unauthenticated, Unavailable):
            key_id = ""
        async with self._bounds.of(key_id).call():
            return self._door.let_in_http(authorization, shown, rule=rule)

    @contextmanager
    def _place(self, key_id: str) -> Iterator[None]:
        """Hold one of the places in which reports are read; raises Overloaded."""
        with self._lock:
            own = self._at_once.get(key_id, 0)
            is_full = sum(self._at_once.values()) >= limits.HTTP_REPORTS_AT_ONCE_MAX
            if is_full or own >= limits.HTTP_KEY_REPORTS_AT_ONCE_MAX:
                raise Overloaded(
                    Reason.OVERLOADED, "Too many reports are read at once. Send again later."
                )
            self._at_once[key_id] = own + 1
        try:
            yield
        finally:
            with self._lock:
                self._at_once[key_id] -= 1
                if not self._at_once[key_id]:
                    del self._at_once[key_id]

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout=limits.HTTP_ANSWER_SECONDS_MAX)
        except (TimeoutError, CancelledError) as error:
            future.cancel()
            raise Unavailable(
                Reason.STORE_UNAVAILABLE, "It was not recorded in time. Send it again."
            ) from error

    def _fail(
        self, route: Route, error: Exception, *, content_type: str
    ) -> tuple[HttpAnswer, float | None]:
        status = None
        if isinstance(error, BodyFault):
            status, error = error.status, error.error
        known = as_meter_error(error)
        if known is error:
            self._refusals.note(known, code=code_of(known).name)
        self._metrics.calls_failed.labels(known.reason).inc()
        if status is None:
            status = _STATUSES.get(type(known), 500)
        if known.reason is Reason.MESSAGE_TOO_LARGE:
            status = _TOO_LARGE
        answer = route.format_error(known, status=status, content_type=content_type)
        asks_back = status in (429, 503) and not route.is_own_pace
        return answer, known.retry_seconds if asks_back else None

    def _write(
        self,
        answer: HttpAnswer,
        start_response: Any,  # noqa: ANN401
        *,
        retry_seconds: float | None,
    ) -> Iterable[bytes]:
        headers = [("Content-Length", str(len(answer.body)))] if answer.status != 204 else []  # noqa: PLR2004
        headers += answer.headers.items()
        if answer.content_type:
            headers.append(("Content-Type", answer.content_type))
        if answer.status == 401:  # noqa: PLR2004
            headers.append(("WWW-Authenticate", "Bearer"))
        if answer.status == 405:  # noqa: PLR2004
            headers.append(("Allow", "POST"))
        if retry_seconds is not None:
            headers.append(("Retry-After", str(max(1, round(retry_seconds)))))
        if isinstance(self._clock, DrivenClock):
            headers.append((SANDBOX_KEY, to_iso(self._clock.now_ms())))
        start_response(f"{answer.status} {_WORDS.get(answer.status, 'Answer')}", headers)
        return [answer.body]


async def _answer(route: Route, report: HttpReport) -> HttpAnswer:
    call = begin_call(route.path)
    call.key_id = report.credential.key_id
    return await route.answer(report)


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    return {
        name[5:].replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
