"""A producer in TypeScript, written by hand against the .proto files, against a real meter."""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance import checker
from tests.acceptance.counted import wait_until_counted
from tests.running_meter import RunningMeter
from tokenworks.meter.v1 import account_service_pb2 as account_messages
from tokenworks.meter.v1 import account_service_pb2_grpc as account_services
from tokenworks.meter.v1 import meter_service_pb2 as messages
from tokenworks.meter.v1 import meter_service_pb2_grpc as services
from tokenworks.meter.v1 import usage_pb2

FOLDER = Path(__file__).parent / "typescript"
PROTO = Path(__file__).parents[2] / "proto"
COMMAND_SECONDS_MAX = 120
BATCHES, ROWS = 20, 50
INTERVAL_SECONDS = 900
pytestmark = [
    pytest.mark.stacks,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]


@dataclass(frozen=True, slots=True)
class Sent:
    """What the client says it sent: counters, and the events as truth."""

    counters: Counter[str]
    events: list[dict[str, Any]]


def test_stream_rows__from_typescript(running_meter: RunningMeter, tmp_path: Path) -> None:
    """A client made from the .proto files alone is counted to the token."""
    account = _create_account(running_meter)
    sent = _run_client(running_meter, account=account)
    assert len(sent.events) == BATCHES * ROWS
    assert sent.counters["repeated_count"] == 1
    assert sent.counters["went_back_count"] >= 1
    assert sent.counters["set_aside_count"] == 0

    wait_until_counted(running_meter.database_url)
    truth = tmp_path / "typescript.jsonl"
    truth.write_text("".join(f"{json.dumps(event)}\n" for event in sent.events), "utf-8")
    assert checker.main(["--database-url", running_meter.database_url, str(truth)]) == 0
    assert _queried(running_meter, account=account, events=sent.events) == _summed(sent.events)


def test_guide__records_from_typescript(running_meter: RunningMeter, tmp_path: Path) -> None:
    """The guide's program is compiled as strictly, and records what it says."""
    ((program, printed),) = re.findall(
        r"^```ts\n(.*?)^```\n\n```text ts\n(.*?)^```$",
        (PROTO.parent / "docs/guides/any-language.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    _create_account(running_meter, account="acme")
    _install()
    (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")
    (tmp_path / "record.ts").write_text(program, "utf-8")
    shutil.copyfile(FOLDER / "package.json", tmp_path / "package.json")
    options = json.loads((FOLDER / "tsconfig.json").read_text("utf-8"))
    (tmp_path / "tsconfig.json").write_text(json.dumps(options | {"files": ["record.ts"]}), "utf-8")
    _run("npm", "run", "build", folder=tmp_path)
    told = _run(
        *("node", "build/record.js", running_meter.target, str(PROTO)),
        environment={"TOKENWORKS_API_KEY": running_meter.api_key},
        folder=tmp_path,
    )
    assert told == printed


def _install() -> None:
    _run("npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")


def _run_client(meter: RunningMeter, *, account: str) -> Sent:
    """Install, compile in strict mode, and run the client."""
    _install()
    _run("npm", "run", "build")
    printed = _run(
        *("node", "build/client.js", meter.target, str(PROTO), account, str(BATCHES), str(ROWS)),
        environment={"TOKENWORKS_API_KEY": meter.api_key},
    )
    answer = json.loads(printed)
    events = answer.pop("events")
    return Sent(Counter(answer), events)


def _run(*command: str, environment: dict[str, str] | None = None, folder: Path = FOLDER) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command[:2])}:\n{done.stdout}{done.stderr}"
    return done.stdout


def _create_account(meter: RunningMeter, *, account: str = "") -> str:
    with grpc.insecure_channel(meter.target) as channel:
        stub = account_services.AccountServiceStub(channel)
        request = account_messages.CreateAccountRequest(handle="typescript", account=account)
        return stub.CreateAccount(request, metadata=_metadata(meter)).account.account


def _queried(
    meter: RunningMeter, *, account: str, events: list[dict[str, Any]]
) -> Counter[tuple[str, str]]:
    """What QueryUsage answers, by tier and class."""
    seconds = [event["end_time_ms"] // 1_000 for event in events]
    start = min(seconds) // INTERVAL_SECONDS * INTERVAL_SECONDS
    end = (max(seconds) // INTERVAL_SECONDS + 1) * INTERVAL_SECONDS
    request = messages.QueryUsageRequest(
        account=account,
        start_time=Timestamp(seconds=start),
        end_time=Timestamp(seconds=end),
        group_by=[messages.GROUP_BY_TIER],
    )
    with grpc.insecure_channel(meter.target) as channel:
        answer = services.MeterServiceStub(channel).QueryUsage(request, metadata=_metadata(meter))
    sums: Counter[tuple[str, str]] = Counter()
    for row in answer.rows:
        sums[row.tier, "requests"] += row.request_count
        for tokens in row.tokens:
            name = usage_pb2.TokenClass.Name(tokens.token_class).removeprefix("TOKEN_CLASS_")
            sums[row.tier, name.lower()] += tokens.count
    return sums


def _summed(events: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """What the client says it sent, by tier and class."""
    sums: Counter[tuple[str, str]] = Counter()
    for event in events:
        sums[event["tier"], "requests"] += 1
        for name, count in event["classes"].items():
            sums[event["tier"], name] += count
    return sums


def _metadata(meter: RunningMeter) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {meter.api_key}"),)
