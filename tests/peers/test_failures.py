"""Where other meters lose or double usage when something fails, row by row."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from meter.domain.limits import CLAIM_KEPT_MS, FUTURE_MS_MAX, LATE_MS_MAX
from meter.domain.outcome import Outcome
from meter.journal.commit import Result, commit_group
from meter.runtime.engine import make_engine
from tests.billing.town import Town
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import ask_one, create_accounts, owner, tokens_in_journal
from tests.meter.test_intake import CREDENTIAL, ORIGIN, new_intake
from tests.peers.customers import WAIT_SECONDS, Customer, new_client, quantity, tokens_of
from tests.postgres import Cluster
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import failure_of, record_later, wait_until
from tokenworks.meter.v1 import usage_pb2

INPUT: Final = usage_pb2.TOKEN_CLASS_INPUT
STORE_AWAY: Final = ("UNAVAILABLE", "STORE_UNAVAILABLE", True)


@contextmanager
def killed(session: Session) -> Iterator[None]:
    """Kill the meter that all share before the block, and have it back behind it."""
    session.meter.kill()
    try:
        yield
    finally:
        session.meter.start()


def test_failure_crash_after_ack__keeps_what_was_acknowledged(session: Session) -> None:
    """A meter that is killed behind its answers has all that it answered for."""
    session.create_account("acked")
    answers = session.exchange(opening("acked"), rows(1, event("acked", tokens={INPUT: 5})))
    assert answers[1].ack.durable_sequence == 1
    assert session.record(event("acked", tokens={INPUT: 7})) == [Outcome.RECORDED]
    with killed(session):
        pass
    assert tokens_of(session, "acked") == {INPUT: 12}


@contextmanager
def database_away(cluster: Cluster, database_url: str) -> Iterator[None]:
    """Let nobody into a database for the time of the block; the others stay as they are."""
    name = database_url.rpartition("/")[2].partition("?")[0]
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        connection.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s",
            (name,),
        )
        try:
            yield
        finally:
            connection.execute(allow.format(sql.Identifier(name), sql.SQL("true")))


def test_failure_database_down__is_said_and_nothing_is_acknowledged(
    cluster: Cluster, session: Session
) -> None:
    """Without its database a meter answers UNAVAILABLE; what is sent again then counts once."""
    session.create_account("away")
    late = event("away", tokens={INPUT: 5})
    batch = rows(1, event("away", tokens={INPUT: 7}))
    with database_away(cluster, session.meter.database_url):
        assert failure_of(lambda: session.record(late)) == STORE_AWAY
        assert failure_of(lambda: session.exchange(opening("away"), batch)) == STORE_AWAY
    assert session.record(late) == [Outcome.RECORDED]
    assert session.exchange(opening("away"), batch)[1].ack.sequence == 1
    assert tokens_of(session, "away") == {INPUT: 12}


# Stands between the two: what was added is in the transaction, the watermark is not.
HOLD_WATERMARK: Final = """
CREATE FUNCTION hold_watermark() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
CREATE TRIGGER hold_watermark BEFORE UPDATE ON counting
FOR EACH ROW EXECUTE FUNCTION hold_watermark();
"""


def test_failure_worker_crash_in_mid_flush__counts_nothing_twice(session: Session) -> None:
    """A meter that is killed between usage and watermark counts the same events once."""
    session.create_account("flushed")
    with psycopg.connect(session.meter.database_url, autocommit=True) as holder:
        holder.execute(HOLD_WATERMARK)
        holder.execute("SELECT pg_advisory_lock(1)")
        assert session.record(event("flushed", tokens={INPUT: 5})) == [Outcome.RECORDED]
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: holder.execute(waiting).fetchone() == (1,))
        with killed(session):
            holder.execute("SELECT pg_advisory_unlock(1)")
            holder.execute("DROP FUNCTION hold_watermark CASCADE")
    assert tokens_of(session, "flushed") == {INPUT: 5}


def test_failure_retry_with_a_new_timestamp__is_a_conflict(session: Session) -> None:
    """The id alone decides: another time under it is kept for a person, and not counted again."""
    session.create_account("retimed")
    first = event("retimed", tokens={INPUT: 5})
    again = usage_pb2.UsageEvent()
    again.CopyFrom(first)
    again.end_time.FromMilliseconds(first.end_time.ToMilliseconds() - 1)
    outcomes = session.record(first, again) + session.record(again, first)
    assert outcomes == [
        Outcome.RECORDED,
        Outcome.CONFLICT,
        Outcome.CONFLICT,
        Outcome.DUPLICATE,
    ]
    assert tokens_of(session, "retimed") == {INPUT: 5}


def test_failure_retry_after_the_window__is_too_old(database_url: str) -> None:
    """As long as an event is accepted its id is known; after that it comes too late to count."""
    create_accounts(database_url)
    engine, intake = make_engine(database_url, pool_size=2), new_intake()
    journal = owner(engine)
    # By a clock that runs ahead: its id is claimed as long before its end as can be.
    end_ms = BEGIN_MS + FUTURE_MS_MAX
    sent = event("acme", end_ms=end_ms, tokens={INPUT: 5})
    for at_ms, wanted in (
        (BEGIN_MS, Outcome.RECORDED),
        (end_ms + LATE_MS_MAX, Outcome.DUPLICATE),
        (end_ms + LATE_MS_MAX + 1, Outcome.TIME_TOO_OLD),
        (end_ms + CLAIM_KEPT_MS, Outcome.TIME_TOO_OLD),
    ):
        journal.forget_claims(before_ms=at_ms - CLAIM_KEPT_MS)
        origin = ORIGIN._replace(received_ms=at_ms)
        submission, outcomes = intake.from_events([sent.SerializeToString()], CREDENTIAL, origin)
        (result,) = commit_group(journal, [submission], now_ms=partial(int, at_ms))
        assert isinstance(result, Result)
        assert [*(result.outcomes or outcomes)] == [wanted]
    engine.dispose()
    assert tokens_in_journal(database_url) == 5
    assert ask_one(database_url, "SELECT count(*) FROM event_claims") == 0


def test_failure_concurrent_retries__count_once(session: Session) -> None:
    """Of the same event in many calls at once one is recorded, the others are duplicates."""
    session.create_account("racing")
    sent = event("racing", tokens={INPUT: 5})
    with ThreadPoolExecutor(8) as pool:
        calls = list(pool.map(lambda _: record_later(session, sent), range(16)))
    outcomes = sorted(outcome for call in calls for outcome in call.result().outcomes)
    assert outcomes == [Outcome.RECORDED] + [Outcome.DUPLICATE] * 15
    assert tokens_of(session, "racing") == {INPUT: 5}


# Its second event may be sent or not, and what is sent may be recorded or not.
DIES: Final = """
import os, signal, sys
from tokenworks.client import Meter

target, api_key, spool = sys.argv[1:]
meter = Meter(
    target, api_key=api_key, producer="dying", account="dying", model="m", tier="high", spool=spool
)
meter.record(input=1)
assert meter.flush(30)
meter.record(input=10)
assert meter.sync(30)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_failure_producer_process_dies__its_spool_is_sent_under_the_same_numbers(
    session: Session, tmp_path: Path
) -> None:
    """What a killed process had on its disk is sent by the next one, and counted once."""
    session.create_account("dying")
    target, api_key = session.meter.target, session.meter.api_key
    ended = subprocess.run(
        [sys.executable, "-c", DIES, target, api_key, str(tmp_path)], check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    with new_client(session, "dying", spool=tmp_path) as client:
        client.record(input=100)
        assert client.flush(WAIT_SECONDS)
    assert tokens_of(session, "dying") == {INPUT: 111}
    with psycopg.connect(session.meter.database_url) as connection:
        number = "SELECT sequence FROM producers WHERE producer = 'dying'"
        gaps = "SELECT count(*) FROM producer_gaps WHERE producer = 'dying'"
        assert connection.execute(number).fetchone() == (3,)
        assert connection.execute(gaps).fetchone() == (0,)


def test_failure_late_after_the_invoice__is_counted_and_changes_no_invoice(town: Town) -> None:
    """What comes after the close is usage of a later cut: seen, not billed yet, never lost."""
    late = Customer(town, "late")
    late.use(input=1_000_000)
    issued = late.invoice()
    late.use(input=2_000_000)
    assert town.billing.explaining.get_invoice(late.number(1)) == issued
    assert quantity(late.preview().lines) == 3_000_000
    later = f"SELECT sum(input)::bigint FROM usage WHERE cut_id > {issued.cut_id}"
    assert town.ask(f"{later} AND account_id = 'late'") == [(2_000_000,)]
