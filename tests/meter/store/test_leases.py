"""Leases of shards on a real Postgres: who holds one, who is fenced, and who counts the rest."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import Engine

from meter.domain.errors import StoreRefusal
from meter.domain.limits import LEASE_SECONDS, SHARDS_MAX
from meter.leases import Lease, ShardLost
from meter.store.journal import JournalStore
from meter.store.leases import LeaseStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import (
    TOTAL,
    WAIT_SECONDS_MAX,
    administrator,
    ask,
    ask_one,
    counting_of,
    follow,
    holding,
    owner,
    record,
    waiting_count,
)

_OWNERS = "SELECT shard, epoch, owner FROM shards ORDER BY 1"
_DAY_MS = 86_400_000
_SETTLED = 3


def lapse(database_url: str, shard: int = 0) -> None:
    """Let a lease run out, as it does when nobody renews it."""
    with administrator(database_url) as connection:
        connection.execute(
            "UPDATE shards SET lease_until = clock_timestamp() - interval '1 ms' WHERE shard = %s",
            (shard,),
        )


def settle(journal: JournalStore) -> None:
    """Write until no connection is new: over a new one the lease is looked at beforehand."""
    for _ in range(_SETTLED):
        record(journal, 5)


def of(engine: Engine, name: str) -> LeaseStore:
    """Return what takes leases for a process of that name."""
    return LeaseStore(engine, owner=name)


def test_take__the_lowest_that_nobody_holds(engine: Engine, database_url: str) -> None:
    """Each process has a shard of its own; one that was given back is the next one's."""
    a, b, c = (of(engine, name) for name in "abc")
    first = a.take(shard=None)
    assert [first.shard, b.take(shard=None).shard] == [0, 1]
    a.give_back(first)
    assert c.take(shard=None) == Lease(shard=0, epoch=2, owner="c")
    assert ask(database_url, _OWNERS) == [(0, 2, "c"), (1, 1, "b")]


def test_take__at_once(engine: Engine) -> None:
    """Of processes that start at the same moment no two have the same shard."""
    names = [f"meter-{number}" for number in range(6)]
    with ThreadPoolExecutor(len(names)) as pool:
        taken = list(pool.map(lambda name: of(engine, name).take(shard=None).shard, names))
    assert sorted(taken) == list(range(len(names)))


def test_take__one_that_is_named(engine: Engine) -> None:
    """A shard that is asked for is taken over, whoever has it; that one renews no more."""
    a, b = of(engine, "a"), of(engine, "b")
    older = a.take(shard=7)
    newer = b.take(shard=7)
    assert (newer.shard, newer.epoch) == (7, older.epoch + 1)
    assert (a.renew(older), b.renew(newer)) == (False, True)


def test_take__shard_of_a_server_without_leases(engine: Engine, database_url: str) -> None:
    """A shard that was never leased may be an older server's, which lives: it is not taken."""
    with administrator(database_url) as connection:
        connection.execute("INSERT INTO shards (shard, epoch, position) VALUES (0, 3, 0)")
    assert of(engine, "a").take(shard=None).shard == 1
    assert of(engine, "a").adopt() == []


def test_take__no_more_than_there_may_be(engine: Engine, database_url: str) -> None:
    """Shards have a bound; behind it a process is told why it does not start."""
    with administrator(database_url) as connection:
        connection.execute(
            "INSERT INTO shards (shard, epoch, position) SELECT n, 1, 0"
            " FROM generate_series(0, %s - 1) AS n",
            (SHARDS_MAX,),
        )
    with pytest.raises(StoreRefusal, match="are held by others"):
        of(engine, "a").take(shard=None)


def test_renew__lasts_by_the_clock_of_the_database(engine: Engine, database_url: str) -> None:
    """A lease ends some seconds after it was renewed, and is taken by nobody before."""
    store = of(engine, "a")
    lease = store.take(shard=None)
    left = "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM shards"
    lapse(database_url)
    assert store.renew(lease)
    assert LEASE_SECONDS - 1 < ask_one(database_url, left) <= LEASE_SECONDS
    assert of(engine, "b").adopt() == []


def test_renew__while_a_commit_holds_the_shard(engine: Engine, database_url: str) -> None:
    """What renews waits for no commit, and nobody adopts a shard that is being written."""
    store = of(engine, "a")
    lease = store.take(shard=None)
    lapse(database_url)
    with psycopg.connect(database_url) as writer:
        writer.execute("SELECT 1 FROM shards FOR UPDATE")
        assert store.renew(lease)
        assert of(engine, "b").adopt() == []
    assert ask_one(database_url, "SELECT owner FROM shards") == "a"


def test_append__renews(engine: Engine, database_url: str) -> None:
    """Who writes is alive: each commit renews the lease."""
    journal = owner(engine)
    lapse(database_url)
    record(journal, 5)
    assert of(engine, "b").adopt() == []


def test_adopt__fences_whoever_let_it_run_out(engine: Engine, database_url: str) -> None:
    """A process that hung writes nothing more to its shard, and goes on in another one."""
    leases = holding(engine, name="a")
    journal = JournalStore(engine, leases=leases)
    settle(journal)
    lapse(database_url)
    assert of(engine, "b").adopt() == [0]
    assert of(engine, "c").adopt() == []
    with pytest.raises(ShardLost):
        record(journal, 7)
    assert of(engine, "d").take(shard=None).shard == 0
    record(journal, 7)
    assert leases.shard == 1
    ends = "SELECT shard, max(position) FROM journal GROUP BY 1 ORDER BY 1"
    assert ask(database_url, ends) == [(0, _SETTLED), (1, 1)]


def test_adopt__database_that_gave_an_epoch_out_twice(engine: Engine, database_url: str) -> None:
    """After a restore two processes may have the same epoch; the owner's name decides."""
    leases = holding(engine, name="a")
    journal = JournalStore(engine, leases=leases)
    settle(journal)
    with administrator(database_url) as connection:
        connection.execute("UPDATE shards SET owner = 'b'")
    with pytest.raises(ShardLost):
        record(journal, 7)


def test_give_back__of_a_shard_that_is_another_ones(engine: Engine, database_url: str) -> None:
    """Who ends gives back what it has, and not what somebody has taken over."""
    a, b = of(engine, "a"), of(engine, "b")
    older = a.take(shard=0)
    b.take(shard=0)
    a.give_back(older)
    assert ask(database_url, _OWNERS) == [(0, 2, "b")]


def test_hold_task__one_at_a_time(engine: Engine, database_url: str) -> None:
    """A task is one server's until its lease is over, or it lets go; then anybody's."""
    a, b = of(engine, "a"), of(engine, "b")
    assert [a.hold_task("t"), b.hold_task("t"), a.hold_task("t"), b.hold_task("u")] == [
        *(True, False, True, True)
    ]
    with administrator(database_url) as connection:
        connection.execute("UPDATE task_leases SET lease_until = clock_timestamp()")
    assert [b.hold_task("t"), a.hold_task("t")] == [True, False]
    b.give_tasks_back()
    assert [a.hold_task("t"), a.hold_task("u")] == [True, True]


def test_held_count__of_the_living(engine: Engine, database_url: str) -> None:
    """Those count whose lease has not run out."""
    store = of(engine, "a")
    for name in "abc":
        of(engine, name).take(shard=None)
    lapse(database_url, shard=1)
    assert store.held_count() == 2


def test_count__orphans(engine: Engine, database_url: str) -> None:
    """What lies in a shard that nobody holds is counted by others, once; never one that is held."""
    record(owner(engine, shard=0), 5)
    record(owner(engine, shard=1), 7)
    counting_of(engine, shard=0)
    counting_of(engine, shard=1)
    owner(engine, shard=2)
    follower = follow(counting_of(engine, shard=2))
    assert follower.count_orphans() == 0
    lapse(database_url, shard=1)
    assert (follower.count_orphans(), follower.count_orphans()) == (1, 0)
    assert ask_one(database_url, TOTAL) == 7


def test_count__orphan_of_a_server_without_leases(engine: Engine, database_url: str) -> None:
    """An older server's shard is counted too: it may have ended for good."""
    record(owner(engine, shard=0), 5)
    counting_of(engine, shard=0)
    with administrator(database_url) as connection:
        connection.execute("UPDATE shards SET owner = '', lease_until = NULL")
    owner(engine, shard=1)
    assert follow(counting_of(engine, shard=1)).count_orphans() == 1


def test_count__orphan_that_another_one_counts(engine: Engine, database_url: str) -> None:
    """Of several that find an orphan one counts it; the others do not wait."""
    record(owner(engine, shard=0), 5)
    usage = counting_of(engine, shard=0)
    lapse(database_url)
    owner(engine, shard=1)
    other = follow(counting_of(engine, shard=1))
    with usage.counting() as step:
        step.read(events_max=1)
        assert other.count_orphans() == 0
    assert other.count_orphans() == 1


def test_count__orphan_behind_a_cut(engine: Engine, database_url: str) -> None:
    """A shard that would be counted again below a cut is left to a person."""
    record(owner(engine, shard=0), 5)
    usage = counting_of(engine, shard=0)
    follow(usage).count_once()
    assert usage.take_cut_if_due(now_ms=BEGIN_MS, every_ms=_DAY_MS) == 1
    with administrator(database_url) as connection:
        connection.execute("UPDATE counting SET position = 0, totalled_position = 0")
    lapse(database_url)
    owner(engine, shard=1)
    assert counting_of(engine, shard=1).find_orphans() == []


def test_watermark__that_begins_beside_a_cut(engine: Engine, database_url: str) -> None:
    """A new shard's count begins before a cut or after it, so that none slips below it unseen."""
    owner(engine, shard=0)
    counting_of(engine, shard=0)
    journal = owner(engine, shard=1)
    with psycopg.connect(database_url) as cut, ThreadPoolExecutor() as pool:
        # As a cut does it, of this version or an older one.
        cut.execute("SELECT shard FROM counting ORDER BY shard FOR UPDATE")
        beginning = pool.submit(counting_of, engine, shard=1)
        while not waiting_count(database_url):
            assert not beginning.done()
        cut.execute("INSERT INTO cuts VALUES (1, now())")
        cut.commit()
        beginning.result(WAIT_SECONDS_MAX)
    record(journal, 7)
    follow(UsageStore(engine, own_shard=lambda: 1)).count_once()
    assert ask_one(database_url, "SELECT cut_id FROM usage") == 2
