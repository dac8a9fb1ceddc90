"""Envoy's access log service over a real server, as an Envoy speaks to it."""

import asyncio
import uuid
from queue import SimpleQueue
from typing import Any, Final

import pytest

from meter.domain.credential import Credential
from meter.domain.errors import InvalidArgument, Overloaded, Reason
from meter.domain.event import Dimensions
from meter.metrics import Metrics
from meter.sources.observation import Observation, Source
from meter.wire import held
from meter.wire.held import HeldReports
from tests.meter.sources.test_envoy import entry
from tests.wire.apart import Apart
from tests.wire.session import CALL_SECONDS_MAX
from tests.wire.talk import commits_held, failure_of, read_metric, wait_until
from tokenworks.foreign.envoy.v1 import access_log_pb2 as pb
from tokenworks.meter.v1 import account_service_pb2, outcome_pb2

METHOD: Final = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
INPUT, OUTPUT = 1, 7
UNKNOWN_ACCOUNT: Final = outcome_pb2.OUTCOME_ACCOUNT_UNKNOWN


class Envoy:
    """An Envoy's stream; what it says is sent at once, and only its end is answered."""

    def __init__(self, session: Apart) -> None:
        self._session = session
        self._said: SimpleQueue[pb.AccessLogMessage | None] = SimpleQueue()
        call = session.channel.stream_unary(
            METHOD,
            request_serializer=pb.AccessLogMessage.SerializeToString,
            response_deserializer=pb.AccessLogAnswer.FromString,
        )
        self._answer = call.future(
            iter(self._said.get, None), metadata=session.metadata, timeout=CALL_SECONDS_MAX
        )
        first = pb.AccessLogMessage()
        first.identifier.node.id = "edge-1"
        self._said.put(first)

    def log(self, *entries: pb.HttpEntry) -> None:
        """Send entries in one message."""
        self._said.put(pb.AccessLogMessage(http_logs=pb.HttpEntries(log_entry=entries)))

    def end(self) -> None:
        """End the stream and hear the answer; raises what ended it before."""
        self._said.put(None)
        self._answer.result()


def made(session: Apart, account: str = "acme", **changes: Any) -> pb.HttpEntry:  # noqa: ANN401
    """Return an entry of a request that was made just now, for an account of the test's own."""
    found = entry({"prompt_tokens": 3, "completion_tokens": 2, "model": "m"} | changes)
    found.request.request_headers["x-tokenworks-account"] = session.own(account)
    found.request.request_id = found.common_properties.stream_id = str(uuid.uuid4())
    found.common_properties.start_time.GetCurrentTime()
    return found


def observed(session: Apart, result: str) -> float:
    """Return how many of Envoys' reports had this result."""
    name = "tokenworks_observations_total"
    return read_metric(session.meter, name, source="envoy", result=result)


def test_stream__records_what_is_over(apart: Apart) -> None:
    """Entries are counted once, whenever they come again; the end of the stream is answered."""
    before = observed(apart, "duplicate")
    entries = [made(apart) for _ in range(3)]
    envoy = Envoy(apart)
    envoy.log(*entries)
    envoy.log(entries[0])
    wait_until(lambda: observed(apart, "duplicate") > before)
    envoy.end()
    assert apart.counted() == {("acme", "high", INPUT): 9, ("acme", "high", OUTPUT): 6}


def test_stream__sets_aside_whose_account_nobody_knows(apart: Apart) -> None:
    """An entry for an unknown account is in quarantine, to be released when there is one."""
    envoy = Envoy(apart)
    envoy.log(made(apart, account="nobody"))
    wait_until(apart.quarantine)
    envoy.end()
    (held_back,) = apart.quarantine()
    assert held_back.outcome == UNKNOWN_ACCOUNT
    assert apart.counted() == {}


def test_stream__counts_what_it_cannot_read(apart: Apart) -> None:
    """An entry with a count that is none is passed over; those beside it are recorded."""
    name = "tokenworks_reports_unreadable_total"
    before = read_metric(apart.meter, name, source="envoy")
    envoy = Envoy(apart)
    envoy.log(made(apart, prompt_tokens="a secret"), made(apart))
    wait_until(lambda: read_metric(apart.meter, name, source="envoy") == before + 1)
    envoy.end()
    wait_until(apart.counted)
    assert apart.counted() == {("acme", "high", INPUT): 3, ("acme", "high", OUTPUT): 2}
    log = apart.meter.log.read_text("utf-8")
    assert "reports_unreadable" in log
    assert "a secret" not in log


def test_stream__holds_what_cannot_be_recorded(apart: Apart) -> None:
    """While the database waits, reports wait here, also those of an Envoy that is gone."""
    name = "tokenworks_reports_held"
    envoy = Envoy(apart)
    with commits_held(apart.meter.database_url):
        envoy.log(made(apart), made(apart))
        wait_until(lambda: read_metric(apart.meter, name, source="envoy") == 2)
        envoy.end()
    wait_until(lambda: read_metric(apart.meter, name, source="envoy") == 0)
    assert apart.counted() == {("acme", "high", INPUT): 6, ("acme", "high", OUTPUT): 4}


def test_stream__ends_with_its_key(apart: Apart) -> None:
    """A key that is revoked under way ends the stream with the next message."""
    scope = account_service_pb2.Scope(role=account_service_pb2.ROLE_PRODUCER)
    request = account_service_pb2.CreateApiKeyRequest(scopes=[scope], description="envoy")
    key = apart.call("CreateApiKey", request)
    envoy = Envoy(apart.with_key(key.secret))
    envoy.log(made(apart))
    wait_until(apart.counted)
    revoke = account_service_pb2.RevokeApiKeyRequest(key_id=key.key.key_id)
    apart.call("RevokeApiKey", revoke)

    def is_ended() -> bool:
        envoy.log()
        return bool(envoy._answer.done())  # noqa: SLF001

    wait_until(is_ended)
    assert failure_of(envoy.end) == ("UNAUTHENTICATED", "API_KEY_REVOKED", False)


def test_stream__of_bytes_that_are_no_message(apart: Apart) -> None:
    """Bytes of something else end the stream, with the reason."""
    call = apart.channel.stream_unary(
        METHOD, request_serializer=bytes, response_deserializer=pb.AccessLogAnswer.FromString
    )
    failure = failure_of(lambda: call(iter([b"\xff\xff"]), metadata=apart.metadata))
    assert failure == ("INVALID_ARGUMENT", "MESSAGE_UNREADABLE", False)


CREDENTIAL: Final = Credential(key_id="key_1", account_id=None, scopes=(), end_ms=None)


def report(number: int) -> Observation:
    """Return a report."""
    return Observation(
        report_id=f"r{number}",
        request_id=f"q{number}",
        dimensions=Dimensions("acme", "m", "", "high", 1, "", ""),
        end_ms=1,
        tokens={INPUT: number},
    )


class Journal:
    """Stands for the intake: refuses with what it is told to, then takes all."""

    def __init__(self, *faults: Exception) -> None:
        self.taken: list[str] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._faults = list(faults)

    async def take(self, observations: list[Observation], **_: object) -> list[int]:
        """Take reports, or raise the next fault."""
        await self.is_open.wait()
        if self._faults:
            raise self._faults.pop(0)
        self.taken += [each.report_id for each in observations]
        return [1] * len(observations)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two reports, and no waiting between two tries."""
    monkeypatch.setattr(held, "HELD_REPORTS_MAX", 2)
    monkeypatch.setattr(Overloaded, "retry_seconds", 0.0)


def holding(journal: Journal) -> HeldReports:
    """Return what holds reports for a journal."""
    intake: Any = journal
    return HeldReports(intake, source=Source.ENVOY, profile="envoy/1", metrics=Metrics())


@pytest.mark.usefixtures("small")
def test_hold__comes_again_until_it_is_taken() -> None:
    """What was refused for now is tried again, in order."""

    async def live() -> list[str]:
        journal = Journal(*[Overloaded(Reason.OVERLOADED, "wait")] * 3)
        reports = holding(journal)
        for number in range(4):
            reports.hold([report(number)], credential=CREDENTIAL)
        await reports.drain(seconds=10)
        return journal.taken

    assert asyncio.run(live()) == ["r0", "r1", "r2", "r3"]


@pytest.mark.usefixtures("small")
def test_wait_for_room__while_as_much_is_held_as_may_be() -> None:
    """Nobody reads on while there is no room, and all do once there is."""

    async def live() -> bool:
        journal = Journal()
        journal.is_open.clear()
        reports = holding(journal)
        reports.hold([report(1), report(2)], credential=CREDENTIAL)
        waiting = asyncio.create_task(reports.wait_for_room())
        for _ in range(10):
            await asyncio.sleep(0)
        waited = not waiting.done()
        journal.is_open.set()
        await waiting
        await reports.drain(seconds=10)
        return waited

    assert asyncio.run(live())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "fault", [InvalidArgument(Reason.ARGUMENT_INVALID, "no"), ValueError("nobody foresaw it")]
)
def test_hold__goes_on_behind_what_is_refused(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """What can never be recorded is told of, and holds up nobody."""

    async def live() -> list[str]:
        journal = Journal(fault)
        reports = holding(journal)
        reports.hold([report(1)], credential=CREDENTIAL)
        await reports.drain(seconds=10)
        reports.hold([report(2)], credential=CREDENTIAL)
        await reports.drain(seconds=10)
        return journal.taken

    assert asyncio.run(live()) == ["r2"]
    assert {record.msg for record in caplog.records} <= {"reports_lost", "reports_not_sent"}
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("small")
def test_drain__tells_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A server that stops while its database is away says how many reports it takes along."""

    async def live() -> None:
        reports = holding(Journal(*[Overloaded(Reason.OVERLOADED, "wait")] * 10**6))
        reports.hold([report(1), report(2)], credential=CREDENTIAL)
        await reports.drain(seconds=0.01)

    asyncio.run(live())
    (line,) = caplog.records
    assert (line.msg, line.__dict__["count"]) == ("reports_lost", 2)


def test_stream__is_refused_without_a_key(apart: Apart) -> None:
    """The service stands behind the same door as all others."""
    call = apart.channel.stream_unary(
        METHOD, request_serializer=bytes, response_deserializer=pb.AccessLogAnswer.FromString
    )
    assert failure_of(lambda: call(iter([]))) == ("UNAUTHENTICATED", "API_KEY_MISSING", False)
