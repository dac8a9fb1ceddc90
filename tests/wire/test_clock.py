"""A sandbox over a real server: its clock is told everywhere, and moved forward by whoever may."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, reason_of, rows
from tests.wire.talk import (
    call_of,
    counting_held,
    failure_of,
    read_http,
    read_metric,
    wait_until,
)
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1 import account_service_pb2, meter_service_pb2
from tokenworks.meter.v1 import clock_service_pb2 as pb
from tokenworks.meter.v1.clock_service_pb2_grpc import ClockServiceStub
from tokenworks.meter.v1.outcome_pb2 import Outcome

# 2026-10-01T00:00:00Z.
BEGIN_MS = 1_790_812_800_000
MINUTE_MS = 60_000
EDGE_MS = 15 * MINUTE_MS
DAY_MS = 96 * EDGE_MS
CALL_SECONDS_MAX = 60
MARK = "tokenworks-sandbox-clock"
CUTS = "SELECT (extract(epoch FROM cut_time) * 1000)::bigint FROM cuts ORDER BY cut_id"
SANDBOX = {"sandbox_clock": "2026-10-01T00:00:00Z"}


@pytest.fixture
def sandbox(database_url: str, tmp_path: Path) -> Iterator[RunningMeter]:
    """A sandbox that was just born."""
    with running_meter_on(database_url, folder=tmp_path, settings=SANDBOX) as running:
        yield running


@pytest.fixture(scope="module")
def still(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A sandbox whose clock nobody moves."""
    folder = tmp_path_factory.mktemp("still")
    with cluster.database() as url, running_meter_on(url, folder=folder, settings=SANDBOX) as meter:
        yield meter


class Clock:
    """ClockService as a caller with an API key sees it."""

    def __init__(self, meter: RunningMeter, *, api_key: str | None = None) -> None:
        self.session = Session(meter, api_key=api_key)
        self._stub = ClockServiceStub(self.session.channel)
        self._options: dict[str, Any] = {
            "metadata": self.session.metadata,
            "timeout": CALL_SECONDS_MAX,
            "wait_for_ready": True,
        }

    def now_ms(self) -> int:
        """Ask for the time."""
        return self.ask().now.ToMilliseconds()

    def ask(self) -> pb.GetClockResponse:
        """Ask for the time, and whether it is driven."""
        return self._stub.GetClock(pb.GetClockRequest(), **self._options)

    def move_later(self, to_ms: int) -> Any:  # noqa: ANN401
        """Begin to move the clock; returns the call's future."""
        request = pb.AdvanceClockRequest()
        request.to.FromMilliseconds(to_ms)
        return self._stub.AdvanceClock.future(request, **self._options)

    def move(self, to_ms: int) -> pb.AdvanceClockResponse:
        """Move the clock."""
        answer = self.move_later(to_ms).result()
        assert isinstance(answer, pb.AdvanceClockResponse)
        return answer


def ask_database(meter: RunningMeter, question: str) -> list[Any]:
    """Return the first column of a question's rows."""
    with psycopg.connect(meter.database_url) as connection:
        return [row[0] for row in connection.execute(question.encode()).fetchall()]


def midnights(*days: int) -> list[int]:
    """Return the midnights that begin so many days after the begin."""
    return [BEGIN_MS + day * DAY_MS for day in days]


def test_clock__real(running_meter: RunningMeter) -> None:
    """A real clock is told as such, in no metadata, and is moved by nobody."""
    clock = Clock(running_meter)
    before_ms = time_ns() // 1_000_000
    told = clock.ask()
    assert before_ms <= told.now.ToMilliseconds() <= time_ns() // 1_000_000
    assert not told.driven
    with pytest.raises(grpc.RpcError) as refused:
        clock.move(time_ns() // 1_000_000 + DAY_MS)
    assert reason_of(refused.value) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "CLOCK_REFUSED",
        False,
    )
    assert MARK not in dict(call_of(refused.value).trailing_metadata() or ())
    assert "\ntokenworks_sandbox 0.0\n" in read_http(running_meter, "/metrics")[1]


def test_clock__stands_still(still: RunningMeter) -> None:
    """A sandbox begins at the instant that it was told, stays there, and is as ready as others."""
    clock = Clock(still)
    assert [clock.ask().driven, clock.now_ms(), clock.now_ms()] == [True, BEGIN_MS, BEGIN_MS]
    assert read_metric(still, "tokenworks_sandbox") == 1
    assert read_http(still, "/readyz") == (200, "OK\n")


def test_advance__a_month(sandbox: RunningMeter) -> None:
    """A month is lived by its edges, with a cut at each midnight, and is there after kill -9."""
    clock = Clock(sandbox)
    wait_until(lambda: ask_database(sandbox, CUTS))
    done = clock.move(BEGIN_MS + 31 * DAY_MS)
    assert (done.edge_count, done.cut_count) == (31 * 96, 31)
    assert (done.start_time.ToMilliseconds(), done.now.ToMilliseconds()) == (
        BEGIN_MS,
        BEGIN_MS + 31 * DAY_MS,
    )
    assert ask_database(sandbox, CUTS) == midnights(*range(32))
    sandbox.restart()
    assert clock.now_ms() == BEGIN_MS + 31 * DAY_MS
    assert clock.move(BEGIN_MS + 31 * DAY_MS).edge_count == 0
    assert ask_database(sandbox, CUTS) == midnights(*range(32))


def test_advance__late_and_early_events(sandbox: RunningMeter) -> None:
    """Events are too old and too early by the sandbox's time, as they would have been then."""
    clock = Clock(sandbox)
    clock.session.create_account("acme")
    clock.move(BEGIN_MS + 40 * DAY_MS + 7 * MINUTE_MS)
    now_ms = clock.now_ms()
    cases = {
        -36 * DAY_MS: Outcome.OUTCOME_TIME_TOO_OLD,
        -35 * DAY_MS - 1: Outcome.OUTCOME_TIME_TOO_OLD,
        -35 * DAY_MS: Outcome.OUTCOME_RECORDED,
        0: Outcome.OUTCOME_RECORDED,
        5 * MINUTE_MS: Outcome.OUTCOME_RECORDED,
        5 * MINUTE_MS + 1: Outcome.OUTCOME_TIME_IN_FUTURE,
        DAY_MS: Outcome.OUTCOME_TIME_IN_FUTURE,
    }
    events = [event(end_ms=now_ms + delta_ms) for delta_ms in cases]
    assert clock.session.record(*events) == list(cases.values())
    times = "SELECT DISTINCT (extract(epoch FROM {}) * 1000)::bigint FROM {}"
    for column, table in (
        ("commit_time", "journal"),
        ("claim_time", "event_claims"),
        ("received_time", "quarantine"),
    ):
        assert ask_database(sandbox, times.format(column, table)) == [now_ms]


def test_advance__cuts_what_was_acknowledged(sandbox: RunningMeter) -> None:
    """What was acknowledged before a midnight is below its cut, however fast it was counted."""
    clock = Clock(sandbox)
    clock.session.create_account("acme")
    wait_until(lambda: ask_database(sandbox, CUTS))
    for day in range(1, 4):
        for _ in range(3):
            clock.session.record(event(end_ms=clock.now_ms()))
        clock.move(BEGIN_MS + day * DAY_MS)
    assert ask_database(sandbox, CUTS) == midnights(0, 1, 2, 3)
    positions = "SELECT position FROM cut_positions ORDER BY cut_id"
    assert ask_database(sandbox, positions) == [0, 3, 6, 9]
    counted = "SELECT sum(request_count)::int FROM usage GROUP BY cut_id ORDER BY cut_id"
    assert ask_database(sandbox, counted) == [3, 3, 3]


@contextmanager
def held_before_midnight(clock: Clock, *, to_ms: int) -> Iterator[Any]:
    """A drive that waits before the first midnight, for something is not counted, in the block."""
    clock.session.create_account("acme")
    with counting_held(clock.session.meter.database_url):
        clock.session.record(event(end_ms=BEGIN_MS))
        moving = clock.move_later(to_ms)
        wait_until(lambda: clock.now_ms() == BEGIN_MS + DAY_MS - EDGE_MS)
        yield moving


def test_advance__killed_in_the_middle(sandbox: RunningMeter) -> None:
    """After kill -9 the clock stands where it was, and the rest of the way has each cut once."""
    clock = Clock(sandbox)
    wait_until(lambda: ask_database(sandbox, CUTS))
    with held_before_midnight(clock, to_ms=BEGIN_MS + 3 * DAY_MS) as moving:
        sandbox.kill()
        assert moving.exception() is not None
    sandbox.restart()
    assert clock.now_ms() == BEGIN_MS + DAY_MS - EDGE_MS
    assert ask_database(sandbox, CUTS) == midnights(0)
    done = clock.move(BEGIN_MS + 3 * DAY_MS)
    assert (done.edge_count, done.cut_count) == (2 * 96 + 1, 3)
    assert ask_database(sandbox, CUTS) == midnights(0, 1, 2, 3)


def test_advance__asked_to_stop_in_the_middle(sandbox: RunningMeter) -> None:
    """A server that is asked to stop ends the drive, and says so to whoever waits for it."""
    clock = Clock(sandbox)
    with ThreadPoolExecutor() as pool:
        with held_before_midnight(clock, to_ms=BEGIN_MS + 3 * DAY_MS) as moving:
            stopping = pool.submit(sandbox.stop)
            assert failure_of(moving.result)[:2] == ("UNAVAILABLE", "SHUTTING_DOWN")
        assert stopping.result() == 0


def test_advance__caller_gone(sandbox: RunningMeter) -> None:
    """Whoever breaks off leaves the clock at an edge, and holds up nobody who comes after."""
    clock = Clock(sandbox)
    with held_before_midnight(clock, to_ms=BEGIN_MS + 3 * DAY_MS) as moving:
        moving.cancel()
        done = clock.move(BEGIN_MS + DAY_MS - EDGE_MS + 7)
        assert done.start_time.ToMilliseconds() == BEGIN_MS + DAY_MS - EDGE_MS
    assert clock.now_ms() == BEGIN_MS + DAY_MS - EDGE_MS + 7


def test_advance__two_at_once(sandbox: RunningMeter) -> None:
    """Of two drives the second begins where the first has ended; meanwhile calls are answered."""
    clock = Clock(sandbox)
    with held_before_midnight(clock, to_ms=BEGIN_MS + 2 * DAY_MS) as first:
        second = clock.move_later(BEGIN_MS + 3 * DAY_MS)
        request = meter_service_pb2.QueryUsageRequest()
        request.start_time.FromMilliseconds(BEGIN_MS)
        request.end_time.FromMilliseconds(BEGIN_MS + DAY_MS)
        answer = clock.session.call("QueryUsage", request)
        # The last that is counted was so at the begin, by the sandbox's clock.
        assert answer.counted_until.ToMilliseconds() == BEGIN_MS
        assert clock.session.record(event(end_ms=BEGIN_MS)) == [Outcome.OUTCOME_RECORDED]
        assert not first.done()
        assert not second.done()
    assert first.result().now.ToMilliseconds() == BEGIN_MS + 2 * DAY_MS
    assert second.result().start_time.ToMilliseconds() == BEGIN_MS + 2 * DAY_MS
    answer = clock.session.call("QueryUsage", request)
    assert answer.counted_until.ToMilliseconds() == BEGIN_MS + 3 * DAY_MS


@pytest.mark.parametrize(
    ("delta_ms", "code", "reason"),
    [
        (-BEGIN_MS, "INVALID_ARGUMENT", "ARGUMENT_INVALID"),
        (100 * DAY_MS + 1, "INVALID_ARGUMENT", "ARGUMENT_INVALID"),
        (-1, "FAILED_PRECONDITION", "CLOCK_REFUSED"),
    ],
)
def test_advance__refused(still: RunningMeter, delta_ms: int, code: str, reason: str) -> None:
    """The clock goes nowhere that is not said, too far away, or past."""
    clock = Clock(still)
    assert failure_of(lambda: clock.move(BEGIN_MS + delta_ms)) == (code, reason, False)
    assert clock.now_ms() == BEGIN_MS


def test_advance__without_role(still: RunningMeter) -> None:
    """Any API key may ask for the time; only an operator of everything moves it."""
    admin = Session(still)
    admin.create_account("acme")
    request = account_service_pb2.CreateApiKeyRequest(account="acme")
    for role in account_service_pb2.Role.values()[1:]:
        request.scopes.add(role=role, account="acme")
    key = admin.call("CreateApiKey", request).secret
    clock = Clock(still, api_key=key)
    assert clock.now_ms() == BEGIN_MS
    refused = failure_of(lambda: clock.move(BEGIN_MS + EDGE_MS))
    assert refused == ("PERMISSION_DENIED", "SCOPE_MISSING", False)
    assert failure_of(Clock(still, api_key="tw").ask)[0] == "UNAUTHENTICATED"


def test_mark__in_every_answer(sandbox: RunningMeter) -> None:
    """Answers, streams and errors of every service tell the sandbox's clock as they end."""
    clock = Clock(sandbox)
    session = clock.session
    session.create_account("acme")
    clock.move(BEGIN_MS + EDGE_MS + 7)
    now = {MARK: "2026-10-01T00:15:00.007Z"}
    stub = ClockServiceStub(session.channel)
    _, call = stub.GetClock.with_call(pb.GetClockRequest(), metadata=session.metadata)
    assert dict(call.trailing_metadata()) == now
    stream: Any = session.stream([opening(), rows(1, event(end_ms=BEGIN_MS))])
    assert len(list(stream)) == 2
    assert dict(stream.trailing_metadata()) == now
    for act in (
        lambda: session.call("GetAccount", account_service_pb2.GetAccountRequest(account="none")),
        lambda: session.call("QueryUsage", meter_service_pb2.QueryUsageRequest()),
        lambda: list(session.stream([rows(1, event())])),
        Clock(sandbox, api_key="tw").ask,
    ):
        assert now.items() <= trailing_of(act).items()


def trailing_of(act: Callable[[], object]) -> dict[str, str | bytes]:
    """Return the trailing metadata of what must fail."""
    with pytest.raises(grpc.RpcError) as failure:
        act()
    return dict(call_of(failure.value).trailing_metadata() or ())


def test_claims__are_forgotten_by_the_sandbox_clock(sandbox: RunningMeter) -> None:
    """Event ids are remembered for 36 days of the sandbox, wherever the real clock stands."""
    clock = Clock(sandbox)
    clock.session.create_account("acme")
    first = event(end_ms=BEGIN_MS)
    clock.session.record(first)
    clock.move(BEGIN_MS + 5 * DAY_MS)
    clock.session.record(event(end_ms=BEGIN_MS))
    clock.move(BEGIN_MS + 35 * DAY_MS)
    assert clock.session.record(first) == [Outcome.OUTCOME_DUPLICATE]
    count = "SELECT count(*) FROM event_claims"
    clock.move(BEGIN_MS + 37 * DAY_MS)
    # They are looked through at the start: one is old by now, the other is not.
    sandbox.restart()
    wait_until(lambda: ask_database(sandbox, count) == [1])
    assert clock.session.record(first) == [Outcome.OUTCOME_TIME_TOO_OLD]


def test_server__beside_another(sandbox: RunningMeter, tmp_path: Path) -> None:
    """A second server of the sandbox follows the clock that the first one moves."""
    folder = tmp_path / "second"
    folder.mkdir()
    settings = SANDBOX | {"shard": "1"}
    with running_meter_on(sandbox.database_url, folder=folder, settings=settings) as second:
        Clock(sandbox).move(BEGIN_MS + DAY_MS)
        wait_until(lambda: Clock(second).now_ms() == BEGIN_MS + DAY_MS)
        assert Clock(second).move(BEGIN_MS + DAY_MS + EDGE_MS).edge_count == 1
