"""Folding on a real Postgres: totals are their usage in every transaction, whoever is at work."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psycopg
import pytest
from sqlalchemy import Engine, text

from meter.audit_log import JOB, Change
from meter.counting.aggregate import aggregate
from meter.domain.cell import cell_at
from meter.domain.errors import StoreRefusal, Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.segment import decode
from meter.store import folding
from meter.store.cuts import CutStore
from meter.store.folding import FIRST_MS, FoldStore
from meter.store.journal import JournalStore
from meter.store.sums import SumStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import (
    ACCOUNTS,
    WAIT_SECONDS_MAX,
    administrator,
    ask,
    ask_one,
    counting_of,
    follow,
    owner,
    record,
)

HOUR_MS: Final = 3_600_000
SETTLE_MS: Final = 5 * 60_000
WAITING: Final = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
FOLDED: Final = "SELECT (extract(epoch FROM folded_until) * 1000)::bigint FROM totals_fold"
TOTALS: Final = "SELECT account_id, input, request_count, last_cut_id FROM period_totals ORDER BY 1"
# A day in the middle of a cell: what is reported lies in it.
DAY_MS: Final = cell_at(BEGIN_MS).start_ms + 10 * 24 * HOUR_MS
LATER_MS: Final = DAY_MS + 2 * 24 * HOUR_MS
END_MS: Final = DAY_MS + 60 * 24 * HOUR_MS


@pytest.fixture
def fold(engine: Engine) -> Callable[[int], int]:
    """Folds all that is due, and says how many steps it took."""
    store = FoldStore(engine)

    def run(now_ms: int) -> int:
        steps = 1
        while store.fold_step(now_ms=now_ms):
            steps += 1
        return steps

    return run


def drifted(engine: Engine) -> frozenset[str]:
    """Return the accounts whose totals are not their usage."""
    return SumStore(engine).drifted(account_ids=ACCOUNTS, start_ms=0, end_ms=END_MS)


def input_of(engine: Engine, *, cut_id: int | None = None) -> int:
    """Return the input tokens of all accounts, read as sums."""
    edges = [FIRST_MS, END_MS]
    sums = SumStore(engine).sums(account_ids=ACCOUNTS, edges_ms=edges, cut_id=cut_id)
    return sum(sum(it.tokens.values()) for it in sums)


def test_fold__an_hour_that_is_over(
    usage: UsageStore, journal: JournalStore, fold: Callable[[int], int], database_url: str
) -> None:
    """Five minutes after an hour its usage is in the totals, and nothing of the next one."""
    for end_ms, count in [(DAY_MS, 1), (DAY_MS + HOUR_MS - 1, 2), (DAY_MS + HOUR_MS, 4)]:
        record(journal, count, end_ms=end_ms)
    follow(usage).count_once()
    fold(DAY_MS + HOUR_MS + SETTLE_MS - 1)
    assert ask(database_url, TOTALS) == []
    fold(DAY_MS + HOUR_MS + SETTLE_MS)
    assert ask(database_url, TOTALS) == [("acme", 3, 2, 1)]
    assert ask_one(database_url, FOLDED) == DAY_MS + HOUR_MS
    fold(DAY_MS)
    assert ask_one(database_url, FOLDED) == DAY_MS + HOUR_MS


def test_fold__what_is_late_is_added(
    engine: Engine,
    usage: UsageStore,
    journal: JournalStore,
    fold: Callable[[int], int],
    database_url: str,
) -> None:
    """Usage of a time that is folded is added to the totals as it is counted, with its cut."""
    record(journal, 1, end_ms=DAY_MS)
    follow(usage).count_once()
    fold(LATER_MS)
    CutStore(engine).take_cut(now_ms=LATER_MS)
    record(journal, 2, end_ms=DAY_MS)
    record(journal, 4, end_ms=DAY_MS, dimension=1)
    record(journal, 8, end_ms=LATER_MS)
    follow(usage).count_once()
    assert ask(database_url, TOTALS) == [("acme", 3, 2, 2), ("team", 4, 1, 2)]
    assert drifted(engine) == frozenset()
    assert [input_of(engine, cut_id=cut_id) for cut_id in (0, 1, 2, None)] == [0, 1, 15, 15]


def test_fold__much_at_once_in_steps(
    monkeypatch: pytest.MonkeyPatch,
    engine: Engine,
    usage: UsageStore,
    journal: JournalStore,
    fold: Callable[[int], int],
) -> None:
    """A backlog is folded in steps of some rows, which end at cells; none is left out."""
    monkeypatch.setattr(folding, "_STEP_ROWS", 10)
    for number in range(100):
        record(journal, 1, end_ms=DAY_MS + number * INTERVAL_MS, dimension=number % 3)
    record(journal, 1, end_ms=cell_at(DAY_MS).end_ms)
    follow(usage).count_once()
    assert 10 <= fold(END_MS) <= 14
    assert drifted(engine) == frozenset()
    assert input_of(engine) == 101


def test_fold__waits_for_counting_under_way(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Folding waits behind a transaction that counts, and has what that one has counted."""
    record(journal, 5, end_ms=DAY_MS)
    store = FoldStore(engine)
    with ThreadPoolExecutor() as pool:
        with usage.counting() as step:
            step.add(aggregate([decode(body) for body in step.read(events_max=10)]))
            step.advance()
            folds = pool.submit(store.fold_step, now_ms=LATER_MS)
            while not ask_one(database_url, WAITING):
                assert not folds.done()
        assert folds.result(WAIT_SECONDS_MAX) is False
    assert ask(database_url, TOTALS) == [("acme", 5, 1, 1)]


def test_fold__does_not_wait_for_a_server_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
    engine: Engine,
    usage: UsageStore,
    journal: JournalStore,
    database_url: str,
) -> None:
    """Behind a transaction that stands still it gives up, and others count on meanwhile."""
    monkeypatch.setattr(folding, "_PATIENCE", text("SET LOCAL lock_timeout = '1ms'"))
    record(journal, 5, end_ms=DAY_MS)
    store = FoldStore(engine)
    with psycopg.connect(database_url) as hanging:
        hanging.execute("LOCK TABLE totals_fold IN ROW SHARE MODE")
        with pytest.raises(Unavailable, match="counted for seconds"):
            store.fold_step(now_ms=LATER_MS)
        assert follow(usage).count_once() == 1
        hanging.rollback()
    assert store.fold_step(now_ms=LATER_MS) is False
    assert input_of(engine) == 5


def test_fold__a_step_that_fails_changes_nothing(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Totals and their mark move together, or not at all."""
    record(journal, 5, end_ms=DAY_MS)
    follow(usage).count_once()
    store = FoldStore(engine)
    with administrator(database_url) as connection:
        connection.execute("REVOKE UPDATE ON totals_fold FROM tokenworks_ingest")
        connection.execute("GRANT TRUNCATE ON totals_fold TO tokenworks_ingest")
        with pytest.raises(StoreRefusal):
            store.fold_step(now_ms=LATER_MS)
        assert ask(database_url, TOTALS) == []
        connection.execute("GRANT UPDATE ON totals_fold TO tokenworks_ingest")
    assert store.fold_step(now_ms=LATER_MS) is False
    assert ask(database_url, TOTALS) == [("acme", 5, 1, 1)]


def test_fold__servers_that_count_and_fold_at_once(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, usage: UsageStore, journal: JournalStore
) -> None:
    """Two servers count what is of now and what is late, both fold, one reads: nothing is lost."""
    monkeypatch.setattr(folding, "_STEP_ROWS", 3)
    journals = [journal, owner(engine, shard=1)]
    counters = [usage, counting_of(engine, shard=1)]
    rounds = 12

    def serve(shard: int) -> int:
        for number in range(rounds):
            for end_ms in (DAY_MS + number * HOUR_MS, DAY_MS, DAY_MS + number * HOUR_MS // 2):
                record(journals[shard], 1, end_ms=end_ms, dimension=number % 3)
            follow(counters[shard]).count_once()
        return shard

    def fold_on(_: int) -> None:
        store = FoldStore(engine)
        for number in range(4 * rounds):
            store.fold_step(now_ms=DAY_MS + number * HOUR_MS // 4)

    def read_on(_: int) -> list[int]:
        return [input_of(engine) + 100_000 * len(drifted(engine)) for _ in range(rounds)]

    with ThreadPoolExecutor(5) as pool:
        serving = [pool.submit(serve, shard) for shard in (0, 1)]
        folds = [pool.submit(fold_on, number) for number in (0, 1)]
        seen = pool.submit(read_on, 0).result(WAIT_SECONDS_MAX)
        assert [it.result(WAIT_SECONDS_MAX) for it in serving] == [0, 1]
        assert [it.result(WAIT_SECONDS_MAX) for it in folds] == [None, None]
    assert seen == sorted(seen)
    assert seen[-1] <= input_of(engine) == 2 * 3 * rounds
    assert drifted(engine) == frozenset()


CHANGES: Final = {
    "usage grew": "UPDATE usage SET input = input + 1 WHERE account_id = 'team'",
    "usage moved between classes": "UPDATE usage SET input = input - 1, output = output + 1"
    " WHERE account_id = 'team'",
    "usage gone": "DELETE FROM usage WHERE account_id = 'team'",
    "usage of another band": "UPDATE usage SET band = 7 WHERE account_id = 'team'",
    "usage of a later cut": "UPDATE usage SET cut_id = 9 WHERE account_id = 'team'",
    "requests gone": "UPDATE period_totals SET request_count = 0 WHERE account_id = 'team'",
    "total grew": "UPDATE period_totals SET output = 1 WHERE account_id = 'team'",
    "total gone": "DELETE FROM period_totals WHERE account_id = 'team'",
    "total of an older cut": "UPDATE period_totals SET last_cut_id = 0 WHERE account_id = 'team'",
    "total of nothing": "INSERT INTO period_totals (account_id, cell_start, sku_id, band, input,"
    " request_count, unfinished_count, delivered_output_count, estimated_count, last_cut_id)"
    " SELECT account_id, cell_start, sku_id, 7, 1, 1, 0, 0, 0, 1"
    " FROM period_totals WHERE account_id = 'team'",
    "another way of ending": "UPDATE usage SET finish_class = 3 WHERE account_id = 'team'",
    "estimated": "UPDATE usage SET estimated_count = 1 WHERE account_id = 'team'",
}


@pytest.mark.parametrize("change", CHANGES)
def test_drifted__a_change_by_hand_is_found(
    engine: Engine,
    journal: JournalStore,
    fold: Callable[[int], int],
    database_url: str,
    change: str,
) -> None:
    """Whatever is changed behind the meter's back, on either side, the account is named; alone."""
    for dimension in range(3):
        record(journal, 5, 7, end_ms=DAY_MS, dimension=dimension)
    follow(counting_of(engine)).count_once()
    fold(LATER_MS)
    assert drifted(engine) == frozenset()
    with administrator(database_url) as connection:
        connection.execute(CHANGES[change])
    assert drifted(engine) == {"team"}
    others = SumStore(engine).drifted(
        account_ids=["acme", "other"], start_ms=DAY_MS, end_ms=LATER_MS
    )
    assert others == frozenset()


def test_forget__totals_are_made_anew(
    engine: Engine,
    usage: UsageStore,
    journal: JournalStore,
    fold: Callable[[int], int],
    database_url: str,
) -> None:
    """After it nothing is folded and sums are still right; folding mends what was changed."""
    record(journal, 5, end_ms=DAY_MS)
    follow(usage).count_once()
    fold(END_MS)
    with administrator(database_url) as connection:
        connection.execute("UPDATE period_totals SET input = 6")
    assert input_of(engine) == 6
    change = Change(at_ms=LATER_MS, key_id=JOB, action="usage.recount", subject="period_totals")
    FoldStore(engine).forget(change)
    assert (ask_one(database_url, FOLDED), ask(database_url, TOTALS)) == (FIRST_MS, [])
    assert input_of(engine) == 5
    assert fold(END_MS) == 2
    assert (drifted(engine), input_of(engine)) == (frozenset(), 5)
    entry = "SELECT key_id, action, subject FROM audit_entries"
    assert ask(database_url, entry) == [("job", "usage.recount", "period_totals")]
