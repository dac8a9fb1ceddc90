"""Reports by HTTP in general: who may bring one, in what form, and what a refusal looks like."""

import asyncio
import gzip
import http.client
import io
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

import meter.http
from meter.domain import limits
from meter.domain.clock import Clock
from meter.domain.credential import Credential, Role
from meter.domain.errors import Reason, Unauthenticated, Unavailable
from meter.metrics import Metrics
from meter.runtime.driven_clock import DrivenClock
from meter.wire.bounds import Bounds
from meter.wire.http_reports import HttpAnswer, HttpReport, ReportDesk, Route, WsgiApp
from tests.clock import FakeClock
from tests.running_meter import RunningMeter
from tests.wire.apart import Apart
from tests.wire.posting import post
from tests.wire.talk import wait_until
from tests.wire.test_cloud_events import key_of
from tokenworks.meter.v1 import account_service_pb2

PATH = "/api/v1/events"
BATCH = "application/cloudevents-batch+json"
MEBIBYTE = 1024 * 1024


def test_report__without_an_api_key(shared_meter: RunningMeter) -> None:
    """Who shows no API key is told what is missing, and how it is shown."""
    answer = post(shared_meter, PATH, b"[]", content_type=BATCH, api_key="")
    assert (answer.status, answer.reason) == (401, "API_KEY_MISSING")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("wrong", "API_KEY_MALFORMED"),
        ("tw_" + "0" * 12 + "_" + "0" * 43, "API_KEY_MALFORMED"),
    ],
)
def test_report__with_a_wrong_api_key(shared_meter: RunningMeter, key: str, reason: str) -> None:
    """A key is judged as gRPC judges it."""
    answer = post(shared_meter, PATH, b"[]", content_type=BATCH, api_key=key)
    assert (answer.status, answer.reason) == (401, reason)


@pytest.mark.parametrize("role", Role)
def test_report__takes_one_role(apart: Apart, role: Role) -> None:
    """Who may do something else may not report: the path's row is asked before anything is read."""
    key = key_of(apart, "acme", int(role))
    answer = post(apart.meter, PATH, b"{", content_type=BATCH, api_key=key)
    may = role is Role.PRODUCER
    assert (answer.status, answer.reason) == (
        (400, "ARGUMENT_INVALID") if may else (403, "SCOPE_MISSING")
    )


def test_report__with_a_key_that_was_revoked(apart: Apart) -> None:
    """A key that has ended ends here, too."""
    key = key_of(apart, "acme", account_service_pb2.ROLE_PRODUCER)
    assert post(apart.meter, PATH, b"[]", content_type=BATCH, api_key=key).status == 204
    listed = apart.call(
        "ListApiKeys", account_service_pb2.ListApiKeysRequest(account=apart.own("acme"))
    )
    (found,) = listed.keys
    apart.call("RevokeApiKey", account_service_pb2.RevokeApiKeyRequest(key_id=found.key_id))
    answer = post(apart.meter, PATH, b"[]", content_type=BATCH, api_key=key)
    assert (answer.status, answer.reason) == (401, "API_KEY_REVOKED")


def test_report__by_another_method(shared_meter: RunningMeter) -> None:
    """Reports are posted."""
    answer = post(shared_meter, PATH, b"", method="PUT")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_report__to_another_place(shared_meter: RunningMeter) -> None:
    """A path that nobody serves is not found; those of OTLP are only there where it is on."""
    for path in ("/api/v2/events", "/v1/traces", "/v1/logs", "/"):
        assert post(shared_meter, path, b"[]").status == 404


def test_report__of_another_kind(shared_meter: RunningMeter) -> None:
    """What is no kind that is read here is refused with those that are."""
    answer = post(shared_meter, PATH, b"<x/>", content_type="text/xml; charset=utf-8")
    assert (answer.status, answer.reason) == (415, "ARGUMENT_INVALID")
    assert "application/cloudevents+json" in answer.body.decode()
    packed = post(shared_meter, PATH, b"[]", content_type=BATCH, content_encoding="br")
    assert (packed.status, packed.reason) == (415, "ARGUMENT_INVALID")


def test_report__with_parameters_of_its_kind(shared_meter: RunningMeter) -> None:
    """A charset changes nothing: JSON has one."""
    kind = f"{BATCH.upper()}; charset=utf-8"
    assert post(shared_meter, PATH, b"[]", content_type=kind).status == 204


def test_report__packed(shared_meter: RunningMeter) -> None:
    """A body may be gzip; one that is none, or is cut off, is refused."""
    packed = gzip.compress(b"[]" + b" " * 100_000)
    for body, status in ((packed, 204), (packed[:-1], 400), (packed + b"x", 400), (b"[]", 400)):
        answer = post(shared_meter, PATH, body, content_type=BATCH, content_encoding="gzip")
        assert answer.status == status


def test_report__too_large(shared_meter: RunningMeter) -> None:
    """Neither what comes nor what it unpacks to is larger than a message, and it is answered."""
    whole = b"[" + b" " * (4 * MEBIBYTE - 2) + b"]"
    assert post(shared_meter, PATH, whole, content_type=BATCH).status == 204
    answer = post(shared_meter, PATH, whole + b" ", content_type=BATCH)
    assert (answer.status, answer.reason) == (413, "MESSAGE_TOO_LARGE")
    packed = gzip.compress(whole + b" ")
    answer = post(shared_meter, PATH, packed, content_type=BATCH, content_encoding="gzip")
    assert (answer.status, answer.reason) == (413, "MESSAGE_TOO_LARGE")


def test_report__of_unknown_length(shared_meter: RunningMeter) -> None:
    """How long a body is has to be said before it comes."""
    with closing(http.client.HTTPConnection(shared_meter.http, timeout=20)) as connection:
        connection.putrequest("POST", PATH)
        connection.putheader("Authorization", f"Bearer {shared_meter.api_key}")
        connection.putheader("Content-Type", BATCH)
        connection.putheader("Transfer-Encoding", "chunked")
        # The answer does not wait for a body.
        connection.endheaders()
        assert connection.getresponse().status == 411


def test_report__that_breaks_off(shared_meter: RunningMeter) -> None:
    """A body that does not come whole is not taken for one that does."""
    host, _, port = shared_meter.http.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = (
            f"POST {PATH} HTTP/1.1\r\nAuthorization: Bearer {shared_meter.api_key}\r\n"
            f"Content-Type: {BATCH}\r\nContent-Length: 3\r\n\r\n[]"
        )
        connection.sendall(head.encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1_000).startswith(b"HTTP/1.0 408 ")


class _Door:
    """Lets in whoever names a key, as that key."""

    def identify_http(self, authorization: str | None, _: object) -> str:
        """Return the key's number; raises Unauthenticated."""
        if authorization is None:
            raise Unauthenticated(Reason.API_KEY_MISSING, "There is none.")
        return authorization

    def let_in_http(self, authorization: str | None, shown: object, *, rule: object) -> Credential:  # noqa: ARG002
        """Return the key."""
        key_id = self.identify_http(authorization, shown)
        return Credential(key_id=key_id, account_id=None, scopes=(), end_ms=None)


class _Desk:
    """A desk whose loop runs on a thread, as the HTTP port sees it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, calls_per_second_max: int, clock: Clock
    ) -> None:
        self._loop = loop
        self._bounds = calls_per_second_max
        self._clock = clock

    def app(
        self,
        answer: Callable[[HttpReport], Coroutine[Any, Any, HttpAnswer]],
        **more: Any,  # noqa: ANN401
    ) -> WsgiApp:
        """Return what serves a route that is answered so."""

        async def make() -> WsgiApp:
            metrics, clock = Metrics(), self._clock
            bounds = Bounds(
                metrics,
                calls_per_second_max=self._bounds,
                monotonic_seconds=clock.monotonic_seconds,
            )
            desk = ReportDesk(door=_Door(), bounds=bounds, metrics=metrics, clock=clock)  # type: ignore[arg-type]
            route = Route(path="/v1/logs", answer=answer, content_types=frozenset({"a/b"}), **more)
            return desk.app(route)

        return asyncio.run_coroutine_threadsafe(make(), self._loop).result()


@contextmanager
def desk(*, calls_per_second_max: int = 1_000, clock: Clock | None = None) -> Iterator[_Desk]:
    """A desk for the time of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield _Desk(loop, calls_per_second_max=calls_per_second_max, clock=clock or FakeClock(0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def ask(app: WsgiApp, body: bytes = b"x", **environ: Any) -> tuple[str, dict[str, str], bytes]:  # noqa: ANN401
    """Post to an app; return status, headers and body."""
    told: list[Any] = []
    request = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": "key",
        "wsgi.input": io.BytesIO(body),
    }
    answer = b"".join(app(request | environ, lambda *it: told.append(it)))
    return told[0][0], dict(told[0][1]), answer


async def fine(_: HttpReport) -> HttpAnswer:
    """Take a report."""
    return HttpAnswer(status=200, content_type="a/b", body=b"taken")


def test_answer__reaches_the_caller() -> None:
    """What a route answers is what its caller gets."""
    with desk() as it:
        status, headers, body = ask(it.app(fine))
    assert (status, body) == ("200 OK", b"taken")
    assert headers["Content-Type"] == "a/b"


def test_answer__of_a_sandbox() -> None:
    """A sandbox says where its clock stands, with each answer and each refusal."""
    with desk(clock=DrivenClock(1_790_000_000_000)) as it:
        app = it.app(fine)
        for status, headers, _ in (ask(app), ask(app, CONTENT_TYPE="x/y")):
            assert headers["tokenworks-sandbox-clock"] == "2026-09-21T14:13:20Z", status
    with desk() as it:
        assert "tokenworks-sandbox-clock" not in ask(it.app(fine))[1]


def test_answer__while_the_store_is_away() -> None:
    """Nothing was recorded, and the sender is told when to come back."""

    async def away(_: HttpReport) -> HttpAnswer:
        raise Unavailable(Reason.STORE_UNAVAILABLE, "The database does not answer.")

    with desk() as it:
        status, headers, body = ask(it.app(away))
    assert (status, headers["Retry-After"]) == ("503 Service Unavailable", "1")
    assert b"STORE_UNAVAILABLE" in body


def test_answer__that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread does not wait for ever: what was not recorded in time is to be sent again."""
    monkeypatch.setattr(limits, "HTTP_ANSWER_SECONDS_MAX", 0.05)
    ended = threading.Event()

    async def stuck(_: HttpReport) -> HttpAnswer:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    with desk() as it:
        status, headers, _ = ask(it.app(stuck))
        assert ended.wait(20)
    assert (status, headers["Retry-After"]) == ("503 Service Unavailable", "1")


def test_answer__that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """What we did wrong is logged under a number, and told without its words."""

    async def broken(_: HttpReport) -> HttpAnswer:
        raise ZeroDivisionError("a secret")

    with desk() as it:
        status, headers, body = ask(it.app(broken))
    assert status == "500 Internal Server Error"
    assert "Retry-After" not in headers
    assert b"error_id" in body
    assert b"secret" not in body
    assert [it.msg for it in caplog.records] == ["call_failed"]


def test_report__faster_than_its_key_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key's bound holds here as on gRPC: who is far above it is sent away for a while."""
    monkeypatch.setattr(limits, "HOLD_SECONDS_MAX", 0.0)
    with desk(calls_per_second_max=1) as it:
        app = it.app(fine)
        assert ask(app)[0] == "200 OK"
        status, headers, body = ask(app)
        assert (status, headers["Retry-After"]) == ("429 Too Many Requests", "1")
        assert b"OVERLOADED" in body
        assert ask(app, HTTP_AUTHORIZATION="another")[0] == "200 OK"


def test_report__more_at_once_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow bodies of one key do not take the places of others."""
    monkeypatch.setattr(limits, "HTTP_KEY_REPORTS_AT_ONCE_MAX", 1)
    begun, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            begun.set()
            assert go_on.wait(20)
            return super().read1(-1 if size is None else size)

    with desk() as it:
        app = it.app(fine)
        answers: list[str] = []
        slow: Any = {"wsgi.input": Slow(b"x")}
        thread = threading.Thread(target=lambda: answers.append(ask(app, **slow)[0]))
        thread.start()
        assert begun.wait(20)
        assert ask(app)[0] == "429 Too Many Requests"
        assert ask(app, HTTP_AUTHORIZATION="another")[0] == "200 OK"
        go_on.set()
        thread.join()
        assert answers == ["200 OK"]
        assert ask(app)[0] == "200 OK"


def test_report__that_comes_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has its time, however often a byte of it comes."""
    monkeypatch.setattr(limits, "HTTP_BODY_SECONDS_MAX", -1.0)
    with desk() as it:
        assert ask(it.app(fine))[0] == "408 Request Timeout"


def test_refusal__in_the_words_of_its_protocol() -> None:
    """A route may write errors as its own protocol has them."""

    def write(error: Any, *, status: int, content_type: str) -> HttpAnswer:  # noqa: ANN401
        words = f"{error.reason} {content_type}".encode()
        return HttpAnswer(status=status, content_type="c/d", body=words)

    with desk() as it:
        status, headers, body = ask(it.app(fine, format_error=write), CONTENT_TYPE="A/X; q=1")
    assert status == "415 Unsupported Media Type"
    assert (headers["Content-Type"], body) == ("c/d", b"ARGUMENT_INVALID a/x")


def test_http_server__has_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection too many is closed at once; when another one ends there is room again."""
    monkeypatch.setattr(meter.http, "HTTP_REQUESTS_AT_ONCE_MAX", 1)
    server = meter.http.HttpServer({"/": _say_yes})
    host, _, port = server.start("127.0.0.1:0").rpartition(":")
    place = (host, int(port))
    request = b"GET / HTTP/1.0\r\n\r\n"
    try:
        with socket.create_connection(place, timeout=20) as first:
            with socket.create_connection(place, timeout=20) as second:
                assert second.recv(1_000) == b""
            first.sendall(request)
            assert first.makefile("rb").read().endswith(b"yes")
        wait_until(lambda: _answers(place, request))
    finally:
        server.stop()


def _say_yes(_: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ANN401
    start_response("200 OK", [])
    return [b"yes"]


def _answers(place: tuple[str, int], request: bytes) -> bool:
    with socket.create_connection(place, timeout=20) as connection:
        try:
            connection.sendall(request)
            return connection.makefile("rb").read().endswith(b"yes")
        except ConnectionError:
            return False
