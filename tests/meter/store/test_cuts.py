"""Cuts on a real Postgres: once a day, behind counting, and what is below them stays."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import psycopg
from sqlalchemy import Engine

from meter import segment
from meter.counting.aggregate import UsageDelta, aggregate
from meter.counting.follower import CountingTransaction, Follower
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import (
    TOTAL,
    WAIT_SECONDS_MAX,
    ask,
    ask_one,
    counting_of,
    follow,
    now_ms,
    owner,
    record,
    wait_for_lock,
)

DAY_MS = 86_400_000


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


def test_cut__two_at_once_take_one(engine: Engine, usage: UsageStore, database_url: str) -> None:
    """Of processes that find a cut due at the same time one takes it."""
    stores = [usage, *(UsageStore(engine, own_shard=lambda: 0) for _ in range(5))]
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


def test_take_cut__clock_that_went_back(usage: UsageStore) -> None:
    """A server whose clock is behind, or was set back, takes no second cut of a day."""
    assert usage.take_cut_if_due(now_ms=20_000 * DAY_MS, every_ms=DAY_MS) == 1
    assert usage.take_cut_if_due(now_ms=20_000 * DAY_MS - 1, every_ms=DAY_MS) is None
    assert usage.take_cut_if_due(now_ms=20_001 * DAY_MS, every_ms=DAY_MS) == 2
