"""Settings of `serve` that are seen from outside only when events come."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from cli.connection import Client, connect, find_reason
from cli.settings import Settings
from tests.running_meter import RunningMeter, running_meter_on
from tokenworks.meter.v1.account_service_pb2 import CreateAccountRequest
from tokenworks.meter.v1.meter_service_pb2 import RecordUsageRequest
from tokenworks.meter.v1.outcome_pb2 import OUTCOME_RECORDED, OUTCOME_TIER_UNKNOWN
from tokenworks.meter.v1.usage_pb2 import TOKEN_CLASS_INPUT, Dimensions, TokenCount, UsageEvent

BUFFER_BYTES = 1024 * 1024
CALLS_MAX = 1000


def test_shard__of_the_journal(database_url: str, tmp_path: Path) -> None:
    """The process writes the shard that it is told to own."""
    with running_meter_on(database_url, folder=tmp_path, settings={"shard": "7"}) as running:
        with _client(running) as client:
            answer = client.meter.RecordUsage(_request("one"))
        assert list(answer.outcomes) == [OUTCOME_RECORDED]
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT DISTINCT shard FROM journal").fetchall() == [(7,)]


def test_tiers__of_the_installation(database_url: str, tmp_path: Path) -> None:
    """Only the tiers that are sold are recorded."""
    settings = {"tiers": "gold,silver"}
    with (
        running_meter_on(database_url, folder=tmp_path, settings=settings) as running,
        _client(running) as client,
    ):
        for tier, outcome in (("gold", OUTCOME_RECORDED), ("free", OUTCOME_TIER_UNKNOWN)):
            answer = client.meter.RecordUsage(_request(tier, tier=tier))
            assert list(answer.outcomes) == [outcome]


def test_buffer_bytes_max__full(database_url: str, tmp_path: Path) -> None:
    """When the buffer is full, calls are refused at once, and those in it are recorded."""
    settings = {"buffer_bytes_max": str(BUFFER_BYTES)}
    with (
        running_meter_on(database_url, folder=tmp_path, settings=settings) as running,
        _client(running) as client,
    ):
        with psycopg.connect(database_url) as holder:
            # No commit gets past this lock, so all that comes in waits.
            holder.execute("LOCK TABLE journal IN ACCESS EXCLUSIVE MODE")
            waiting, refused = _fill(client)
            holder.rollback()
        assert find_reason(refused) == "OVERLOADED"
        recorded = sum(len(call.result().outcomes) for call in waiting if call.exception() is None)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT sum(event_count) FROM journal").fetchone() == (recorded,)
    assert recorded > 0


def _fill(client: Client) -> tuple[list[Any], Any]:
    """Send until one is refused: the calls that wait, and the refused one."""
    calls: list[Any] = []
    while len(calls) < CALLS_MAX:
        request = _request(f"event-{len(calls)}", count=1000)
        calls.append(client.meter.RecordUsage.future(request))
        refused = next((call for call in calls if call.done()), None)
        if refused is not None:
            return [call for call in calls if call is not refused], refused
    raise AssertionError("none was refused")


@contextmanager
def _client(running: RunningMeter) -> Iterator[Client]:
    """The stubs, with an account to report for."""
    with connect(settings=Settings(server=running.target, api_key=running.api_key)) as client:
        client.accounts.CreateAccount(CreateAccountRequest(handle="acme", account="acme"))
        yield client


def _request(name: str, *, tier: str = "free", count: int = 1) -> RecordUsageRequest:
    events = [
        UsageEvent(
            event_id=f"{name}-{number}",
            dimensions=Dimensions(account="acme", model="m" * 100, tier=tier),
            tokens=[TokenCount(token_class=TOKEN_CLASS_INPUT, count=1)],
            request_id="r" * 100,
        )
        for number in range(count)
    ]
    for event in events:
        event.end_time.GetCurrentTime()
    return RecordUsageRequest(events=events)
