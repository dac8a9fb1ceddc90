"""`tokenworks usage observed`: the real command against a real meter."""

import json
import uuid
from typing import Any

import pytest

from cli.process import Exit
from tests.cli.shell import Shell, shell_of
from tests.running_meter import RunningMeter
from tests.wire.posting import post
from tokenworks.client import Meter, Quality

EVENTS = "/api/v1/events"
BATCH = "application/cloudevents-batch+json"


@pytest.fixture
def shell(running_meter: RunningMeter) -> Shell:
    """A shell; there are acme, acme/team and other."""
    return shell_of(running_meter)


def send(shell: Shell, meter: RunningMeter, *, outcome: str, **data: Any) -> None:  # noqa: ANN401
    """Report the request r-1 as a CloudEvent."""
    event = {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "shop",
        "type": "inference.tokens.used",
        "subject": shell.run_json("accounts", "show", "acme")["account"],
        "data": {"model": "llama-4", "tier": "high", "request_id": "r-1", **data},
    }
    answer = post(meter, EVENTS, json.dumps([event]).encode(), content_type=BATCH)
    assert answer.headers["tokenworks-outcomes"] == outcome


def estimate(shell: Shell, meter: RunningMeter) -> None:
    """Report r-1 once more, as a client that has guessed."""
    with Meter(meter.target, api_key=meter.api_key, producer="p", source="asgi") as client:
        client.record(
            account=shell.run_json("accounts", "show", "acme")["account"],
            model="llama-4",
            tier="high",
            input=100,
            output=3,
            quality=Quality.ESTIMATED,
            request_id="r-1",
        )
        assert client.flush()


def send_litellm(shell: Shell, meter: RunningMeter, usage: dict[str, int]) -> None:
    """Report r-1 once more, as LiteLLM's proxy."""
    record = {
        **usage,
        "id": "chatcmpl-none",
        "litellm_call_id": uuid.uuid4().hex,
        "call_type": "acompletion",
        "status": "success",
        "custom_llm_provider": "openai",
        "model": "openai/llama-4",
        "model_group": "llama-4",
        "metadata": {
            "user_api_key_team_id": shell.run_json("accounts", "show", "acme")["account"],
            "usage_object": usage,
            "requester_custom_headers": {"x-tokenworks-tier": "high", "x-request-id": "r-1"},
        },
    }
    body = json.dumps([record]).encode()
    assert post(meter, "/v1/litellm", body, content_type="application/json").status == 204


def test_observed__shows_each_report_and_its_original(
    shell: Shell, running_meter: RunningMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counted report is marked, the other says what it differs by, and both as they came."""
    send(shell, running_meter, outcome="RECORDED=1", tokens={"input": 100, "output": 7})
    estimate(shell, running_meter)
    first, second = shell.run_json("usage", "observed", "r-1")
    assert (first["source"], first["is_counted"]) == ("cloud_events", True)
    assert (second["is_counted"], second["difference_count"]) == (False, -4)
    assert (first["raw"], second["raw"]) == ({"tokens": {"input": 100, "output": 7}}, None)
    assert first["event"]["request_id"] == "r-1"
    shown = shell.run("usage", "observed", "r-1").stdout
    assert "-4" in shown
    assert "estimated" in shown
    assert first["profile"] in shown
    send_litellm(shell, running_meter, {"prompt_tokens": 9, "completion_tokens": 1})
    read = [it["reread"] for it in shell.run_json("usage", "observed", "r-1", "--reread")]
    assert read == [{"input": 100, "output": 7}, None, {"input": 9, "output": 1}]
    assert "read today" not in shell.run("usage", "observed", "r-1", "--reread").stdout
    with monkeypatch.context() as mended:
        mended.setattr("cli.usage.observed.find_reread", lambda *_: {1: 8})
        assert (
            'read today: {"input": 8}' in shell.run("usage", "observed", "r-1", "--reread").stdout
        )
    voided = first["event"]["event_id"]
    shell.run("usage", "void", voided, "--reason", "a test")
    assert "a person has corrected it" in shell.run("usage", "observed", "r-1").stdout


def test_observed__that_nobody_reported(shell: Shell) -> None:
    """A request that was never reported, or another try of one, is not found."""
    refused = shell.run("usage", "observed", "r-0", "--attempt", "2", code=Exit.FAILED)
    assert "EVENT_NOT_FOUND" in refused.stderr
    refused = shell.run(
        "usage", "observed", "r-0", "--reporter", "acme", "--since", "1h", code=Exit.FAILED
    )
    assert "EVENT_NOT_FOUND" in refused.stderr
