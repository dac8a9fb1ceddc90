"""Complaints 10 to 16: usage that was accepted and never counted."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import psycopg
import pytest
from sqlalchemy import Engine

from meter.domain.errors import StoreRefusal, Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.domain.outcome import Outcome
from meter.journal.commit import Submission
from meter.runtime.engine import make_engine
from meter.store.journal import JournalStore
from meter.store.producers import ProducerStore
from tests.client.fake_meter import API_KEY, FakeMeter
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import (
    TOTAL,
    administrator,
    ask_one,
    batch_of,
    claiming,
    commit,
    counting_of,
    create_accounts,
    end_connections,
    follow,
    now_ms,
    origin_of,
    owner,
    record,
    tokens_in_journal,
)
from tests.peers.customers import WAIT_SECONDS, client_of, new_client, tokens_of
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import commits_held, wait_until, waiting_count
from tokenworks.client import Meter, RunningReport, TokenClass
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

INPUT: Final = usage_pb2.TOKEN_CLASS_INPUT


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role, to a database with accounts."""
    create_accounts(database_url)
    engine = make_engine(database_url, pool_size=6)
    yield engine
    engine.dispose()


def test_openmeter_5118__id_of_a_commit_that_failed_is_free(
    engine: Engine, database_url: str
) -> None:
    """An id is claimed with its event or not at all: what failed is recorded the next time."""
    journal = owner(engine)

    def interrupted() -> None:
        with journal.transaction() as transaction:
            assert transaction.claim_events({b"k" * 16: b"c" * 16}, now_ms=now_ms()) == {}
            end_connections(database_url)

    with pytest.raises(Unavailable):
        interrupted()
    assert ask_one(database_url, "SELECT count(*) FROM event_claims") == 0
    (result,) = commit(journal, claiming((1, 5)))
    assert result.outcomes == [Outcome.RECORDED]
    assert tokens_in_journal(database_url) == 5


def test_openmeter_3968__fault_of_counting_is_said_and_made_good(
    engine: Engine, database_url: str
) -> None:
    """Counting that fails moves no watermark: what it left out is counted when it can be."""
    journal, usage = owner(engine), counting_of(engine)
    record(journal, 5)
    with administrator(database_url) as connection:
        connection.execute("ALTER TABLE usage RENAME TO elsewhere")
        with pytest.raises(StoreRefusal):
            follow(usage).count_once()
        connection.execute("ALTER TABLE elsewhere RENAME TO usage")
    assert usage.lag()[0] == 1
    assert follow(usage).count_once() == 1
    assert ask_one(database_url, TOTAL) == 5


def test_lago_637__event_that_cannot_be_counted_is_said_and_kept(session: Session) -> None:
    """An event without its account or tier is answered so at once, and waits to be released."""
    session.create_account("lago")
    sent = [event("lago", tier="gold"), event("lago-to-come", tokens={INPUT: 5})]
    assert session.record(*sent) == [Outcome.TIER_UNKNOWN, Outcome.ACCOUNT_UNKNOWN]
    listed = session.call(
        "ListQuarantine", meter_service_pb2.ListQuarantineRequest(page_size=1000)
    ).entries
    kept = {it.event.event_id.replace("-", ""): it.quarantine_id for it in listed}
    assert kept.keys() >= {it.event_id for it in sent}
    session.create_account("lago-to-come")
    release = meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=kept[sent[1].event_id])
    session.call("ReleaseQuarantine", release)
    assert tokens_of(session, "lago-to-come") == {INPUT: 5}


def rows_of(session: Session, account: str, start_ms: int, end_ms: int) -> tuple[int, int]:
    """Return an account's requests and input tokens in a span of time."""
    request = meter_service_pb2.QueryUsageRequest(account=account)
    request.start_time.FromMilliseconds(start_ms)
    request.end_time.FromMilliseconds(end_ms)
    found = list(session.call("QueryUsage", request).rows)
    tokens = sum(it.count for row in found for it in row.tokens)
    return sum(row.request_count for row in found), tokens


def test_lago_538__request_without_tokens_is_counted_too(session: Session) -> None:
    """Requests are counted beside tokens, those that came to none included."""
    session.create_account("empty")
    session.record(event("empty", tokens={}), event("empty", tokens={INPUT: 5}))
    assert tokens_of(session, "empty") == {INPUT: 5}
    edge_ms = time.time_ns() // 10**6 // INTERVAL_MS * INTERVAL_MS
    assert rows_of(session, "empty", edge_ms - INTERVAL_MS, edge_ms + INTERVAL_MS) == (2, 5)


def test_lago_api_5583__event_at_an_edge_is_in_one_interval(session: Session) -> None:
    """Whatever the precision of its time, an event belongs to exactly one of two neighbours."""
    session.create_account("edge")
    edge_ms = time.time_ns() // 10**6 // INTERVAL_MS * INTERVAL_MS - INTERVAL_MS
    sent = [event("edge", tokens={INPUT: 10**place}) for place in range(4)]
    for it, nanos in zip(sent, (-1, 0, 1, 999_999), strict=True):
        it.end_time.FromNanoseconds(edge_ms * 10**6 + nanos)
    session.record(*sent)
    assert tokens_of(session, "edge") == {INPUT: 1111}
    assert rows_of(session, "edge", edge_ms - INTERVAL_MS, edge_ms) == (1, 1)
    assert rows_of(session, "edge", edge_ms, edge_ms + INTERVAL_MS) == (3, 1110)


def test_langfuse_16292__duplicate_is_success_and_holds_nothing_up(session: Session) -> None:
    """A repeat, a bad event and a changed batch are answered, and what follows them counts."""
    session.create_account("langfuse")
    sent = event("langfuse", tokens={INPUT: 5})
    assert session.record(sent) == [Outcome.RECORDED]
    assert session.record(sent, event("langfuse", tokens={INPUT: 7})) == [
        Outcome.DUPLICATE,
        Outcome.RECORDED,
    ]
    answers = session.exchange(
        opening("langfuse"),
        rows(1, event("langfuse", tokens={INPUT: 10})),
        rows(1, event("langfuse", tokens={INPUT: 20})),
        rows(2, event("langfuse", tier="gold"), event("langfuse", tokens={INPUT: 100})),
    )
    assert [answer.ack.sequence for answer in answers[1:]] == [1, 1, 2]
    assert tokens_of(session, "langfuse") == {INPUT: 122}


def test_tuist_11903__event_keeps_the_time_at_which_it_was_recorded() -> None:
    """An event that was given no time ended when it was recorded, however late it is sent."""
    with (
        FakeMeter().serving() as fake,
        Meter(
            fake.target, api_key=API_KEY, producer="p", flush_interval_seconds=WAIT_SECONDS
        ) as client,
    ):
        client.record(input=1)
        assert client.flush(WAIT_SECONDS)
        before_ms = time.time_ns() // 10**6
        client.record(input=5)
        after_ms = time.time_ns() // 10**6
        wait_until(lambda: time.time_ns() // 10**6 > after_ms)
        assert client.flush(WAIT_SECONDS)
        end_ms = fake.events[1]["end_ms"]
    assert isinstance(end_ms, int)
    assert before_ms <= end_ms <= after_ms


def test_tuist_11903__event_of_no_time_is_not_dated_by_whoever_reads_it(session: Session) -> None:
    """On the wire an absent time is set aside as such, and moves no usage to another day."""
    session.create_account("timeless")
    sent = event("timeless")
    sent.ClearField("end_time")
    assert session.record(sent) == [Outcome.TIME_TOO_OLD]
    assert tokens_of(session, "timeless") == {}


def test_polar_8515__unknown_customer_is_told_to_whoever_reports(session: Session) -> None:
    """A name that is no account's id is no account, and the answer says so event by event."""
    session.create_account("polar")
    outcomes = session.record(event("customer-42"), event("polar"))
    assert outcomes == [Outcome.ACCOUNT_UNKNOWN, Outcome.RECORDED]
    ack = session.exchange(opening("polar"), rows(1, event("polar"), event("customer-42")))[1].ack
    (aside,) = ack.set_aside
    assert (aside.index, int(aside.outcome)) == (1, int(Outcome.ACCOUNT_UNKNOWN))


def test_firecrawl_4308__usage_is_on_disk_before_the_meter_has_it(
    session: Session, tmp_path: Path
) -> None:
    """With its meter away a client has all on its disk, and a later one reports it from there."""
    session.create_account("firecrawl")
    with new_client(session, "firecrawl", target="127.0.0.1:1", spool=tmp_path) as client:
        client.record(input=5)
        assert client.sync(WAIT_SECONDS)
        assert client.statistics.acknowledged == 0
        client.close(0)
    with new_client(session, "firecrawl", spool=tmp_path) as client:
        assert client.flush(WAIT_SECONDS)
    assert tokens_of(session, "firecrawl") == {INPUT: 5}


SILENCE_MS: Final = 60_000


def test_fountain_503__outage_does_not_look_like_zero_usage(
    engine: Engine, database_url: str
) -> None:
    """Who is expected and not heard is counted as silent, and usage since then is not known."""
    producers = ProducerStore(engine)
    producers.register("", "never-came", edge=False, silence_ms=SILENCE_MS, by="key_1")
    producers.open_producer(origin_of("fell-silent"), first_sequence=0)
    assert producers.summarize(silence_ms=SILENCE_MS).hearing().silent_count == 0
    with administrator(database_url) as connection:
        for name in ("create_time", "seen_time"):
            connection.execute(f"UPDATE producers SET {name} = {name} - interval '1 hour'".encode())
    summary = producers.summarize(silence_ms=SILENCE_MS).hearing()
    assert summary.silent_count == 2
    assert summary.heard_until_ms is not None
    assert summary.heard_until_ms <= time.time_ns() // 10**6 - 3_600_000
    producers.end_producer(origin_of("fell-silent"))
    producers.retire("", "never-came", by="key_1")
    assert producers.summarize(silence_ms=SILENCE_MS).hearing().silent_count == 0


def test_litellm_35531__nothing_leaves_the_client_before_the_commit(session: Session) -> None:
    """While the commit waits the client holds what it sent, and knows that it is not on disk."""
    with client_of(session, "litellm") as client:
        with commits_held(session.meter.database_url):
            client.record(input=5)
            wait_until(lambda: waiting_count(session.meter.database_url))
            assert (client.statistics.acknowledged, client.statistics.held) == (0, 1)
        assert client.flush(WAIT_SECONDS)
        assert (client.statistics.acknowledged, client.statistics.held) == (1, 0)
    assert tokens_of(session, "litellm") == {INPUT: 5}


def test_litellm_27221__two_that_merge_the_same_rows_do_not_deadlock(
    engine: Engine, database_url: str
) -> None:
    """Servers whose events come in opposite orders add to the same rows, and lose none."""
    journals = [owner(engine, shard=shard) for shard in (0, 1)]
    counters = [counting_of(engine, shard=shard) for shard in (0, 1)]

    def record_all(journal: JournalStore, places: Sequence[int]) -> None:
        times = [BEGIN_MS + place * INTERVAL_MS for place in places]
        group = [
            Submission(origin=origin_of(""), batch=batch_of(1, end_ms=end_ms)) for end_ms in times
        ]
        commit(journal, *group)

    record_all(journals[0], range(200))
    follow(counters[0]).count_once()
    middle = (BEGIN_MS + 100 * INTERVAL_MS) // 1000
    row = f"SELECT 1 FROM usage WHERE interval_start = to_timestamp({middle}) FOR UPDATE"
    for _ in range(6):
        record_all(journals[0], range(200))
        record_all(journals[1], range(199, -1, -1))
        # Both begin, and stand at this row or behind each other, before either goes on.
        with ThreadPoolExecutor(2) as pool, psycopg.connect(database_url) as holder:
            holder.execute(row.encode())
            counting = [pool.submit(follow(usage).count_once) for usage in counters]
            wait_until(lambda: waiting_count(database_url) == 2)
            holder.rollback()
            assert [it.result(WAIT_SECONDS) for it in counting] == [200, 200]
    assert ask_one(database_url, TOTAL) == 13 * 200


def test_d_inference_33__stream_without_an_end_counts_what_was_last_known(
    session: Session,
) -> None:
    """A running report that is dropped, or left by a fault, counts what it said last, and once."""

    def generate(report: RunningReport) -> None:
        with report:
            report.update(output=20)
            raise ConnectionResetError

    with client_of(session, "streamed") as client:
        dropped = client.begin(input=100)
        for count in (1, 2, 3):
            dropped.update(output=count)
        del dropped
        broken = client.begin(input=1_000)
        with pytest.raises(ConnectionResetError):
            generate(broken)
        # Before the client is closed, which would end them too.
        assert client.flush(WAIT_SECONDS)
        assert tokens_of(session, "streamed") == {INPUT: 1_100, TokenClass.OUTPUT: 23}


def test_nyxid_1153__usage_that_is_missing_is_no_usage_of_zero(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A response without its usage counts as invalid and is logged, never billed as nothing."""
    with FakeMeter().serving() as fake, Meter(fake.target, api_key=API_KEY, producer="p") as client:
        for usage in (None, {}, {"prompt_tokens": 5}):
            assert client.record_usage(usage, profile="openai") is False
        assert client.statistics.invalid == 3
        assert client.close(WAIT_SECONDS)
        assert fake.events == []
    assert "missing" in caplog.text
