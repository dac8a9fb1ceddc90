"""ProducerService and what streams tell of their producers, over a real server."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meter.domain.limits import SEQUENCE_MAX
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.producing import beat, find
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import (
    Talk,
    failure_of,
    read_metric,
    talking,
    wait_until,
)
from tokenworks.meter.v1 import (
    account_service_pb2,
    meter_service_pb2,
    outcome_pb2,
    usage_pb2,
)
from tokenworks.meter.v1 import producer_service_pb2 as pb

INPUT = usage_pb2.TOKEN_CLASS_INPUT
OLDER, NEWER = b"o" * 16, b"n" * 16
TAKEN_OVER = ("FAILED_PRECONDITION", "PRODUCER_TAKEN_OVER", False)
OPEN_ANEW = ("UNAVAILABLE", "STORE_UNAVAILABLE", True)
INVALID = ("INVALID_ARGUMENT", "ARGUMENT_INVALID", False)


@pytest.fixture(scope="module")
def shared(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """One meter for all; each test has producers of its own."""
    folder = tmp_path_factory.mktemp("producers")
    with cluster.database() as url, running_meter_on(url, folder=folder) as meter:
        Session(meter).create_account("acme")
        Session(meter).create_account("other")
        yield meter


@pytest.fixture
def session(shared: RunningMeter) -> Session:
    """A session of whoever may do everything."""
    return Session(shared)


def execute(session: Session, *statements: str) -> None:
    """Change the database behind the meter's back."""
    with psycopg.connect(session.meter.database_url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def key_for(session: Session, *scopes: tuple[int, str]) -> Session:
    """Return a session with a key of acme with these roles on accounts."""
    request = account_service_pb2.CreateApiKeyRequest(account="acme")
    for role, account in scopes:
        request.scopes.add(role=role, account=account)
    return Session(session.meter, api_key=session.call("CreateApiKey", request).secret)


REPORT = (account_service_pb2.ROLE_PRODUCER, "acme")


def test_states__follow_a_producers_life(session: Session) -> None:
    """Announced it is registered, once it opens active, after a good end retired."""
    name = "life"
    session.call("RegisterProducer", pb.RegisterProducerRequest(producer=name))
    found = find(session, name)
    assert found.state == pb.PRODUCER_STATE_REGISTERED
    assert not found.HasField("seen_time")
    with talking(session) as talk:
        talk.say(opening(name), rows(1, event()))
        assert [talk.hear().WhichOneof("message") for _ in range(2)] == ["opened", "ack"]
        found = find(session, name)
        assert (found.state, found.recorded_sequence) == (pb.PRODUCER_STATE_ACTIVE, 1)
        assert found.HasField("seen_time")
        assert found.key_id
        retire = pb.RetireProducerRequest(producer=name)
        refusal = failure_of(lambda: session.call("RetireProducer", retire))
        assert refusal == ("FAILED_PRECONDITION", "RETIRE_REFUSED", False)
    wait_until(lambda: find(session, name).state == pb.PRODUCER_STATE_RETIRED)
    session.exchange(opening(name), rows(2, event()))
    assert find(session, name).state == pb.PRODUCER_STATE_RETIRED
    session.call("RegisterProducer", pb.RegisterProducerRequest(producer=name))
    assert find(session, name).state == pb.PRODUCER_STATE_REGISTERED
    retired = session.call("RetireProducer", retire).producer
    assert (retired.state, retired.recorded_sequence) == (pb.PRODUCER_STATE_RETIRED, 2)


def test_goodbye__with_backlog_is_none(session: Session) -> None:
    """A producer that ends its stream with batches to report stays active: it will be missed."""
    session.exchange(opening("backlog"), rows(1, event()), beat(3))
    wait_until(lambda: find(session, "backlog").announced_sequence == 3)
    assert find(session, "backlog").state == pb.PRODUCER_STATE_ACTIVE
    name = "tokenworks_producer_backlog_batches"
    wait_until(lambda: read_metric(session.meter, name) >= 2)


@pytest.mark.parametrize("first_sequence", [-1, SEQUENCE_MAX + 1, 2**63 - 1])
def test_opening__absurd_first_number_is_refused(session: Session, first_sequence: int) -> None:
    """A gap of more numbers than there can be is not recorded."""
    messages = opening("endless", first_sequence=first_sequence)
    assert failure_of(lambda: session.exchange(messages)) == INVALID


def test_numbers__that_start_at_5(session: Session) -> None:
    """Without a word they are sent back to 1; with first_sequence they go on, and leave a gap."""
    answers = session.exchange(opening("five"), rows(5, event()))
    assert [answer.opened.next_sequence for answer in answers] == [1, 1]
    answers = session.exchange(opening("five", first_sequence=5), rows(5, event()))
    assert answers[0].opened.next_sequence == 5
    assert answers[1].ack.sequence == 5
    assert find(session, "five").missing_batch_count == 4


def test_opening__passes_over_from_the_expected_number_alone(session: Session) -> None:
    """Numbers that a producer lost are a gap only where the meter expects the first of them."""
    session.exchange(opening(), rows(1, event()))
    again = opening(instance=bytes([2]) * 16, first_sequence=9)
    again.open.missing_from = 5
    assert session.exchange(again)[0].opened.next_sequence == 2
    again = opening(instance=bytes([3]) * 16, first_sequence=9)
    again.open.missing_from = 2
    assert session.exchange(again)[0].opened.next_sequence == 9


def test_numbers__that_jump_back(session: Session) -> None:
    """A number that was used is repeated, changed or too old to tell; it never counts twice."""
    batches = [rows(number, event()) for number in range(1, 41)]
    session.exchange(opening("jumps"), *batches)
    answers = session.exchange(opening("jumps"), batches[39], rows(40, event()), batches[0])
    assert answers[1].ack.set_aside_count == 0
    assert answers[2].ack.set_aside[0].outcome == outcome_pb2.OUTCOME_BATCH_CHANGED
    assert answers[3].opened.next_sequence == 41
    assert find(session, "jumps").recorded_sequence == 40


def test_name__of_two_keys_of_an_account(session: Session) -> None:
    """One name under two keys of an account is one producer: the newer instance fences."""
    first, second = key_for(session, REPORT), key_for(session, REPORT)
    with talking(first) as talk:
        talk.say(opening("twice", instance=OLDER), rows(1, event()))
        assert [talk.hear().WhichOneof("message") for _ in range(2)] == ["opened", "ack"]
        before = find(session, "twice", account="acme").key_id
        answers = second.exchange(opening("twice", instance=NEWER), rows(2, event()))
        assert answers[0].opened.next_sequence == 2
        talk.say(rows(3, event()))
        assert failure_of(talk.hear) == TAKEN_OVER
    assert find(session, "twice", account="acme").key_id != before


def test_name__of_keys_of_two_accounts(session: Session) -> None:
    """One name under keys of two accounts is two producers, with numbers of their own."""
    acme = key_for(session, REPORT)
    for each in (acme, session):
        answers = each.exchange(opening("shared"), rows(1, event()))
        assert answers[0].opened.next_sequence == 1
        assert answers[1].ack.set_aside_count == 0
    assert find(session, "shared", account="acme").recorded_sequence == 1
    assert find(session, "shared").recorded_sequence == 1


@dataclass(frozen=True)
class Silent:
    """Streams that say nothing, after their rows were changed behind their backs."""

    talks: dict[str, Talk]
    batches: list[Any]
    fenced_count: float
    rollback_count: float


@pytest.fixture(scope="module")
def silent(shared: RunningMeter) -> Iterator[Silent]:
    """All of them at once, so that one round finds them all."""
    session = Session(shared)
    batches = [rows(number, event(tokens={INPUT: 10**number})) for number in range(1, 5)]
    with contextlib.ExitStack() as stack:
        talks = {
            name: stack.enter_context(talking(Session(shared)))
            for name in ("fenced", "restored", "lost", "forgotten")
        }
        for name, talk in talks.items():
            talk.say(opening(name, instance=OLDER), *batches)
            assert talk.hear().WhichOneof("message") == "opened"
            assert talk.hear_of(4).sequence == 4
        before = Silent(
            talks=talks,
            batches=batches,
            fenced_count=read_metric(shared, "tokenworks_streams_fenced_total"),
            rollback_count=read_metric(shared, "tokenworks_rollbacks_total"),
        )
        session.exchange(opening("fenced", instance=NEWER))
        execute(session, *LOSSES)
        yield before


LOSSES = (
    (
        "UPDATE producers SET sequence = 2, digests = substr(digests, 1, 16)"
        " WHERE producer = 'restored'"
    ),
    "DELETE FROM producers WHERE producer = 'lost'",
    # As it was while another instance was the newest, before this one came.
    "DELETE FROM producer_instances WHERE producer IN ('forgotten', 'judged')",
    "UPDATE producers SET instance = 'an older process' WHERE producer IN ('forgotten', 'judged')",
)


def test_silent__older_instance_is_fenced(silent: Silent, session: Session) -> None:
    """An older instance that says nothing is told to stop all the same."""
    assert failure_of(silent.talks["fenced"].hear) == TAKEN_OVER
    fenced = read_metric(session.meter, "tokenworks_streams_fenced_total")
    assert fenced == silent.fenced_count + 1


def test_silent__is_called_back_after_a_rollback(silent: Silent, session: Session) -> None:
    """A database that has lost batches says so by itself; sent again, they count once."""
    talk = silent.talks["restored"]
    assert talk.hear().opened.next_sequence == 3
    talk.say(beat(4))
    answer = talk.hear().ack
    assert (answer.sequence, answer.durable_sequence) == (2, 2)
    talk.say(*silent.batches[2:])
    assert talk.hear_of(4).durable_sequence == 4
    rollbacks = read_metric(session.meter, "tokenworks_rollbacks_total")
    assert rollbacks >= silent.rollback_count + 1


@pytest.mark.parametrize("name", ["lost", "forgotten"])
def test_silent__database_from_before_it_opened(
    silent: Silent, session: Session, name: str
) -> None:
    """A database that does not know the stream has it open anew: nobody has taken over."""
    assert failure_of(silent.talks[name].hear) == OPEN_ANEW
    answers = session.exchange(opening(name, instance=OLDER))
    assert answers[0].WhichOneof("message") == "opened"


def test_batch__database_from_before_the_stream_opened(session: Session) -> None:
    """A batch that an older instance's database judges has the stream open anew, too."""
    with talking(session) as talk:
        talk.say(opening("judged", instance=NEWER), rows(1, event()))
        assert [talk.hear().WhichOneof("message") for _ in range(2)] == ["opened", "ack"]
        execute(session, *LOSSES[2:])
        talk.say(rows(2, event()))
        assert failure_of(talk.hear) == OPEN_ANEW
    answers = session.exchange(opening("judged", instance=NEWER))
    assert answers[0].opened.next_sequence == 2


def test_sandbox__last_heard_is_by_its_clock(database_url: str, tmp_path: Path) -> None:
    """Where the clock is driven, signs of life bear its time, and an answer says until when."""
    begin = "2026-10-01T00:00:00Z"
    settings = {"sandbox_clock": begin}
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as meter:
        sandbox = Session(meter)
        with talking(sandbox) as talk:
            talk.say(opening("driven"), beat())
            assert [talk.hear().WhichOneof("message") for _ in range(2)] == ["opened", "ack"]
            found = find(sandbox, "driven")
            assert found.seen_time.ToJsonString() == begin
            assert found.create_time.ToJsonString() == begin
            question = meter_service_pb2.QueryUsageRequest()
            question.start_time.FromJsonString(begin)
            question.end_time.FromJsonString("2026-10-02T00:00:00Z")

            def answer() -> meter_service_pb2.QueryUsageResponse:
                told = sandbox.call("QueryUsage", question)
                assert isinstance(told, meter_service_pb2.QueryUsageResponse)
                return told

            wait_until(lambda: answer().HasField("heard_until"))
            assert answer().heard_until.ToJsonString() == begin
            assert answer().silent_producer_count == 0


def test_query__is_told_of_those_alone_who_may_report(session: Session) -> None:
    """Whose producers are silent is told to the accounts that they report for, and to no others."""
    long_ago = "2020-01-01T00:00:00Z"
    session.call("RegisterProducer", pb.RegisterProducerRequest(account="other", producer="far"))
    execute(session, f"UPDATE producers SET create_time = '{long_ago}' WHERE producer = 'far'")

    def heard_until(caller: Session, account: str) -> str:
        question = meter_service_pb2.QueryUsageRequest(account=account)
        question.start_time.FromJsonString("2020-01-01T00:00:00Z")
        question.end_time.FromJsonString("2020-01-02T00:00:00Z")
        return str(caller.call("QueryUsage", question).heard_until.ToJsonString())

    wait_until(lambda: heard_until(session, "") == long_ago)
    assert heard_until(session, "other") == long_ago
    reader = key_for(session, (account_service_pb2.ROLE_READER, "acme"))
    assert heard_until(reader, "acme") != long_ago
    # A key of the other account's that may report for acme as well.
    request = account_service_pb2.CreateApiKeyRequest(account="other")
    request.scopes.add(role=account_service_pb2.ROLE_PRODUCER, account="acme")
    key_id = session.call("CreateApiKey", request).key.key_id
    assert heard_until(reader, "acme") == long_ago
    session.call("RevokeApiKey", account_service_pb2.RevokeApiKeyRequest(key_id=key_id))
    session.call("RetireProducer", pb.RetireProducerRequest(account="other", producer="far"))
    wait_until(lambda: heard_until(session, "") != long_ago)


def test_call__scopes_and_names(session: Session) -> None:
    """Reading takes a reader, changing an operator, of the account or all; names are names."""
    roles = [account_service_pb2.ROLE_READER, account_service_pb2.ROLE_ADMIN]
    reader = key_for(session, *((role, "acme") for role in roles))
    denied = ("PERMISSION_DENIED", "SCOPE_MISSING", False)
    listing = pb.ListProducersRequest
    reader.call("ListProducers", listing(account="acme"))
    for request in (listing(), listing(account="other")):
        assert failure_of(partial(reader.call, "ListProducers", request)) == denied
    for name, change in (
        ("RegisterProducer", pb.RegisterProducerRequest(account="acme", producer="p")),
        ("RetireProducer", pb.RetireProducerRequest(account="acme", producer="p")),
    ):
        assert failure_of(partial(reader.call, name, change)) == denied
    for producer in ("", "bad name", "x" * 65):
        register = pb.RegisterProducerRequest(producer=producer)
        assert failure_of(partial(session.call, "RegisterProducer", register)) == INVALID
    for producer in ("", "\0", "x" * 65):
        retire = pb.RetireProducerRequest(producer=producer)
        assert failure_of(partial(session.call, "RetireProducer", retire)) == INVALID
    register = pb.RegisterProducerRequest(account="nobody", producer="p")
    missing = failure_of(lambda: session.call("RegisterProducer", register))
    assert missing == ("NOT_FOUND", "ACCOUNT_NOT_FOUND", False)
    retire = pb.RetireProducerRequest(producer="nobody")
    missing = failure_of(lambda: session.call("RetireProducer", retire))
    assert missing == ("NOT_FOUND", "PRODUCER_NOT_FOUND", False)
    for wrong in (
        listing(page_size=-1),
        listing(page_size=1001),
        listing(page_token="nonsense"),
        listing(page_token="a\0@b"),
        listing(state=9),  # type: ignore[arg-type]
    ):
        assert failure_of(partial(session.call, "ListProducers", wrong)) == INVALID


def test_list__in_pages(session: Session) -> None:
    """A page's token leads to the next one, over accounts, until there is none."""
    for account in ("acme", "other"):
        request = pb.RegisterProducerRequest(account=account, producer="paged")
        session.call("RegisterProducer", request)
    listing, names = pb.ListProducersRequest(page_size=1), []
    while True:
        answer = session.call("ListProducers", listing)
        names += [(each.account, each.producer) for each in answer.producers]
        if not answer.next_page_token:
            break
        listing.page_token = answer.next_page_token
    assert names == sorted(names)
    assert {("acme", "paged"), ("other", "paged")} <= set(names)
    everything = session.call("ListProducers", pb.ListProducersRequest(page_size=1000)).producers
    assert len(names) == len(everything)
    name = "tokenworks_producers"
    registered = [it for it in everything if it.state == pb.PRODUCER_STATE_REGISTERED]
    wait_until(lambda: read_metric(session.meter, name, state="registered") == len(registered))
    seen = "tokenworks_producer_seen_timestamp_seconds"
    assert read_metric(session.meter, seen, producer="backlog") > 0
