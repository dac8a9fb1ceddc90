"""A server in ASGI that reports what it answers, over real sockets."""

import asyncio
import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import UUID

import pytest

from tests.client.asgi_server import Engine, Stage, ask, read_body, serving
from tests.client.conftest import MakeClient
from tests.client.fake_meter import API_KEY, FakeMeter
from tests.stacks.openai_server import Plan
from tokenworks.client.asgi import AnswerCounts, App, Caller, UsageMiddleware
from tokenworks.client.vocabulary import Finish, Quality, TokenClass

PLAN: Final = Plan(prompt=100, completion=40, cached=60, reasoning=10)
TOKENS: Final = {
    TokenClass.INPUT: 40, TokenClass.CACHE_READ: 60, TokenClass.OUTPUT: 30, TokenClass.REASONING: 10
}  # fmt: skip
EDGE: Final = {"x-tokenworks-account": "acme", "x-tokenworks-tier": "high", "x-request-id": "r-1"}
EMBEDDING: Final = (
    Path(__file__).parents[1] / "fixtures/seen/llama-cpp-python-0.3.36-embedding.json"
)
FIRST_CHUNK: Final = b'"finish_reason"'
Report: TypeAlias = Callable[..., Mapping[str, object]]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A server for all tests of this module."""
    stage = Stage()
    with serving(stage) as stage.port:
        yield stage


@pytest.fixture
def report(stage: Stage, fake_meter: FakeMeter, make_client: MakeClient) -> Report:
    """A function that has an app asked once, and returns the one event that comes of it."""

    def ask_and_wait(
        app: App,
        plan: Plan = PLAN,
        *,
        stream: bool = True,
        headers: Mapping[str, str] = EDGE,
        leave_after: bytes = b"",
        path: str = "/v1/chat/completions",
        **arguments: Any,  # noqa: ANN401 - as the middleware has them
    ) -> Mapping[str, object]:
        stage.app = UsageMiddleware(app, meter=make_client(source="asgi"), **arguments)
        stage.ask(plan, stream=stream, headers=headers, leave_after=leave_after, path=path)
        assert fake_meter.wait_for_events(1)
        (event,) = fake_meter.events
        return event

    return ask_and_wait


@pytest.mark.parametrize("stream", [False, True])
def test_answer__is_reported(report: Report, *, stream: bool) -> None:
    """An answer's tokens, account, tier and id come to the meter, whichever form it has."""
    event = report(Engine(), stream=stream)
    assert event["tokens"] == TOKENS
    assert (event["account"], event["tier"], event["model"]) == ("acme", "high", "llama-70b")
    assert event["request_id"] == "r-1"
    assert event["finish"] == (Finish.TRUNCATED if stream else Finish.COMPLETED)
    assert event["quality"] == Quality.FINAL
    assert (event["reported_input_count"], event["reported_output_count"]) == (100, 40)
    usage: Any = event["usage"]
    assert (usage["convention"], usage["prompt_tokens"]) == ("openai", 100)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 60}


@pytest.mark.parametrize("stream", [False, True])
def test_answer__passes_as_it_is(stage: Stage, make_client: MakeClient, *, stream: bool) -> None:
    """A caller gets the same bytes with and without the middleware."""
    stage.app = Engine()
    bare = stage.ask(PLAN, stream=stream)
    stage.app = UsageMiddleware(stage.app, meter=make_client())
    assert _without_date(stage.ask(PLAN, stream=stream)) == _without_date(bare)


def test_stream__left_by_its_caller(report: Report) -> None:
    """What was counted when the caller hung up is reported, as cancelled and partial."""
    plan = Plan(prompt=100, completion=40, cached=60, chunks=4, hold=2)
    event = report(Engine(), plan, leave_after=FIRST_CHUNK)
    assert event["tokens"] == {TokenClass.INPUT: 100, TokenClass.OUTPUT: 20}
    assert (event["finish"], event["quality"]) == (Finish.CANCELLED, Quality.PARTIAL)


def test_stream__left_at_its_end(report: Report) -> None:
    """A caller who hangs up at the last event has had a whole answer."""
    engine = Engine()

    async def held(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's own
        async def send_all_but_the_end(message: MutableMapping[str, Any]) -> None:
            if message.get("body") == b"":
                while (await receive())["type"] != "http.disconnect":
                    pass
            await send(message)

        await engine(scope, receive, send_all_but_the_end)

    plan = Plan(prompt=100, completion=40, chunks=0, hold=1)
    event = report(held, plan, leave_after=b"DONE")
    assert (event["finish"], event["quality"]) == (Finish.COMPLETED, Quality.FINAL)


def test_stream__that_breaks(report: Report) -> None:
    """A stream that the engine does not end is reported as failed, with what it had counted."""
    engine = Engine(fault=RuntimeError("of the engine"))
    event = report(engine, Plan(prompt=100, completion=40, chunks=4, hold=3))
    assert event["tokens"] == {TokenClass.INPUT: 100, TokenClass.OUTPUT: 30}
    assert (event["finish"], event["quality"]) == (Finish.FAILED, Quality.PARTIAL)


@pytest.mark.parametrize("stream", [False, True])
def test_answer__that_nobody_asked_to_count(report: Report, *, stream: bool) -> None:
    """What vLLM leaves beside an answer is reported where the answer has no usage in it."""
    event = report(Engine(continuous=False, asked=False, knows_usage=True), stream=stream)
    assert event["tokens"] == {TokenClass.INPUT: 100, TokenClass.OUTPUT: 40}
    assert event["quality"] == Quality.FINAL


def test_answer__of_an_embedding(report: Report) -> None:
    """What llama-cpp-python answered, whose usage has no total of what was generated, counts."""

    async def embed(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's own
        assert scope["type"] == "http"
        await read_body(receive)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": EMBEDDING.read_bytes()})

    event = report(embed, stream=False, path="/v1/embeddings")
    assert event["tokens"] == {TokenClass.INPUT: 2}
    assert (event["reported_input_count"], event["reported_output_count"]) == (2, 0)
    assert event["model"] == "tiny"


UNREPORTED: Final[Mapping[str, tuple[Engine, Plan, bool, AnswerCounts]]] = {
    "nobody asked for usage": (
        Engine(continuous=False, asked=False), PLAN, True, AnswerCounts(without_usage=1)
    ),
    "left before usage came": (
        Engine(continuous=False), Plan(prompt=100, completion=40, hold=1), True,
        AnswerCounts(without_usage=1),
    ),
    "compressed": (
        Engine(headers=[(b"Content-Encoding", b"gzip")]), PLAN, False, AnswerCounts(compressed=1)
    ),
    "an error": (Engine(status=429), PLAN, False, AnswerCounts()),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREPORTED)
def test_answer__without_a_report(case: str, stage: Stage, make_client: MakeClient) -> None:
    """An answer whose tokens cannot be known is counted as such, and no event is made up."""
    engine, plan, stream, counts = UNREPORTED[case]
    client = make_client()
    stage.app = middleware = UsageMiddleware(engine, meter=client)
    stage.ask(plan, stream=stream, leave_after=FIRST_CHUNK if plan.hold else b"")
    assert middleware.counts == counts
    assert client.statistics.recorded == 0


def test_request__left_before_its_answer(stage: Stage, make_client: MakeClient) -> None:
    """A request whose caller hung up before the answer began is counted as one without usage."""
    stage.app = middleware = UsageMiddleware(Engine(), meter=make_client())
    body = f'{{"prompt": "{Plan(prompt=100, completion=40, hold=1).words}"}}'.encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", stage.port)) as connection:
        connection.sendall(head.encode() + body)
    stage.settle()
    assert middleware.counts == AnswerCounts(without_usage=1)


def test_path__that_is_not_metered(stage: Stage, make_client: MakeClient) -> None:
    """Other paths pass by: nothing is read, and no id is given."""
    engine = Engine()
    stage.app = middleware = UsageMiddleware(engine, meter=make_client())
    stage.ask(PLAN, stream=False, path="/v1/rerank")
    assert middleware.counts == AnswerCounts()
    assert engine.request_ids == [""]


def test_request_id__given_where_there_is_none(report: Report) -> None:
    """The engine hears the id that is reported, so that its own reports are found by it."""
    engine = Engine()
    event = report(engine, headers={})
    assert engine.request_ids == [event["request_id"]]
    # llama-cpp-python refuses a request whose id is none.
    assert UUID(str(event["request_id"])).hex == event["request_id"]


def test_response__is_named_for_the_engines_spans(stage: Stage, make_client: MakeClient) -> None:
    """The engine hears in `tracestate` of which request a response is; nobody can forge it."""
    callers = {hashlib.sha256(b"sk-1").hexdigest(): Caller(account="globex", tier="low")}
    engine = Engine()
    stage.app = UsageMiddleware(engine, meter=make_client(), callers=callers)
    forged = {"Authorization": "Bearer sk-1", "tracestate": "a=b,tokenworks=acme:high:r-1"}
    stage.ask(PLAN, path="/v1/responses", stream=False, headers=EDGE | forged)
    heard = engine.headers_heard[-1]
    assert heard["tracestate"] == f"tokenworks=globex:low:{heard['x-request-id']},a=b"
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", heard["traceparent"])
    stage.ask(PLAN, stream=False, headers=EDGE)
    assert "traceparent" not in engine.headers_heard[-1]


def test_callers__are_known_by_their_keys(
    stage: Stage, fake_meter: FakeMeter, make_client: MakeClient
) -> None:
    """With a list of callers the key says who pays; no header of theirs is believed."""
    callers = {hashlib.sha256(b"sk-1").hexdigest(): Caller(account="globex", tier="low")}
    engine = Engine()
    stage.app = UsageMiddleware(engine, meter=make_client(), callers=callers)
    stage.ask(PLAN, stream=False, headers=EDGE | {"Authorization": "Bearer sk-1"})
    stage.ask(PLAN, stream=False, headers=EDGE | {"Authorization": "Bearer sk-2"})
    assert fake_meter.wait_for_events(2)
    first, second = fake_meter.events
    assert (first["account"], first["tier"]) == ("globex", "low")
    assert second["account"] == f"unknown-key-{hashlib.sha256(b'sk-2').hexdigest()[:16]}"
    assert engine.request_ids == [first["request_id"], second["request_id"]]
    assert "r-1" not in engine.request_ids


def test_model__sold_under_another_name(report: Report, fake_meter: FakeMeter) -> None:
    """A name that is set is what was sold; the answer's own is what served."""
    report(Engine(), model="chat-large")
    (columns,) = fake_meter.columns
    assert columns.dimensions[0].model == "chat-large"
    assert columns.dimensions[0].served_model == "llama-70b"


@pytest.mark.parametrize(
    "place",
    [
        "asgi._Exchange.look",
        "answers.AnswerReader.feed",
        "answers.AnswerReader.read",
        "meter.Meter.record_usage",
    ],
)
def test_fault__of_the_middleware(
    place: str, stage: Stage, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours is counted, and the caller has the whole answer."""
    client = make_client()
    stage.app = middleware = UsageMiddleware(Engine(), meter=client)
    monkeypatch.setattr(f"tokenworks.client.{place}", _fail)
    assert stage.ask(PLAN, stream=True).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert middleware.counts == AnswerCounts(faults=1)
    assert client.statistics.recorded == 0


def test_scope__that_cannot_be_read(make_client: MakeClient) -> None:
    """A scope that is not as ASGI has it reaches the app all the same."""
    served = []

    async def app(scope: Any, receive: object, send: object) -> None:  # noqa: ANN401, ARG001 - ASGI's own
        served.append(scope)

    middleware = UsageMiddleware(app, meter=make_client())
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/completions"}
    asyncio.run(middleware(scope, _never, _never))
    assert served == [scope]
    assert middleware.counts == AnswerCounts(faults=1)


def test_environment__says_all(
    fake_meter: FakeMeter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Made with its app alone the middleware is set up by the environment, and closes its meter."""
    callers = tmp_path / "callers.toml"
    callers.write_text(f'{hashlib.sha256(b"sk-1").hexdigest()} = "acme"\n', "utf-8")
    for name, value in {
        "SERVER": f"http://{fake_meter.target}", "API_KEY": API_KEY, "PRODUCER": "engine",
        "SPOOL": str(tmp_path / "spool"), "TIER": "high", "POOL": "h200-a", "MODEL": "chat-large",
        "CALLERS": str(callers), "UNKNOWN": "to us",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TOKENWORKS_{name}", value)
    with serving(UsageMiddleware(Engine())) as port:
        ask(port, PLAN, stream=True, headers={"X-Api-Key": "sk-1"})
    # Closed when the server was: all is delivered.
    (event,) = fake_meter.events
    assert (event["account"], event["tier"], event["model"]) == ("acme", "high", "chat-large")
    assert fake_meter.columns[0].dimensions[0].pool == "h200-a"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "TOKENWORKS_SERVER"),
        ({"SERVER": "ftp://x:1", "API_KEY": "k"}, "TOKENWORKS_SERVER"),
        ({"SERVER": "x:1", "API_KEY": "k", "CALLERS": "/nowhere"}, "TOKENWORKS_CALLERS: /nowhere"),
        ({"SERVER": "x:1"}, "api_key"),
    ],
)
def test_environment__that_makes_no_sense(
    variables: Mapping[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that could not report says so when it starts."""
    for name, value in variables.items():
        monkeypatch.setitem(os.environ, f"TOKENWORKS_{name}", value)
    with pytest.raises(ValueError, match=told):
        UsageMiddleware(Engine())


def _fail(*_: object) -> None:
    raise RuntimeError("a fault of ours")


async def _never(*_: object) -> Any:  # noqa: ANN401 - ASGI's own
    raise AssertionError


def _without_date(answered: bytes) -> list[bytes]:
    return [line for line in answered.splitlines() if not line.startswith(b"date:")]
