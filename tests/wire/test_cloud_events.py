"""CloudEvents by HTTP: what is recorded, once, and what is answered."""

import json
import uuid
from typing import Any

import pytest

from tests.running_meter import RunningMeter
from tests.wire.apart import Apart
from tests.wire.posting import Answer, post
from tests.wire.session import Session
from tests.wire.talk import read_metric
from tokenworks.meter.v1 import account_service_pb2, usage_pb2

PATH = "/api/v1/events"
BATCH = "application/cloudevents-batch+json"
SINGLE = "application/cloudevents+json"
MISFIT = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 9},
}
INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT


def event(session: Apart, account: str = "acme", **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a whole event with an id of its own."""
    return {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "shop",
        "type": "inference.tokens.used",
        "subject": session.own(account),
        "data": {"model": "m", "tier": "high", "tokens": {"input": 100, "output": 7}},
    } | changes


def send(session: Apart, *events: dict[str, Any]) -> Answer:
    """Send a batch with the session's key."""
    key = session.metadata[0][1].removeprefix("Bearer ")
    body = json.dumps(events).encode()
    return post(session.meter, PATH, body, content_type=BATCH, api_key=key)


def test_events__are_counted(apart: Apart) -> None:
    """A whole event is an event of ours, and is answered without a word once it is recorded."""
    body = json.dumps(event(apart)).encode()
    answer = post(apart.meter, PATH, body, content_type=SINGLE)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["tokenworks-outcomes"] == "RECORDED=1"
    assert apart.counted() == {("acme", "high", INPUT): 100, ("acme", "high", OUTPUT): 7}


def test_events__sent_again(apart: Apart) -> None:
    """The same event a second time is a success and counts nothing."""
    sent = event(apart)
    assert send(apart, sent, sent).headers["tokenworks-outcomes"] == "DUPLICATE=1, RECORDED=1"
    again = send(apart, sent)
    assert (again.status, again.headers["tokenworks-outcomes"]) == (204, "DUPLICATE=1")
    assert apart.counted()["acme", "high", INPUT] == 100


def test_events__of_openmeter(apart: Apart) -> None:
    """Input and output of one request come as two events, and both are counted."""
    data = {"model": "m", "tier": "high"}
    sent = [
        event(apart, type="tokens", data={**data, "tokens": "12", "type": "input"}),
        event(apart, type="tokens", data={**data, "tokens": 5, "type": "output"}),
        event(apart, type="page.viewed", data={"page": "/"}),
    ]
    assert send(apart, *sent).headers["tokenworks-outcomes"] == "RECORDED=2"
    assert apart.counted() == {("acme", "high", INPUT): 12, ("acme", "high", OUTPUT): 5}


def test_events__in_binary_mode(apart: Apart) -> None:
    """The attributes may be headers."""
    sent = event(apart)
    headers = {f"ce_{name}": value for name, value in sent.items() if name != "data"}
    answer = post(apart.meter, PATH, json.dumps(sent["data"]).encode(), **headers)
    assert answer.status == 204
    assert send(apart, sent).headers["tokenworks-outcomes"] == "DUPLICATE=1"


def test_events__of_one_request(apart: Apart) -> None:
    """Two events that name the same request are two requests to whoever sent both: one waits."""
    data = event(apart)["data"] | {"request_id": uuid.uuid4().hex}
    assert send(apart, event(apart, data=data)).headers["tokenworks-outcomes"] == "RECORDED=1"
    assert (
        send(apart, event(apart, data=data)).headers["tokenworks-outcomes"] == "REQUEST_ID_REUSED=1"
    )
    assert apart.counted()["acme", "high", INPUT] == 100


def test_events__that_cannot_be_counted(apart: Apart) -> None:
    """Whom nobody knows, and what does not fit, waits for a person; its sender has done well."""
    data = event(apart)["data"]
    answer = send(
        apart,
        event(apart, account="nobody"),
        event(apart, data={**data, "tier": "gold"}),
        event(apart, data={**data, "model": ""}),
        event(apart, data={**data, "mode": "slow"}),
        event(apart, data={**data, "finish": "weird"}),
        event(apart, data={**data, "quality": "good"}),
        event(apart, data={**data, "tokens": {"input": 1, "magic": 2}}),
        event(apart, data={**data, "tokens": {"input": -1}}),
        event(apart, data={**data, "tokens": {"input": 10**30}}),
        event(apart, data={**data, "reported_input": 99}),
        event(apart, data={**data, "profile": "openai", "usage": MISFIT}),
        event(apart, time="2001-01-01T00:00:00Z"),
        event(apart, time="9999-12-31T23:59:59Z"),
    )
    assert answer.status == 204
    names = [it.partition("=")[0] for it in answer.headers["tokenworks-outcomes"].split(", ")]
    assert names == [
        "ACCOUNT_UNKNOWN",
        "CLASS_UNKNOWN",
        "COUNT_ABOVE_LIMIT",
        "COUNT_MISMATCH",
        "COUNT_NEGATIVE",
        "FIELD_INVALID",
        "FINISH_UNKNOWN",
        "MODE_UNKNOWN",
        "QUALITY_UNKNOWN",
        "TIER_UNKNOWN",
        "TIME_IN_FUTURE",
        "TIME_TOO_OLD",
    ]
    assert len(apart.quarantine()) == 13
    assert apart.counted() == {}


def test_events__of_which_some_cannot_be_read(apart: Apart) -> None:
    """The others are recorded all the same; alone it is refused, and its sender learns why."""
    broken = event(apart, data={"model": "m", "tokens": "many"})
    before = read_metric(apart.meter, "tokenworks_reports_unreadable_total", source="cloud_events")
    answer = send(apart, broken, event(apart))
    assert answer.headers["tokenworks-outcomes"] == "RECORDED=1, UNREADABLE=1"
    alone = send(apart, broken)
    assert (alone.status, alone.reason) == (400, "ARGUMENT_INVALID")
    assert "data has neither tokens nor usage" in alone.body.decode()
    after = read_metric(apart.meter, "tokenworks_reports_unreadable_total", source="cloud_events")
    assert after == before + 2


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"{", "JSON"), (b"[{}]", "specversion of event 0"), (b"[7]", "event 0 must be an object")],
)
def test_events__that_are_none(shared_meter: RunningMeter, body: bytes, told: str) -> None:
    """What is no CloudEvent is refused whole, with the place and the rule."""
    answer = post(shared_meter, PATH, body, content_type=BATCH)
    assert (answer.status, answer.reason) == (400, "ARGUMENT_INVALID")
    assert told in answer.body.decode()


def test_events__none(shared_meter: RunningMeter) -> None:
    """A batch of nothing is a success."""
    assert post(shared_meter, PATH, b"[]", content_type=BATCH).status == 204


def test_events__too_many(apart: Apart) -> None:
    """A call has at most as many events as a batch of a stream."""
    answer = send(apart, *[{**event(apart), "data": {}}] * 10_001)
    assert (answer.status, answer.reason) == (413, "MESSAGE_TOO_LARGE")


def test_events__in_a_large_batch(apart: Apart) -> None:
    """A batch of thousands is counted as one of few is."""
    sent = event(apart)
    events = [{**sent, "id": f"{sent['id']}-{index}"} for index in range(2_000)]
    assert send(apart, *events).headers["tokenworks-outcomes"] == "RECORDED=2000"
    assert apart.counted()["acme", "high", INPUT] == 200_000


def test_events__outside_the_keys_accounts(apart: Apart) -> None:
    """A key reports for its own accounts; what is of others is set aside."""
    apart.create_account("other")
    key = key_of(apart, "acme", account_service_pb2.ROLE_PRODUCER)
    answer = send(apart.with_key(key), event(apart), event(apart, account="other"))
    assert answer.headers["tokenworks-outcomes"] == "ACCOUNT_OUT_OF_SCOPE=1, RECORDED=1"


def key_of(session: Apart, account: str, role: int) -> str:
    """Create an API key of an account with one role on it."""
    scope = account_service_pb2.Scope(role=role, account=session.own(account))  # type: ignore[arg-type]
    request = account_service_pb2.CreateApiKeyRequest(account=session.own(account), scopes=[scope])
    return str(Session.call(session, "CreateApiKey", request).secret)
