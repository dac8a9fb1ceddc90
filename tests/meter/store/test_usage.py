"""Counting on a real Postgres: usage is the journal's sum, and a cut never changes."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Barrier

import pytest
from sqlalchemy import Engine, event

from meter.counting.follower import CountingTransaction, Follower
from meter.domain.errors import Reason, StoreRefusal, Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.journal.commit import Submission, commit_group
from meter.store.journal import JournalStore
from meter.store.usage import CountingStep, UsageStore
from meter.usage import GroupBy, UsageQuery
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import (
    INPUT,
    TOTAL,
    WAIT_SECONDS_MAX,
    Heard,
    administrator,
    ask,
    ask_one,
    batch_of,
    counting_of,
    end_connections,
    follow,
    now_ms,
    origin_of,
    owner,
    record,
)

WATERMARK = "SELECT position FROM counting WHERE shard = 0"


def test_count__usage_is_the_journal(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """All segments are counted, each row under its account, interval and band."""
    heard = Heard()
    follower = follow(usage, heard=heard)
    record(journal, 5, 7)
    record(journal, 40_000, dimension=1)
    record(journal, 9, end_ms=BEGIN_MS + INTERVAL_MS)
    assert follower.count_once() == 4
    record(journal, 1)
    assert [follower.count_once() for _ in range(2)] == [1, 0]
    question = (
        "SELECT account_id, extract(epoch FROM interval_start)::bigint * 1000, band, input,"
        " request_count FROM usage ORDER BY 1, 2, 3"
    )
    assert ask(database_url, question) == [
        ("acme", BEGIN_MS, 0, 13, 3),
        ("acme", BEGIN_MS + INTERVAL_MS, 0, 9, 1),
        ("team", BEGIN_MS, 1, 40_000, 1),
    ]
    assert heard.tokens == {INPUT: 40_022}
    assert ask_one(database_url, WATERMARK) == 4
    assert usage.lag() == (0, None)


def test_count__a_round_has_many_parts(
    usage: UsageStore, journal: JournalStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is there is one transaction's, however many parts it is read in."""
    monkeypatch.setattr("meter.counting.follower.GROUP_EVENTS_MAX", 2)
    for count in (1, 2, 5, 1, 1):
        record(journal, *[1] * count)
    heard = Heard()
    assert follow(usage, heard=heard).count_once() == 10
    assert ask(database_url, "SELECT sum(input), sum(request_count) FROM usage") == [(10, 10)]
    assert heard.tokens == {INPUT: 10}
    assert ask_one(database_url, WATERMARK) == 5


def test_count__a_round_ends_in_time(
    usage: UsageStore, journal: JournalStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its two seconds a round counts what it has, and the next one goes on behind it."""
    monkeypatch.setattr("meter.counting.follower.GROUP_EVENTS_MAX", 1)
    for count in (1, 2, 3):
        record(journal, *[1] * count)
    follower = follow(usage, monotonic_seconds=itertools.count(step=2.0).__next__)
    assert [follower.count_once() for _ in range(4)] == [1, 2, 3, 0]
    assert ask(database_url, "SELECT sum(input), sum(request_count) FROM usage") == [(6, 6)]


def test_count__goes_in_order_and_in_portions(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """A portion is the next segments up to a bound of events, at least one, never a later one."""
    for count in (1, 1, 5, 1):
        record(journal, *[1] * count)
    seen = []
    for events_max in (2, 3, 3):
        with usage.counting() as step:
            seen.append(len(step.read(events_max=events_max)))
            step.advance()
        seen.append(ask_one(database_url, WATERMARK))
    assert seen == [2, 2, 1, 3, 1, 4]


class CrashedError(Exception):
    """Stands for a process that ends."""


@pytest.mark.parametrize("after", ["read", "add", "advance"])
def test_count__crash_between_steps_counts_nothing_twice(
    usage: UsageStore, journal: JournalStore, database_url: str, after: str
) -> None:
    """Whichever step was the last before a crash, the next round counts all of it once."""
    record(journal, 5, 7)

    class Crashing:
        """The same store, whose process ends behind one step."""

        def counting(self, shard: int | None = None) -> AbstractContextManager[CountingTransaction]:
            """Open a transaction that does not live long."""
            return usage.counting(shard)

        def add_up_ahead(self) -> None:
            """Nothing was just committed."""

        def find_orphans(self) -> Sequence[int]:
            """Nobody has left anything behind."""
            return []

        def take_cut_if_due(self, *, now_ms: int, every_ms: int) -> int | None:
            """Take a cut."""
            return usage.take_cut_if_due(now_ms=now_ms, every_ms=every_ms)

    patch = pytest.MonkeyPatch()
    step = getattr(CountingStep, after)

    def crash(self: CountingStep, *arguments: object, **options: object) -> None:
        step(self, *arguments, **options)
        raise CrashedError

    patch.setattr(CountingStep, after, crash)
    with pytest.raises(CrashedError):
        follow(usage).count_once()
    patch.undo()
    assert ask_one(database_url, TOTAL) == 0
    assert [follow(usage).count_once() for _ in range(2)] == [2, 0]
    assert ask_one(database_url, TOTAL) == 12


@pytest.mark.parametrize("at_statement", ["CREATE TEMPORARY TABLE", "INSERT INTO usage"])
def test_count__connection_lost_is_unavailable(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str, at_statement: str
) -> None:
    """A connection that is lost in mid-transaction, in COPY too, is said to be one; it goes on."""
    record(journal, 5, 7)

    def lose(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(at_statement):
            end_connections(database_url)

    event.listen(engine, "after_cursor_execute", lose)
    with pytest.raises(Unavailable) as failure:
        follow(usage).count_once()
    event.remove(engine, "after_cursor_execute", lose)
    assert failure.value.reason is Reason.STORE_UNAVAILABLE
    assert follow(usage).count_once() == 2
    assert ask_one(database_url, TOTAL) == 12


def test_count__what_the_database_refuses_is_said(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """A fault of the database does not end counting: it is named, and tried again."""
    record(journal, 5)
    with administrator(database_url) as connection:
        connection.execute("ALTER TABLE usage RENAME TO elsewhere")
        with pytest.raises(StoreRefusal):
            follow(usage).count_once()
        connection.execute("ALTER TABLE elsewhere RENAME TO usage")
    assert follow(usage).count_once() == 1


def test_count__two_at_once_count_once(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Two processes that count the same shard share the work; nothing is counted twice."""
    followers = [follow(usage), follow(counting_of(engine))]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(20):
            record(journal, 3, 4)
            list(pool.map(Follower.count_once, followers))
    assert [it.count_once() for it in followers] == [0, 0]
    assert ask_one(database_url, TOTAL) == 20 * 7


def test_count__shards_merge_into_the_same_rows(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Servers with shards of their own add to the same rows at once, without deadlock."""
    journals = [journal, *(owner(engine, shard=shard) for shard in (1, 2))]
    counters = [usage, *(counting_of(engine, shard=shard) for shard in (1, 2))]
    together = Barrier(3)

    def work(pair: tuple[JournalStore, UsageStore]) -> None:
        for _ in range(10):
            events = [
                batch_of(1, end_ms=BEGIN_MS + place * INTERVAL_MS, dimension=dimension)
                for place in range(100)
                for dimension in range(3)
            ]
            group = [Submission(origin=origin_of(""), batch=batch) for batch in events]
            commit_group(pair[0], group, now_ms=now_ms)
            together.wait(WAIT_SECONDS_MAX)
            follow(pair[1]).count_once()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, zip(journals, counters, strict=True)))
    assert ask_one(database_url, TOTAL) == 3 * 10 * 300
    assert ask_one(database_url, "SELECT count(*) FROM usage") == 300


def query(usage: UsageStore, *, account: str | None, group_by: tuple[GroupBy, ...] = ()) -> int:
    """Return the input tokens of a subtree, from the beginning of time."""
    rows, _ = usage.query(
        UsageQuery(
            account_id=account, start_ms=0, end_ms=BEGIN_MS + 9 * INTERVAL_MS, group_by=group_by
        )
    )
    return sum(sum(row.tokens.values()) for row in rows)


def test_query__usage_before_the_first_edge_belongs_to_the_first_parent(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Late events of an account find its first parent; after a move they stay with the old one."""
    first, moved = BEGIN_MS, BEGIN_MS + 2 * INTERVAL_MS
    with administrator(database_url) as connection:
        for account, start_ms, parent in [
            ("acme", first, None),
            ("other", first, None),
            ("team", first, "acme"),
            ("team", moved, "other"),
        ]:
            connection.execute(
                "INSERT INTO account_parents VALUES (%s, to_timestamp(%s / 1000.0), %s)",
                (account, start_ms, parent),
            )
    for number, end_ms in enumerate([0, first - 1, first, moved - 1, moved, moved + 1]):
        record(journal, 10**number, end_ms=end_ms, dimension=1)
    follow(usage).count_once()
    assert query(usage, account="acme") == 1111
    assert query(usage, account="other") == 110_000
    assert query(usage, account="team") == query(usage, account=None) == 111_111


def test_query__counted_until_falls_behind_and_catches_up(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """What is acknowledged and not counted holds the time back until it is counted."""
    asked = UsageQuery(account_id=None, start_ms=0, end_ms=BEGIN_MS, group_by=())
    _, before_ms = usage.query(asked)
    record(journal, 5)
    commit_ms = ask_one(
        database_url, "SELECT (extract(epoch FROM max(commit_time)) * 1000)::bigint FROM journal"
    )
    _, behind_ms = usage.query(asked)
    assert behind_ms <= commit_ms
    assert usage.lag()[0] == 1
    follow(usage).count_once()
    _, caught_up_ms = usage.query(asked)
    assert before_ms <= commit_ms <= caught_up_ms
