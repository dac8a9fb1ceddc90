"""`tokenworks usage quarantine …`: the real command against a real meter."""

import grpc
import pytest

from cli.process import Exit
from tests.cli.shell import Shell, shell_of
from tests.running_meter import RunningMeter
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2
from tokenworks.meter.v1.meter_service_pb2_grpc import MeterServiceStub

EVENT = ("usage", "record", "--model", "llama-4", "--input", "5")


@pytest.fixture
def shell(running_meter: RunningMeter) -> Shell:
    """A shell; there are acme, acme/team and other."""
    return shell_of(running_meter)


def test_release__when_the_cause_is_mended(shell: Shell) -> None:
    """An event of an account that was not there is counted once the account is, and released."""
    event = (*EVENT, "--account", "id:late", "--tier", "high")
    shell.run(*event, code=Exit.REFUSED)
    shown = shell.run("usage", "quarantine", "list").stdout
    assert "late llama-4 high, 5 input" in shown
    assert "tokenworks usage quarantine release ID" in shown
    (entry,) = shell.run_json("usage", "quarantine", "list")
    assert (entry["outcome"], entry["state"]) == ("ACCOUNT_UNKNOWN", "held")
    number = str(entry["quarantine_id"])
    refused = shell.run("usage", "quarantine", "release", number, code=Exit.REFUSED)
    assert "ACCOUNT_UNKNOWN" in refused.stderr
    shell.run("accounts", "create", "late", "--id", "late")
    assert "released" in shell.run("usage", "quarantine", "release", number).stdout
    (row,) = shell.show("late", requests=1)
    assert row["tokens"] == {"input": 5}
    assert shell.run_json("usage", "quarantine", "list") == []
    (entry,) = shell.run_json("usage", "quarantine", "list", "--state", "released")
    assert entry["state"] == "released"


def test_reject__for_good(shell: Shell) -> None:
    """What is rejected is not counted and cannot be released, and stays on record."""
    shell.run(*EVENT, "--account", "acme", "--tier", "hihg", code=Exit.REFUSED)
    (entry,) = shell.run_json("usage", "quarantine", "list")
    number = str(entry["quarantine_id"])
    shell.run("usage", "quarantine", "reject", number, code=Exit.USAGE)
    told = shell.run_json("usage", "quarantine", "reject", number, "--reason", "a typing error")
    assert told == {**entry, "state": "rejected"}
    shell.run("usage", "quarantine", "release", number, code=Exit.REFUSED)
    assert shell.run("usage", "quarantine", "list").stdout == "Nothing is held.\n"
    assert shell.run_json("usage", "quarantine", "list", "--state", "any") == [told]


def test_list__limited(shell: Shell) -> None:
    """So many are listed, the oldest first, and it is said that there are more."""
    for count in (1, 2, 3):
        words = ("--account", "acme", "--tier", "hihg", "--output", str(count))
        shell.run(*EVENT, *words, code=Exit.REFUSED)
    result = shell.run("usage", "quarantine", "list", "--limit", "2", "--json")
    assert "more than 2" in result.stderr
    outputs = [line.split()[-1] for line in result.stdout.splitlines() if '"output"' in line]
    assert outputs == ["1", "2"]
    assert "more than" not in shell.run("usage", "quarantine", "list", "--limit", "3").stderr


def test_list__of_a_request_id_that_was_used_again(
    shell: Shell, running_meter: RunningMeter
) -> None:
    """Who reported it is said, and under which id it would be counted."""
    shell.run("accounts", "create", "payer", "--id", "payer")
    request = meter_service_pb2.RecordUsageRequest(source=usage_pb2.SOURCE_ENVOY)
    for count in (1, 2):
        event = request.events.add(event_id=f"e{count}", request_id="again")
        event.dimensions.account, event.dimensions.tier = "payer", "high"
        event.dimensions.model = "m"
        event.end_time.FromMilliseconds(time_ns() // 1_000_000)
        event.tokens.add(count=count, token_class=usage_pb2.TOKEN_CLASS_INPUT)
    with grpc.insecure_channel(running_meter.target) as channel:
        metadata = (("authorization", f"Bearer {running_meter.api_key}"),)
        MeterServiceStub(channel).RecordUsage(request, metadata=metadata)
    shown = " ".join(shell.run("usage", "quarantine", "list").stdout.split())
    assert "payer m high, 2 input, by envoy, request again~" in shown
    (entry,) = shell.run_json("usage", "quarantine", "list")
    assert (entry["outcome"], entry["source"]) == ("REQUEST_ID_REUSED", "envoy")


def test_list__of_hostile_text(shell: Shell, running_meter: RunningMeter) -> None:
    """What was reported cannot steer the terminal of whoever looks at it, nor end the command."""
    event = usage_pb2.UsageEvent(event_id="e")
    event.dimensions.account, event.dimensions.tier = "acme", "\x1b[2J"
    event.dimensions.model = "[red]m[/red]"
    event.end_time.FromMilliseconds(time_ns() // 1_000_000)
    event.tokens.add(count=7).token_class = 99  # type: ignore[assignment]
    event.finish = 77  # type: ignore[assignment]
    request = meter_service_pb2.RecordUsageRequest(events=[event])
    with grpc.insecure_channel(running_meter.target) as channel:
        metadata = (("authorization", f"Bearer {running_meter.api_key}"),)
        MeterServiceStub(channel).RecordUsage(request, metadata=metadata)
    shown = shell.run("usage", "quarantine", "list").stdout
    assert "acme [red]m[/red] '\\x1b[2J', 7 class 99" in shown
    assert "\x1b" not in shown
    (entry,) = shell.run_json("usage", "quarantine", "list")
    assert entry["event"]["tier"] == "\x1b[2J"
    assert entry["event"]["tokens"] == {"class_99": 7}
    assert entry["event"]["finish"] == 77


def test_quarantine__without_role(empty_shell: Shell) -> None:
    """Who may only read usage may not see what was set aside: it may be anyone's."""
    key = empty_shell.run_json("keys", "create", "acme", "--role", "reader")["secret"]
    refused = empty_shell.run("usage", "quarantine", "list", "--api-key", key, code=Exit.REFUSED)
    assert "SCOPE_MISSING" in refused.stderr


def test_release__of_no_entry(empty_shell: Shell) -> None:
    """An entry that is not there is named as such."""
    said = empty_shell.run("usage", "quarantine", "release", "404", code=Exit.FAILED).stderr
    assert "QUARANTINE_NOT_FOUND" in said
