"""The journal on a real Postgres: once each, whoever repeats, competes, blocks or disappears."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event

from meter import segment
from meter.domain.errors import MeterError, Reason, Refused, Unavailable
from meter.domain.outcome import Outcome
from meter.journal.commit import Result, Submission, commit_group
from meter.journal.protocol import Verdict
from meter.journal.writer import JournalWriter
from meter.store.engine import make_engine
from meter.store.journal import JournalStore, JournalTransaction
from tests.meter.store.recording import (
    INPUT,
    WAIT_SECONDS_MAX,
    administrator,
    aside,
    ask,
    ask_one,
    batch_of,
    claiming,
    create_accounts,
    new_table,
    now_ms,
    numbered,
    origin_of,
)

RECORDED, DUPLICATE, CONFLICT = Outcome.RECORDED, Outcome.DUPLICATE, Outcome.CONFLICT

# How many rows there are of what one group's transaction writes.
FACTS = (
    "SELECT (SELECT count(*) FROM journal) + (SELECT count(*) FROM quarantine)"
    " + (SELECT count(*) FROM event_claims)"
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role, to a database with accounts."""
    create_accounts(database_url)
    engine = make_engine(database_url, pool_size=12)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> JournalStore:
    """The owner of shard 0."""
    return owner(engine)


def owner(engine: Engine, *, shard: int = 0) -> JournalStore:
    """Return a store that owns a shard."""
    store = JournalStore(engine, shard=shard)
    store.take_ownership()
    return store


def commit(store: JournalStore, *group: Submission) -> list[Result]:
    """Commit a group of which nothing is put off or refused."""
    results = commit_group(store, group, now_ms=now_ms)
    assert all(isinstance(result, Result) for result in results)
    return [result for result in results if isinstance(result, Result)]


def open_producer(store: JournalStore, producer: str = "p", *, first_sequence: int = 0) -> None:
    """Open a producer with the instance that all batches here have."""
    store.open_producer(origin_of(producer), first_sequence=first_sequence)


def tokens_in_journal(database_url: str) -> int:
    """Return the input tokens of all segments."""
    bodies = [body for (body,) in ask(database_url, "SELECT body FROM journal")]
    segments = map(segment.decode, bodies)
    return sum(int(part.tokens[INPUT].sum()) for part in segments if INPUT in part.tokens)


def test_commit__number_is_recorded_once(store: JournalStore, database_url: str) -> None:
    """A number that comes again, in the same group or later, with the same bytes is success."""
    open_producer(store)
    first, again = commit(store, numbered(1, 5, 7), numbered(1, 5, 7))
    (later,) = commit(store, numbered(1, 5, 7))
    assert [it.verdict for it in (first, again, later)] == [
        Verdict.RECORD,
        Verdict.REPEATED,
        Verdict.REPEATED,
    ]
    assert later.next_sequence == 2
    assert tokens_in_journal(database_url) == 12


def test_commit__changed_number_is_kept_whole(store: JournalStore, database_url: str) -> None:
    """A number with other bytes is kept as a whole batch, and its own events are not counted."""
    open_producer(store)
    commit(store, numbered(1, 5))
    (changed,) = commit(store, numbered(1, 6, set_aside=[aside()]))
    assert changed.verdict is Verdict.CHANGED
    question = "SELECT quarantine_id, event_index, outcome, payload FROM quarantine"
    ((entry, index, outcome, payload),) = ask(database_url, question)
    assert [(it.index, number) for it, number in changed.set_aside] == [(-1, entry)]
    assert (index, outcome, payload) == (-1, Outcome.BATCH_CHANGED, b"whole batch")
    assert tokens_in_journal(database_url) == 5


def test_commit__hole_records_nothing_behind_it(store: JournalStore, database_url: str) -> None:
    """Behind a hole nothing of a batch is kept, neither events nor what was set aside."""
    open_producer(store)
    one, three, four = commit(
        store, numbered(1, 5), numbered(3, 6, set_aside=[aside()]), numbered(4, 7)
    )
    assert [it.verdict for it in (one, three, four)] == [Verdict.RECORD, Verdict.HOLE, Verdict.HOLE]
    assert (three.next_sequence, four.next_sequence) == (2, 2)
    assert tokens_in_journal(database_url) == 5
    assert ask_one(database_url, "SELECT count(*) FROM quarantine") == 0


def test_commit__older_instance_is_told_to_stop(store: JournalStore, database_url: str) -> None:
    """A batch of an instance that a newer one has followed is refused, the others go on."""
    open_producer(store)
    other = b"j" * 16
    fenced, fine = commit_group(
        store, [numbered(1, 5, instance=other), numbered(1, 6)], now_ms=now_ms
    )
    assert isinstance(fenced, Refused)
    assert fenced.reason is Reason.PRODUCER_TAKEN_OVER
    assert isinstance(fine, Result)
    assert tokens_in_journal(database_url) == 6


def test_commit__what_is_set_aside_is_in_the_same_commit(
    store: JournalStore, database_url: str
) -> None:
    """Quarantine entries stand under the ids that the results name, in their order."""
    open_producer(store)
    first, second = commit(
        store,
        numbered(1, 5, set_aside=[aside(3), aside(1)]),
        numbered(2, 6, set_aside=[aside(2)]),
    )
    listed = [(number, it.index) for result in (first, second) for it, number in result.set_aside]
    question = "SELECT quarantine_id, event_index FROM quarantine ORDER BY quarantine_id"
    assert listed == ask(database_url, question)
    assert [index for _, index in listed] == [3, 1, 2]


def test_claim__within_a_group(store: JournalStore, database_url: str) -> None:
    """Of the same id in several calls of a group the first one counts."""
    first, second = commit(
        store, claiming((1, 5), (2, 7), (1, 5)), claiming((1, 6), (2, 7), (3, 1))
    )
    assert first.outcomes == [RECORDED, RECORDED, DUPLICATE]
    assert second.outcomes == [CONFLICT, DUPLICATE, RECORDED]
    assert [(it.index, it.payload) for it, _ in second.set_aside] == [(0, b"payload 0")]
    assert tokens_in_journal(database_url) == 13


def test_claim__across_groups(store: JournalStore, database_url: str) -> None:
    """An id that was recorded earlier is a duplicate or a conflict, by its content."""
    commit(store, claiming((1, 5), (2, 7)))
    (later,) = commit(store, claiming((3, 1), (2, 7), (1, 6)))
    assert later.outcomes == [RECORDED, DUPLICATE, CONFLICT]
    assert tokens_in_journal(database_url) == 13


def test_claim__second_writer_waits_for_the_first(
    engine: Engine, store: JournalStore, database_url: str
) -> None:
    """While one server's claims are open another one waits, and then finds them taken."""
    other = owner(engine, shard=1)
    key, content = b"k" * 16, b"c" * 16
    with ThreadPoolExecutor() as pool:
        with store.transaction() as first:
            assert first.claim_events({key: content}, now_ms=now_ms()) == {}

            def claim() -> dict[bytes, bytes]:
                with other.transaction() as second:
                    return second.claim_events({key: b"d" * 16}, now_ms=now_ms())

            waiting = pool.submit(claim)
            wait_for_lock(database_url)
            assert not waiting.done()
        assert waiting.result(WAIT_SECONDS_MAX) == {key: content}


def wait_for_lock(database_url: str) -> None:
    """Return when some connection waits for another one's lock."""
    question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while not ask_one(database_url, question):
        pass


def test_claim__same_ids_at_once_on_two_servers(
    engine: Engine, store: JournalStore, database_url: str
) -> None:
    """Two servers that claim the same ids in opposite orders record each once, without deadlock."""
    stores = (store, owner(engine, shard=1))
    shuffler = random.Random(1)
    rounds = 20
    with ThreadPoolExecutor(2) as pool:
        for round_number in range(rounds):
            events = [(round_number * 1_000 + number, 1) for number in range(500)]
            shuffler.shuffle(events)
            calls = [claiming(*events), claiming(*reversed(events))]
            results = [
                outcome
                for (result,) in pool.map(commit, stores, calls)
                for outcome in result.outcomes
            ]
            assert results.count(RECORDED) == results.count(DUPLICATE) == 500
    assert tokens_in_journal(database_url) == rounds * 500


def test_claim__is_forgotten_after_its_time(store: JournalStore, database_url: str) -> None:
    """Claims are deleted when they are older than the bound, and only then."""
    commit(store, claiming((1, 5)))
    assert store.forget_claims(before_ms=now_ms()) == 0
    assert store.forget_claims(before_ms=now_ms() + 1) == 1
    assert ask_one(database_url, "SELECT count(*) FROM event_claims") == 0


def test_append__newer_owner_fences_the_older_one(
    engine: Engine, store: JournalStore, database_url: str
) -> None:
    """A server whose shard was taken over in mid-group leaves nothing of that group behind."""
    open_producer(store)

    def taken_over() -> None:
        with store.transaction() as transaction:
            record(transaction)

    def record(transaction: JournalTransaction) -> None:
        states = transaction.lock_producers([("acme", "p")])
        transaction.claim_events({b"k" * 16: b"c" * 16}, now_ms=now_ms())
        transaction.set_aside([(origin_of(), aside())])
        transaction.save_producers(
            {key: state.recorded(b"d" * 8) for key, state in states.items()}, now_ms=now_ms()
        )
        newer.take_ownership()
        transaction.append(b"body", event_count=1, first_ms=0, last_ms=0)

    newer = JournalStore(engine, shard=0)
    with pytest.raises(Unavailable) as failure:
        taken_over()
    assert failure.value.reason is Reason.SHUTTING_DOWN
    assert ask_one(database_url, FACTS) == 0
    assert ask_one(database_url, "SELECT sequence FROM producers") == 0
    assert commit(newer, numbered(1, 5))[0].verdict is Verdict.RECORD
    assert ask(database_url, "SELECT position, epoch FROM journal") == [(1, 2)]


def test_lock__producer_of_another_server_is_put_off(
    store: JournalStore, database_url: str
) -> None:
    """A producer that another connection holds is not waited for; the others are recorded."""
    for name in ("held", "free"):
        open_producer(store, name)
    group = [numbered(1, 5, producer="held"), numbered(1, 7, producer="free")]
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM producers WHERE producer = 'held' FOR UPDATE")
        held, free = commit_group(store, group, now_ms=now_ms)
    assert held is None
    assert isinstance(free, Result)
    assert tokens_in_journal(database_url) == 7
    assert commit(store, group[0])[0].verdict is Verdict.RECORD


@dataclass
class Notes:
    """Stands for the metrics."""

    groups: list[int] = field(default_factory=list)
    buffered_bytes: int = 0

    def committed(self, *, seconds: float, submissions: int, events: int) -> None:  # noqa: ARG002
        """Note a group."""
        self.groups.append(submissions)

    def buffered(self, size_bytes: int) -> None:
        """Note what waits."""
        self.buffered_bytes = size_bytes


def write(
    store: JournalStore, group: Sequence[Submission], *, notes: Notes | None = None
) -> list[Result | BaseException]:
    """Send all through a writer at once and return what became of each."""

    async def run() -> list[Result | BaseException]:
        writer = JournalWriter(
            store,
            observer=notes or Notes(),
            now_ms=now_ms,
            monotonic_seconds=lambda: 0.0,
            buffer_bytes_max=2**20,
            on_commit=lambda: None,
        )
        futures = [writer.submit(item) for item in group]
        running = asyncio.create_task(writer.run())
        results = await asyncio.gather(*futures, return_exceptions=True)
        writer.stop()
        await running
        return results

    return asyncio.run(run())


REFUSAL = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no %', NEW.producer; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON producers FOR EACH ROW
WHEN (NEW.producer IN ('p3', 'p7')) EXECUTE FUNCTION refuse();
"""


def test_write__culprits_of_a_group_stand_alone(store: JournalStore, database_url: str) -> None:
    """What the database refuses fails by itself; all others of its group are recorded."""
    names = [f"p{number}" for number in range(10)]
    for name in names:
        open_producer(store, name)
    with administrator(database_url) as connection:
        connection.execute(REFUSAL)
    notes = Notes()
    results = write(store, [numbered(1, 5, producer=name) for name in names], notes=notes)
    failed = [name for name, it in zip(names, results, strict=True) if not isinstance(it, Result)]
    assert failed == ["p3", "p7"]
    assert sum(notes.groups) == 8
    assert notes.buffered_bytes == 0
    assert tokens_in_journal(database_url) == 40
    question = "SELECT producer FROM producers WHERE sequence = 1 ORDER BY 1"
    assert [name for (name,) in ask(database_url, question)] == sorted({*names} - {*failed})


def test_write__fault_that_nobody_foresaw_ends_nothing_else(
    store: JournalStore, database_url: str
) -> None:
    """A batch on which the code itself fails is answered with that; the writer goes on."""
    broken = Submission(origin=origin_of(""), batch=batch_of(1, end_ms=2**60))
    group = [claiming((1, 5)), broken, claiming((2, 6)), broken, claiming((3, 7))]
    results = write(store, group)
    assert [isinstance(it, Result) for it in results] == [True, False, True, False, True]
    assert not any(isinstance(it, MeterError) for it in results)
    assert tokens_in_journal(database_url) == 18


def test_write__put_off_is_recorded_when_the_holder_lets_go(
    store: JournalStore, database_url: str
) -> None:
    """A producer's batches that were put off are recorded later, in their order."""
    open_producer(store, "held")
    open_producer(store, "free")
    group = [numbered(n, n, producer=name) for n in (1, 2, 3) for name in ("held", "free")]
    with psycopg.connect(database_url) as holder, ThreadPoolExecutor() as pool:
        holder.execute("SELECT 1 FROM producers WHERE producer = 'held' FOR UPDATE")
        writing = pool.submit(write, store, group)
        question = "SELECT sequence FROM producers WHERE producer = 'free'"
        while ask_one(database_url, question) < 3:
            pass
        holder.rollback()
        results = writing.result(WAIT_SECONDS_MAX)
    verdicts = [it.verdict for it in results if isinstance(it, Result)]
    assert verdicts == [Verdict.RECORD] * 6
    assert tokens_in_journal(database_url) == 12


def test_write__held_for_long_fails_alone(store: JournalStore, database_url: str) -> None:
    """A producer that stays with another server ends in Unavailable, and was not recorded."""
    open_producer(store, "held")
    open_producer(store, "free")
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM producers WHERE producer = 'held' FOR UPDATE")
        held, free = write(store, [numbered(1, 5, producer=it) for it in ("held", "free")])
    assert isinstance(held, Unavailable)
    assert isinstance(free, Result)
    assert tokens_in_journal(database_url) == 5


def _lose_connection(database_url: str) -> None:
    """End every connection of the service from outside, as a crash of Postgres does."""
    with administrator(database_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


STEPS: list[Callable[[Any], object]] = [
    lambda it: it.lock_producers([("acme", "p")]),
    lambda it: it.claim_events({b"k" * 16: b"c" * 16}, now_ms=now_ms()),
    lambda it: it.append(b"body", event_count=1, first_ms=0, last_ms=0),
    lambda it: it.save_producers({}, now_ms=now_ms()),
    lambda it: it.set_aside([(origin_of(), aside())]),
]


@pytest.mark.parametrize("lost_before", range(len(STEPS) + 1))
def test_transaction__connection_lost_at_any_step(
    store: JournalStore, database_url: str, lost_before: int
) -> None:
    """Whenever the connection is lost, nothing is acknowledged, nothing stays, and all goes on."""
    open_producer(store)

    def interrupted() -> None:
        with store.transaction() as transaction:
            take_steps(transaction)

    def take_steps(transaction: JournalTransaction) -> None:
        for place, step in enumerate(STEPS):
            if place == lost_before:
                _lose_connection(database_url)
            step(transaction)
        _lose_connection(database_url)

    with pytest.raises(Unavailable) as failure:
        interrupted()
    assert failure.value.reason is Reason.STORE_UNAVAILABLE
    assert ask_one(database_url, FACTS) == 0
    assert commit(store, numbered(1, 5), claiming((7, 1)))[0].verdict is Verdict.RECORD
    assert ask(database_url, "SELECT position FROM journal") == [(1,)]


SLOW_COMMIT = """
CREATE FUNCTION wait_in_commit() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER wait_in_commit AFTER INSERT ON journal DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION wait_in_commit();
"""


def test_commit__connection_lost_within_it(store: JournalStore, database_url: str) -> None:
    """A commit whose answer never comes is no ack; the repeat is judged by what is on disk."""
    open_producer(store)
    with administrator(database_url) as connection:
        connection.execute(SLOW_COMMIT)
    with ThreadPoolExecutor() as pool, psycopg.connect(database_url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        committing = pool.submit(commit, store, numbered(1, 5))
        wait_for_lock(database_url)
        holder.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND NOT granted"
        )
        with pytest.raises(Unavailable):
            committing.result(WAIT_SECONDS_MAX)
    (again,) = commit(store, numbered(1, 5))
    assert again.verdict is Verdict.RECORD
    assert tokens_in_journal(database_url) == 5


def test_append__positions_are_dense_whoever_competes(engine: Engine, database_url: str) -> None:
    """Servers that take a shard from each other leave positions without hole, each ack on disk."""
    recorded: list[int] = []

    def compete(number: int) -> None:
        for step in range(10):
            store = owner(engine)
            for call in range(3):
                key = number * 1_000 + step * 10 + call
                try:
                    commit(store, claiming((key, 1)))
                except MeterError as error:
                    assert error.reason is Reason.SHUTTING_DOWN  # noqa: PT017
                else:
                    recorded.append(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(compete, range(4)))
    positions = [it for (it,) in ask(database_url, "SELECT position FROM journal ORDER BY 1")]
    assert positions == list(range(1, len(recorded) + 1))
    assert tokens_in_journal(database_url) == len(recorded)
    assert ask_one(database_url, "SELECT position FROM shards") == len(recorded)


def test_ensure__group_with_batches_of_many_tables(store: JournalStore, database_url: str) -> None:
    """Batches keep their dimensions when the tables that they came with have been replaced."""
    tables = [new_table() for _ in range(5)]
    for newest in range(1, 5):
        group = [
            Submission(origin=origin_of(""), batch=batch_of(1, table=table, dimension=place % 3))
            for place, table in enumerate(tables[: newest + 1])
        ]
        commit(store, *group)
    assert tokens_in_journal(database_url) == 2 + 3 + 4 + 5
    assert ask_one(database_url, "SELECT count(*) FROM dimensions") == 3


def test_open__gap_is_kept_once(store: JournalStore, database_url: str) -> None:
    """Numbers that a producer passes over are recorded as a gap, however often it reopens."""
    open_producer(store)
    commit(store, numbered(1, 5))
    for _ in range(2):
        open_producer(store, first_sequence=5)
    question = "SELECT first_sequence, last_sequence FROM producer_gaps"
    assert ask(database_url, question) == [(2, 4)]
    assert store.missing_batch_count() == 3
    assert commit(store, numbered(5, 5))[0].verdict is Verdict.RECORD


def test_open__older_instance_changes_nothing(store: JournalStore) -> None:
    """An instance that was followed by a newer one is told of it when it comes again."""
    old, new = b"a" * 16, b"b" * 16
    store.open_producer(origin_of(instance=old), first_sequence=0)
    store.open_producer(origin_of(instance=new), first_sequence=0)
    state = store.open_producer(origin_of(instance=old), first_sequence=9)
    assert (state.instance, state.sequence) == (new, 0)
    assert store.missing_batch_count() == 0


def test_open__at_once_has_one_newest(store: JournalStore, database_url: str) -> None:
    """Of instances that open at the same moment one stays the newest, and only it may record."""
    instances = [bytes([number]) * 16 for number in range(1, 7)]
    with ThreadPoolExecutor(6) as pool:
        opened = [origin_of(instance=instance) for instance in instances]
        list(pool.map(lambda it: store.open_producer(it, first_sequence=0), opened))
    newest = ask_one(database_url, "SELECT instance FROM producers")
    group = [numbered(1, 5, instance=instance) for instance in instances]
    results = commit_group(store, group, now_ms=now_ms)
    assert [isinstance(it, Result) for it in results] == [it == newest for it in instances]


def test_open__lets_no_commit_come_between(
    engine: Engine, store: JournalStore, database_url: str
) -> None:
    """From what a reopening reads to what it writes, nobody else can move the producer."""
    open_producer(store)
    refused: list[bool] = []

    def try_to_lock(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "INSERT INTO producer_instances" not in statement:
            return
        with administrator(database_url) as connection:
            try:
                connection.execute("SELECT 1 FROM producers FOR UPDATE NOWAIT")
            except psycopg.errors.LockNotAvailable:
                refused.append(True)

    event.listen(engine, "after_cursor_execute", try_to_lock)
    open_producer(store)
    event.remove(engine, "after_cursor_execute", try_to_lock)
    assert refused == [True]


def test_release__of_an_entry_is_one(store: JournalStore, database_url: str) -> None:
    """An entry that is released twice at once is recorded once; the other one is refused."""
    open_producer(store)
    (result,) = commit(store, numbered(1, set_aside=[aside()]))
    entry = result.set_aside[0][1]
    releasing = Submission(origin=origin_of(""), batch=batch_of(9), releases=entry)
    first, second = commit_group(store, [releasing, releasing], now_ms=now_ms)
    assert isinstance(first, Result)
    assert isinstance(second, Refused)
    assert second.reason is Reason.RELEASE_REFUSED
    assert tokens_in_journal(database_url) == 9
    assert ask(database_url, "SELECT state, decided_by FROM quarantine") == [(2, "key_1")]
