"""LiteLLM's real proxy before a server that counts as vLLM does: what is counted of its calls."""

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Final

import pytest

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.litellm_proxy import (
    KEYS,
    LITELLM,
    MASTER_KEY,
    LiteLlm,
    running_litellm,
    running_litellm_with_logger,
)
from tests.stacks.openai_server import OpenAiServer, Plan, running_openai_server
from tests.stacks.recorded import Recorded, recorded_events
from tests.stacks.reports import wait_for_event
from tests.wire.session import Session

pytestmark = [
    pytest.mark.stacks,
    # The proxy takes its time to start.
    pytest.mark.timeout(300),
    pytest.mark.skipif(not LITELLM.exists(), reason="litellm is not installed"),
]
SECONDS_MAX: Final = 30
# The guide's last retry is a minute after the first.
RETRIES_SECONDS_MAX: Final = 100
TIER: Final = "standard"
CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
INPUT, CACHE_READ, OUTPUT, REASONING = 1, 2, 7, 8
COMPLETED, CANCELLED = 1, 3
FINAL, ESTIMATED = 1, 3
PLAN: Final = Plan(prompt=1_000, cached=200, completion=40, reasoning=4)
COUNTED: Final = {INPUT: 800, CACHE_READ: 200, OUTPUT: 36, REASONING: 4}
WAYS: Final[Mapping[str, Callable[..., AbstractContextManager[LiteLlm]]]] = {
    "generic_api": running_litellm,
    "logger": running_litellm_with_logger,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A meter, a LiteLLM that reports to it, and the engine behind."""

    meter: RunningMeter
    engine: OpenAiServer
    litellm: LiteLlm

    def ask(
        self,
        plan: Plan,
        request_id: str,
        *,
        stream: bool = False,
        account: str = "acme",
        headers: Mapping[str, str] | None = None,
        path: str = CHAT,
        **parameters: int,
    ) -> tuple[int, bytes]:
        """Send a request and return status and body."""
        connection = http.client.HTTPConnection(self.litellm.address, timeout=SECONDS_MAX)
        try:
            answer = self._begin(
                connection,
                plan,
                request_id,
                stream=stream,
                account=account,
                headers=headers,
                path=path,
                **parameters,
            )
            return answer.status, answer.read()
        finally:
            connection.close()

    def hang_up(self, plan: Plan, request_id: str) -> None:
        """Send a request, and hang up after the first chunk of the answer."""
        connection = http.client.HTTPConnection(self.litellm.address, timeout=SECONDS_MAX)
        answer = self._begin(connection, plan, request_id, stream=True)
        assert answer.readline().startswith(b"data: ")
        answer.close()
        connection.close()

    def _begin(
        self,
        connection: http.client.HTTPConnection,
        plan: Plan,
        request_id: str,
        *,
        stream: bool,
        account: str = "acme",
        headers: Mapping[str, str] | None = None,
        path: str = CHAT,
        **parameters: int,
    ) -> http.client.HTTPResponse:
        words = f"a secret {plan.words}"
        prompt = [{"role": "user", "content": words}]
        body = {
            **parameters,
            "model": "llama-70b",
            "stream": stream,
            **({"input": words} if path == RESPONSES else {"messages": prompt}),
        }
        sent = {
            "authorization": f"Bearer {KEYS.get(account, MASTER_KEY)}",
            "content-type": "application/json",
            **({"x-request-id": request_id} if request_id else {}),
            **(headers or {}),
        }
        connection.request("POST", path, json.dumps(body), sent)
        return connection.getresponse()

    def event(self, request_id: str, *, seconds_max: float = SECONDS_MAX) -> Recorded:
        """Return what was recorded of a request, once it is there: it is there once."""
        return wait_for_event(
            self.meter.database_url,
            request_id,
            seconds_max=seconds_max,
            told=lambda: self.litellm.log.read_text("utf-8")[-2_000:],
        )


@pytest.fixture(scope="module", params=WAYS)
def gateway(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    """All of it, once for each way of reporting."""
    folder = tmp_path_factory.mktemp("litellm")
    run = WAYS[request.param]
    with ExitStack() as stack:
        url = stack.enter_context(cluster.database())
        settings = {"tiers": f"{TIER},free"}
        meter = stack.enter_context(running_meter_on(url, folder=folder, settings=settings))
        session = Session(meter)
        for account in KEYS:
            session.create_account(account)
        engine = stack.enter_context(running_openai_server())
        litellm = stack.enter_context(
            run(
                folder=folder / "proxy",
                engine=engine.address,
                meter=meter.http if request.param == "generic_api" else meter.target,
                api_key=meter.api_key,
                tier=TIER,
            )
        )
        yield Gateway(meter=meter, engine=engine, litellm=litellm)


@pytest.mark.parametrize("stream", [False, True])
def test_call__is_counted_for_the_team_of_its_key(gateway: Gateway, *, stream: bool) -> None:
    """All classes, the model, the key's team and tier, whatever the caller says of itself."""
    request_id = f"r-{stream}"
    forged = {"x-tokenworks-account": "globex", "x-tokenworks-tier": "free"}
    status, _ = gateway.ask(PLAN, request_id, stream=stream, headers=forged)
    assert status == 200
    event = gateway.event(request_id)
    assert (event.account, event.tier) == ("acme", TIER)
    assert (event.model, event.served_model) == ("llama-70b", "meta-llama")
    assert event.tokens == COUNTED
    assert (event.finish, event.quality) == (COMPLETED, FINAL)


@pytest.mark.parametrize("stream", [False, True])
def test_call__by_anthropics_route(gateway: Gateway, *, stream: bool) -> None:
    """Who asks by messages has cached tokens beside the input; they are counted once."""
    request_id = f"r-messages-{stream}"
    status, _ = gateway.ask(PLAN, request_id, stream=stream, path="/v1/messages", max_tokens=99)
    assert status == 200
    assert gateway.event(request_id).tokens == COUNTED


def test_call__of_several_answers(gateway: Gateway) -> None:
    """The proxy's record of several answers to one prompt is of all of them."""
    gateway.ask(PLAN, "r-several", n=4)
    assert gateway.event("r-several").tokens == COUNTED


def test_calls__of_which_one_is_reported_twice(gateway: Gateway) -> None:
    """Two calls with one request id are one request, whose first report is counted."""
    gateway.ask(PLAN, "r-twice")
    gateway.event("r-twice")
    gateway.ask(Plan(prompt=7, completion=7), "r-twice")
    gateway.ask(PLAN, "r-later")
    gateway.event("r-later")
    assert gateway.event("r-twice").tokens == COUNTED


def test_call__without_a_team(gateway: Gateway) -> None:
    """Where the key has no team the agreed headers say who pays."""
    named = {"x-tokenworks-account": "globex", "x-tokenworks-tier": "free"}
    gateway.ask(PLAN, "r-named", account="nobody", headers=named)
    event = gateway.event("r-named")
    assert (event.account, event.tier) == ("globex", "free")


def test_calls__whose_answers_have_one_id(gateway: Gateway) -> None:
    """A server that gives all answers the same id has each of them counted."""
    gateway.engine.response_id = "chatcmpl-always"
    try:
        for place in range(3):
            gateway.ask(PLAN, f"r-same-{place}")
    finally:
        gateway.engine.response_id = None
    for place in range(3):
        assert gateway.event(f"r-same-{place}").tokens == COUNTED


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("stream", [False, True])
def test_call__has_its_id_at_the_engine(gateway: Gateway, path: str, *, stream: bool) -> None:
    """The engine sees the id of the edge: what it reports is of the same request."""
    request_id = f"r-forwarded-{path[4:8]}-{stream}"
    gateway.ask(PLAN, request_id, path=path, stream=stream)
    (asked,) = [it for it in gateway.engine.asked if it.headers.get("x-request-id") == request_id]
    assert asked.path == path
    assert gateway.event(request_id).tokens == COUNTED


@pytest.mark.parametrize("is_continuous", [True, False])
def test_call__whose_caller_hangs_up(gateway: Gateway, *, is_continuous: bool) -> None:
    """It is estimated, and exact all the same where the engine tells its usage in each chunk."""
    gateway.engine.continuous = is_continuous
    request_id = f"r-gone-{is_continuous}"
    try:
        gateway.hang_up(Plan(prompt=1_000, completion=40, chunks=4, hold=1), request_id)
        event = gateway.event(request_id)
    finally:
        gateway.engine.continuous = True
    assert (event.finish, event.quality) == (CANCELLED, ESTIMATED)
    if is_continuous:
        assert event.tokens == {INPUT: 1_000, OUTPUT: 10}
    else:
        # LiteLLM's own count of a short prompt.
        assert 0 < event.tokens[INPUT] < 100


def test_call__that_fails(gateway: Gateway) -> None:
    """An error of the engine is no usage, and what comes after it is counted."""
    status, _ = gateway.ask(Plan(prompt=5, completion=5, status=400), "r-failed")
    assert status == 400
    gateway.ask(PLAN, "r-after")
    gateway.event("r-after")
    assert "r-failed" not in recorded_events(gateway.meter.database_url)


def test_calls__while_the_meter_is_away(gateway: Gateway) -> None:
    """What is asked meanwhile is counted once the meter is back, once each."""
    gateway.meter.kill()
    try:
        for place in range(3):
            assert gateway.ask(PLAN, f"r-away-{place}")[0] == 200
    finally:
        gateway.meter.start()
    for place in range(3):
        event = gateway.event(f"r-away-{place}", seconds_max=RETRIES_SECONDS_MAX)
        assert event.tokens == COUNTED
