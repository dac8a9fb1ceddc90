"""LiteLLM's records by HTTP: counted once, and answered so that what waits is sent again."""

import json
import uuid
from typing import Any

from meter.domain.errors import Overloaded, Reason
from meter.wire.litellm import format_error
from tests.running_meter import RunningMeter
from tests.wire.apart import Apart
from tests.wire.posting import Answer, post
from tests.wire.talk import read_metric
from tokenworks.meter.v1 import usage_pb2

PATH = "/v1/litellm"
INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT


def record(session: Apart, account: str = "acme", **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a record of a call of its own."""
    return {
        "id": "chatcmpl-none",
        "litellm_call_id": uuid.uuid4().hex,
        "call_type": "acompletion",
        "status": "success",
        "custom_llm_provider": "openai",
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "model": "openai/m",
        "model_group": "m",
        "metadata": {
            "user_api_key_team_id": session.own(account),
            "usage_object": {"prompt_tokens": 100, "completion_tokens": 7},
            "requester_custom_headers": {"x-tokenworks-tier": "high"},
        },
    } | changes


def send(session: Apart, *records: object) -> Answer:
    """Send a batch with the session's key."""
    key = session.metadata[0][1].removeprefix("Bearer ")
    body = json.dumps(records).encode()
    return post(session.meter, PATH, body, content_type="application/json", api_key=key)


def test_records__are_counted_once(apart: Apart) -> None:
    """A batch that is sent again, since its answer was lost, counts nothing more."""
    batch = [record(apart), record(apart)]
    for _ in range(2):
        answer = send(apart, *batch)
        assert (answer.status, answer.body) == (204, b"")
    assert apart.counted() == {("acme", "high", INPUT): 200, ("acme", "high", OUTPUT): 14}


def test_records__of_a_team_that_nobody_knows(apart: Apart) -> None:
    """It waits for a person; to the proxy all is well."""
    assert send(apart, record(apart, "nobody"), record(apart)).status == 204
    assert len(apart.quarantine()) == 1
    assert apart.counted()["acme", "high", INPUT] == 100


def test_records__of_which_some_cannot_be_read(apart: Apart) -> None:
    """The others are recorded, those are counted by themselves, and failures are nothing."""
    source = {"source": "litellm"}
    before = read_metric(apart.meter, "tokenworks_reports_unreadable_total", **source)
    broken = record(apart, metadata={"usage_object": {"prompt_tokens": "many"}})
    failed = record(apart, metadata={}, status="failure", prompt_tokens=0, completion_tokens=0)
    assert send(apart, broken, failed, 7, record(apart)).status == 204
    assert apart.counted()["acme", "high", INPUT] == 100
    after = read_metric(apart.meter, "tokenworks_reports_unreadable_total", **source)
    assert after == before + 2


def test_records__that_are_none(shared_meter: RunningMeter) -> None:
    """What is no JSON is refused, and LiteLLM does not send it again."""
    answer = post(shared_meter, PATH, b"{", content_type="application/json")
    assert (answer.status, answer.reason) == (400, "ARGUMENT_INVALID")


def test_records__too_many(shared_meter: RunningMeter) -> None:
    """A call has at most so many as any other."""
    body = b"[" + b"{}," * 10_000 + b"{}]"
    answer = post(shared_meter, PATH, body, content_type="application/json")
    assert (answer.status, answer.reason) == (413, "MESSAGE_TOO_LARGE")


def test_records__that_have_to_wait() -> None:
    """LiteLLM sends again after 500 and more alone: who has to wait is told so by 503."""
    error = Overloaded(Reason.OVERLOADED, "Send again later.")
    answer = format_error(error, status=429, content_type="application/json")
    assert answer.status == 503
    assert json.loads(answer.body)["error"]["reason"] == "OVERLOADED"
