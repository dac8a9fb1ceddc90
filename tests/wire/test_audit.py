"""The audit log over a real server: each change stands there, by whom, when, and what it was."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from google.protobuf import json_format

from meter.audit_log import JOB, Action
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import CALL_SECONDS_MAX, Session, event
from tests.wire.talk import failure_of
from tokenworks.meter.v1 import (
    account_service_pb2,
    energy_service_pb2,
    meter_service_pb2,
    outcome_pb2,
    producer_service_pb2,
)
from tokenworks.meter.v1 import audit_service_pb2 as pb
from tokenworks.meter.v1.audit_service_pb2_grpc import AuditServiceStub
from tokenworks.meter.v1.energy_service_pb2_grpc import EnergyServiceStub

INVALID = ("INVALID_ARGUMENT", "ARGUMENT_INVALID", False)
REPORT = account_service_pb2.ROLE_PRODUCER
FACTORY = """
format = 1
from = 2199-01-01T00:00:00Z
[sites.oslo]
contracted_watts = 20_000
[pools.h100]
site = "oslo"
hardware = "H100 SXM"
"""


class Auditor:
    """Reads the log with an API key, the installation's unless given."""

    def __init__(self, meter: RunningMeter, *, api_key: str | None = None) -> None:
        self.session = Session(meter, api_key=api_key)
        self._stub = AuditServiceStub(self.session.channel)

    def ask(self, request: pb.ListAuditEntriesRequest) -> pb.ListAuditEntriesResponse:
        """Ask whatever it is."""
        answer: pb.ListAuditEntriesResponse = self._stub.ListAuditEntries(
            request, metadata=self.session.metadata, timeout=CALL_SECONDS_MAX, wait_for_ready=True
        )
        return answer

    def list(self, **changes: Any) -> list[pb.AuditEntry]:  # noqa: ANN401
        """Return a page of entries."""
        return list(self.ask(pb.ListAuditEntriesRequest(**changes)).entries)


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A meter to which everything was done that the log can tell of."""
    folder = tmp_path_factory.mktemp("audit")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        session = Session(running)
        do_accounts_and_keys(session)
        do_producers(session)
        do_events(session)
        do_factory(session)
        yield running


@pytest.fixture
def auditor(meter: RunningMeter) -> Auditor:
    """Whoever may do everything."""
    return Auditor(meter)


def do_accounts_and_keys(session: Session) -> None:
    """Create, move and close accounts; create, rotate and revoke keys."""
    for account in ("acme", "team", "gone"):
        session.create_account(account)
    call = session.call
    call("MoveAccount", account_service_pb2.MoveAccountRequest(account="team", parent="acme"))
    call("CloseAccount", account_service_pb2.CloseAccountRequest(account="gone"))
    request = account_service_pb2.CreateApiKeyRequest(account="acme", description="gateway")
    request.scopes.add(role=REPORT, account="acme")
    key_id = call("CreateApiKey", request).key.key_id
    rotated = account_service_pb2.RotateApiKeyRequest(key_id=key_id, grace_seconds=60)
    successor = call("RotateApiKey", rotated).key.key_id
    call("RevokeApiKey", account_service_pb2.RevokeApiKeyRequest(key_id=successor))


def do_producers(session: Session) -> None:
    """Register a producer, say that it is at the edge, retire it."""
    register = partial(producer_service_pb2.RegisterProducerRequest, producer="phone")
    session.call("RegisterProducer", register())
    session.call("RegisterProducer", register(edge=True))
    session.call("RegisterProducer", register(edge=True))
    retire = producer_service_pb2.RetireProducerRequest(producer="phone")
    session.call("RetireProducer", retire)


def do_events(session: Session) -> None:
    """Void an event; release and reject what was set aside."""
    session.record(event("acme", event_id="wrong"))
    session.call(
        "CorrectUsage", meter_service_pb2.CorrectUsageRequest(event_id="wrong", reason="a test")
    )
    early = [event("later"), event("later")]
    assert set(session.record(*early)) == {outcome_pb2.OUTCOME_ACCOUNT_UNKNOWN}
    session.create_account("later")
    listed = session.call("ListQuarantine", meter_service_pb2.ListQuarantineRequest()).entries
    first, second = (it.quarantine_id for it in listed)
    session.call(
        "ReleaseQuarantine", meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=first)
    )
    rejected = meter_service_pb2.RejectQuarantineRequest(quarantine_id=second, reason="twice")
    session.call("RejectQuarantine", rejected)


def do_factory(session: Session) -> None:
    """Describe the factory, and mark a pool's software."""
    stub = EnergyServiceStub(session.channel)
    options: dict[str, Any] = {"metadata": session.metadata, "timeout": CALL_SECONDS_MAX}
    stub.SetFactory(energy_service_pb2.SetFactoryRequest(toml=FACTORY), **options)
    mark = energy_service_pb2.MarkSoftwareRequest(pool="h100", software="vllm 0.11")
    stub.MarkSoftware(mark, **options)
    stub.MarkSoftware(mark, **options)


def test_entry__of_each_change(auditor: Auditor) -> None:
    """Whatever changes the meter stands in the log, by the key that did it, and once."""
    entries = auditor.list(page_size=1_000)
    (first,) = [it for it in entries if it.key_id == JOB]
    assert first.action == Action.KEY_CREATE
    by_caller = [it for it in entries if it.key_id == first.subject]
    assert len(by_caller) == len(entries) - 1
    # Rebuilt by a job on the database alone.
    assert {it.action for it in by_caller} == set(Action) - {Action.USAGE_RECOUNT}
    ids = [it.entry_id for it in entries]
    assert ids == sorted(ids, reverse=True)
    counts = {it: sum(entry.action == it for entry in entries) for it in Action}
    assert counts[Action.PRODUCER_REGISTER] == 2
    assert counts[Action.SOFTWARE_MARK] == 1


@pytest.mark.parametrize(
    ("action", "subject", "detail"),
    [
        (Action.ACCOUNT_CREATE, "acme", {"handle": "acme", "parent": ""}),
        (Action.ACCOUNT_CLOSE, "gone", {}),
        (Action.PRODUCER_RETIRE, "phone", {"account": ""}),
        (Action.QUARANTINE_REJECT, None, {"reason": "twice"}),
        (Action.FACTORY_SET, "1", {"start_time": "2199-01-01T00:00:00Z"}),
        (Action.KEY_REVOKE, None, {}),
    ],
)
def test_entry__says_what_was_done(
    auditor: Auditor, action: Action, subject: str | None, detail: dict[str, object]
) -> None:
    """An entry has its subject, and what else there is to say."""
    (entry,) = auditor.list(action=action, subject=subject or "")[-1:]
    assert dict(entry.detail.items()) == detail
    assert subject in (None, entry.subject)
    assert entry.time.ToMilliseconds() > 0


def test_entry__of_a_key_has_no_secret(auditor: Auditor) -> None:
    """A key's entry says what it may do, a rotation names the successor; no secret is in any."""
    (made,) = [it for it in auditor.list(action=Action.KEY_CREATE) if it.key_id != JOB]
    (rotated,) = auditor.list(action=Action.KEY_ROTATE)
    (revoked,) = auditor.list(action=Action.KEY_REVOKE)
    scopes = json_format.MessageToDict(made.detail)["scopes"]
    assert scopes == [{"role": "producer", "account": "acme"}]
    assert rotated.subject == made.subject
    assert rotated.detail["successor"] == revoked.subject
    text = str(auditor.list(page_size=1_000))
    assert "tw_" not in text
    assert "secret" not in text


def test_list__by_what_was_asked(auditor: Auditor) -> None:
    """Kinds of actions, subjects, keys and times leave out the rest."""
    everything = auditor.list(page_size=1_000)
    accounts = auditor.list(action="account")
    assert {it.action.partition(".")[0] for it in accounts} == {"account"}
    assert len(accounts) == 6
    # Only whole words: no other noun that begins alike.
    assert auditor.list(action="acc") == []
    assert auditor.list(action="account_") == []
    assert len(auditor.list(subject="team")) == 2
    assert len(auditor.list(key_id=JOB)) == 1
    request = pb.ListAuditEntriesRequest(page_size=1_000)
    request.start_time.CopyFrom(everything[-3].time)
    request.end_time.FromMilliseconds(everything[2].time.ToMilliseconds())
    times = [it.time.ToMilliseconds() for it in auditor.ask(request).entries]
    first_ms, last_ms = everything[-3].time.ToMilliseconds(), everything[2].time.ToMilliseconds()
    assert times == [
        it
        for it in (entry.time.ToMilliseconds() for entry in everything)
        if first_ms <= it < last_ms
    ]


def test_list__in_pages(auditor: Auditor) -> None:
    """Pages follow each other without gap or repetition, also when something comes meanwhile."""
    everything = [it.entry_id for it in auditor.list(page_size=1_000)]
    found: list[int] = []
    request = pb.ListAuditEntriesRequest(page_size=4)
    while True:
        answer = auditor.ask(request)
        found += [it.entry_id for it in answer.entries]
        if not answer.next_page_token:
            break
        if not request.page_token:
            auditor.session.create_account("meanwhile")
        request.page_token = answer.next_page_token
    assert found == everything


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("page_size", -1),
        ("page_size", 1_001),
        ("page_token", "x"),
        ("page_token", "9" * 19),
        ("action", "a" * 257),
        ("subject", "a\0"),
        ("key_id", "\n"),
    ],
)
def test_list__wrong_question(auditor: Auditor, field: str, value: object) -> None:
    """What no answer is for is refused with its field."""
    assert failure_of(lambda: auditor.list(**{field: value})) == INVALID


@pytest.mark.parametrize("seconds", [-1, 253_402_300_800])
def test_list__time_of_no_calendar(auditor: Auditor, seconds: int) -> None:
    """A time outside the calendar is refused."""
    request = pb.ListAuditEntriesRequest()
    request.start_time.seconds = seconds
    assert failure_of(lambda: auditor.ask(request)) == INVALID


def test_list__is_for_who_may_read_everything(meter: RunningMeter, auditor: Auditor) -> None:
    """Who may read one account reads no log: it tells of all of them."""
    request = account_service_pb2.CreateApiKeyRequest(account="acme")
    request.scopes.add(role=account_service_pb2.ROLE_READER, account="acme")
    secret = auditor.session.call("CreateApiKey", request).secret
    reader = Auditor(meter, api_key=secret)
    assert failure_of(reader.list) == ("PERMISSION_DENIED", "SCOPE_MISSING", False)


def test_change__that_cannot_be_written_down_is_not_made(
    meter: RunningMeter, auditor: Auditor
) -> None:
    """Where the log refuses an entry, the change is not made: both are one transaction."""
    with psycopg.connect(meter.database_url, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON audit_entries FROM tokenworks_ingest")
        try:
            session = auditor.session
            close = account_service_pb2.CloseAccountRequest(account="team")
            retire = producer_service_pb2.RegisterProducerRequest(producer="unwritten")
            for name, request in (("CloseAccount", close), ("RegisterProducer", retire)):
                code, _, _ = failure_of(partial(session.call, name, request))
                assert code == "INTERNAL"
        finally:
            connection.execute("GRANT INSERT ON audit_entries TO tokenworks_ingest")
        closed = "SELECT close_time FROM accounts WHERE account_id = 'team'"
        assert connection.execute(closed).fetchone() == (None,)
        made = "SELECT count(*) FROM producers WHERE producer = 'unwritten'"
        assert connection.execute(made).fetchone() == (0,)
