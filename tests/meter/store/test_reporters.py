"""Who reported for whom, on a real Postgres: noted by counting, asked by a close."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from meter.journal.commit import Submission, commit_group
from meter.producers import Standing
from meter.reporters import Reporter
from meter.store.journal import JournalStore
from meter.store.reporters import ReporterStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import (
    administrator,
    ask,
    batch_of,
    counting_of,
    end_connections,
    follow,
    now_ms,
    open_producer,
    origin_of,
    owner,
)

DAY_MS = 86_400_000
# Of the month that BEGIN_MS lies in, in UTC, and a day of the one after it.
MONTH = "2026-11-01"
NOTED = "SELECT account_id, month::text, key_account_id, producer FROM producer_accounts ORDER BY 1"
HEARD = "UPDATE producers SET seen_time = to_timestamp(%s)"
SPAN = {"start_ms": BEGIN_MS - BEGIN_MS % DAY_MS, "end_ms": BEGIN_MS - BEGIN_MS % DAY_MS + DAY_MS}


def report(
    journal: JournalStore, producer: str, *, dimension: int = 0, end_ms: int = BEGIN_MS
) -> None:
    """Record an event that a producer of acme's keys reported."""
    batch = batch_of(5, dimension=dimension, end_ms=end_ms)
    commit_group(journal, [Submission(origin=origin_of(producer), batch=batch)], now_ms=now_ms)


def execute(database_url: str, statement: str, *values: object) -> None:
    """Change the database as the superuser."""
    with administrator(database_url) as connection:
        connection.execute(statement.encode(), values)


def test_count__notes_who_reported_for_whom(
    journal: JournalStore, usage: UsageStore, database_url: str
) -> None:
    """Each account of each producer stands there once a month; calls without a producer do not."""
    report(journal, "p")
    report(journal, "p")
    report(journal, "p", dimension=1)
    report(journal, "", dimension=2)
    month = str(ask(database_url, f"SELECT to_timestamp({BEGIN_MS // 1000})::date")[0][0])[:7]
    follow(usage).count_once()
    wanted = [("acme", f"{month}-01", "acme", "p"), ("team", f"{month}-01", "acme", "p")]
    assert ask(database_url, NOTED) == wanted
