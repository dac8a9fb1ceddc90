"""Counting on a real Postgres: usage is the journal's sum, and a cut never changes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Barrier, Event

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import ProgrammingError

from meter import segment
from meter.counting.aggregate import UsageDelta, aggregate
from meter.counting.follower import CountingTransaction, Follower
from meter.domain.errors import Reason, StoreRefusal, Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.journal.commit import Submission, commit_group
from meter.store.engine import make_engine
from meter.store.journal import JournalStore
from meter.store.usage import CountingStep, UsageStore
from meter.usage import GroupBy, UsageQuery
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import (
    INPUT,
    WAIT_SECONDS_MAX,
    administrator,
    ask,
    ask_one,
    batch_of,
    create_accounts,
    now_ms,
    origin_of,
)

DAY_MS = 86_400_000
TOTAL = "SELECT coalesce(sum(input), 0)::bigint FROM usage"
WATERMARK = "SELECT position FROM counting WHERE shard = 0"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role, to a database with accounts."""
    create_accounts(database_url)
    engine = make_engine(database_url, pool_size=12)
    yield engine
    engine.dispose()


@pytest.fixture
def journal(engine: Engine) -> JournalStore:
    """The owner of shard 0."""
    return owner(engine)


@pytest.fixture
def usage(engine: Engine, journal: JournalStore) -> UsageStore:
    """Counts shard 0."""
    del journal
    return counting_of(engine)


def owner(engine: Engine, *, shard: int = 0) -> JournalStore:
    """Return a store that owns a shard."""
    store = JournalStore(engine, shard=shard)
    store.take_ownership()
    return store


def counting_of(engine: Engine, *, shard: int = 0) -> UsageStore:
    """Return a store that counts a shard."""
    store = UsageStore(engine, shard=shard)
    store.ensure_watermark()
    return store


def record(journal: JournalStore, *counts: int, end_ms: int = BEGIN_MS, dimension: int = 0) -> None:
    """Write one segment with an event for each count."""
    batch = batch_of(*counts, end_ms=end_ms, dimension=dimension)
    commit_group(journal, [Submission(origin=origin_of(""), batch=batch)], now_ms=now_ms)


class Heard:
    """Adds up what a follower tells of."""

    def __init__(self) -> None:
        self.tokens: Counter[int] = Counter()

    def hear(self, delta: UsageDelta) -> None:
        """Take what was counted."""
        for number, counts in delta.tokens.items():
            self.tokens[int(number)] += int(counts.sum())


def follow(usage: UsageStore, *, heard: Heard | None = None) -> Follower:
    """Return a follower that was not started."""
    return Follower(
        usage,
        now_ms=now_ms,
        monotonic_seconds=lambda: 0.0,
        on_counted=(heard or Heard()).hear,
    )


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

        def counting(self) -> AbstractContextManager[CountingTransaction]:
            """Open a transaction that does not live long."""
            return usage.counting()

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


def end_connections(database_url: str) -> None:
    """End every other connection to the database, as a crash of Postgres does."""
    with administrator(database_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


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


def cut(usage: UsageStore, at_ms: int) -> int | None:
    """Take a cut if one is due."""
    return usage.take_cut_if_due(now_ms=at_ms, every_ms=DAY_MS)


def test_cut__once_a_day(usage: UsageStore, database_url: str) -> None:
    """The first look of a day takes the cut, further ones do not."""
    midnight = BEGIN_MS // DAY_MS * DAY_MS
    times = [midnight, midnight + 1, midnight + DAY_MS - 1, midnight + DAY_MS, midnight + DAY_MS]
    assert [cut(usage, time) for time in times] == [1, None, None, 2, None]
    assert ask_one(database_url, "SELECT count(*) FROM cuts") == 2


def test_cut__what_is_counted_later_carries_a_later_one(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Rows at or below a cut stay as they are; the same key counted later is another row."""
    follower = follow(usage)
    record(journal, 5)
    follower.count_once()
    assert cut(usage, BEGIN_MS) == 1
    record(journal, 7)
    record(journal, 1)
    follower.count_once()
    assert cut(usage, BEGIN_MS + DAY_MS) == 2
    record(journal, 2)
    follower.count_once()
    question = "SELECT cut_id, input FROM usage ORDER BY 1"
    assert ask(database_url, question) == [(1, 5), (2, 8), (3, 2)]
    positions = "SELECT cut_id, shard, position FROM cut_positions ORDER BY 1, 2"
    assert ask(database_url, positions) == [(1, 0, 1), (2, 0, 3)]


def test_cut__waits_for_counting_under_way(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """A cut is taken behind a follower's open transaction, and has its position."""
    owner(engine, shard=1)
    other = counting_of(engine, shard=1)
    record(journal, 5)
    with ThreadPoolExecutor() as pool:
        with usage.counting() as step:
            bodies = step.read(events_max=10)
            waiting = pool.submit(cut, other, BEGIN_MS)
            wait_for_lock(database_url)
            add(step, bodies)
            assert not waiting.done()
        assert waiting.result(WAIT_SECONDS_MAX) == 1
    assert ask(database_url, "SELECT cut_id, input FROM usage") == [(1, 5)]
    positions = "SELECT shard, position FROM cut_positions ORDER BY 1"
    assert ask(database_url, positions) == [(0, 1), (1, 0)]


def add(step: CountingTransaction, bodies: Sequence[bytes]) -> None:
    """Count what was read."""
    step.add(aggregate([segment.decode(body) for body in bodies]))
    step.advance()


def wait_for_lock(database_url: str) -> None:
    """Return when some connection waits for another one's lock."""
    question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while not ask_one(database_url, question):
        pass


def test_cut__two_at_once_take_one(engine: Engine, usage: UsageStore, database_url: str) -> None:
    """Of processes that find a cut due at the same time one takes it."""
    stores = [usage, *(UsageStore(engine, shard=0) for _ in range(5))]
    with ThreadPoolExecutor(6) as pool, psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM counting FOR UPDATE")
        taking = [pool.submit(cut, store, BEGIN_MS) for store in stores]
        question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while ask_one(database_url, question) < len(stores):
            pass
        holder.rollback()
        results = [it.result(WAIT_SECONDS_MAX) for it in taking]
    assert sorted(results, key=str) == [1] + [None] * 5
    assert ask_one(database_url, "SELECT count(*) FROM cuts") == 1


def test_follow__cuts_under_load_and_counts_before_it_ends(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """The day's cut comes though there is always more to count; a stop counts what is there."""
    cut_taken = Event()
    recorded: list[int] = []

    def record_more(_delta: UsageDelta | None = None) -> None:
        if not cut_taken.is_set():
            record(journal, 1)
            recorded.append(1)

    record_more()
    follower = Follower(usage, now_ms=now_ms, monotonic_seconds=lambda: 0.0, on_counted=record_more)
    follower.start()
    while not ask_one(database_url, "SELECT count(*) FROM cuts"):
        pass
    cut_taken.set()
    follower.stop()
    assert ask_one(database_url, TOTAL) == sum(recorded)


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


def execute_as(engine: Engine, statement: str) -> None:
    """Run a statement in the service's role."""
    with engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        *(
            f"{verb} {table}{rest}"
            for table, column in [
                ("journal", "event_count"),
                ("cuts", "cut_id"),
                ("cut_positions", "position"),
                ("producer_gaps", "last_sequence"),
                ("account_parents", "parent_id"),
                ("skus", "mode"),
                ("dimensions", "sku_id"),
            ]
            for verb, rest in [("DELETE FROM", ""), ("UPDATE", f" SET {column} = {column}")]
        ),
        *(f"DELETE FROM {table}" for table in ("usage", "counting", "accounts", "quarantine")),
        "UPDATE quarantine SET payload = payload",
        "TRUNCATE journal",
        "DROP TABLE journal",
        "INSERT INTO registry DEFAULT VALUES",
        "CREATE TABLE mine (number integer)",
    ],
)
def test_role__service_cannot_undo_facts(engine: Engine, statement: str) -> None:
    """The service's own role may not change or delete what was recorded."""
    with pytest.raises(ProgrammingError) as failure:
        execute_as(engine, statement)
    assert isinstance(failure.value.orig, errors.InsufficientPrivilege)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE usage SET input = input",
        "UPDATE counting SET position = position",
        "UPDATE quarantine SET state = state",
        "DELETE FROM event_claims",
    ],
)
def test_role__service_may_change_what_is_derived(engine: Engine, statement: str) -> None:
    """Sums, watermarks, decisions and old claims are the service's to change."""
    execute_as(engine, statement)


def test_role__reader_sees_daily_usage_and_nothing_else(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """The reader's role reads the view, with names and sums, and no table."""
    record(journal, 5, 7)
    follow(usage).count_once()
    with psycopg.connect(database_url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        connection.execute("SET ROLE tokenworks_reader")
        question = "SELECT day::text, account_id, handle, tier, mode, input FROM usage_daily"
        assert connection.execute(question).fetchall() == [
            ("2027-01-15", "acme", "acme", "high", "online", 12)
        ]
        assert len(tables) > 15
        for (table,) in tables:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(f"SELECT 1 FROM {table} LIMIT 1")
