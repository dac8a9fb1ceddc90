"""The journal on a real Postgres: once each, whoever repeats, competes, blocks or disappears."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from meter.domain.errors import MeterError, Reason, Refused, Unavailable
from meter.domain.outcome import Outcome
from meter.journal.commit import Release, Result, Submission, commit_group
from meter.journal.protocol import Verdict
from meter.store import journal as journal_store
from meter.store.journal import JournalStore, JournalTransaction
from tests.meter.store.recording import (
    WAIT_SECONDS_MAX,
    administrator,
    aside,
    ask,
    ask_one,
    batch_of,
    claiming,
    commit,
    end_connections,
    new_table,
    now_ms,
    numbered,
    open_producer,
    origin_of,
    owner,
    segment_of,
    tokens_in_journal,
    wait_for_lock,
)

RECORDED, DUPLICATE, CONFLICT = Outcome.RECORDED, Outcome.DUPLICATE, Outcome.CONFLICT

# How many rows there are of what one group's transaction writes.
FACTS = (
    "SELECT (SELECT count(*) FROM journal) + (SELECT count(*) FROM quarantine)"
    " + (SELECT count(*) FROM event_claims)"
)


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


def test_claim__of_several_calls(store: JournalStore) -> None:
    """A conflict of calls that are claimed together has its place in its own call."""
    together = claiming((1, 10), (2, 20), (1, 11))
    assert together.claims is not None
    # Two calls: of one event, and of two.
    claims = replace(together.claims, places=[0, 0, 1])
    (result,) = commit(store, replace(together, claims=claims))
    assert result.outcomes == [RECORDED, RECORDED, CONFLICT]
    assert [(entry.index, entry.payload) for entry, _ in result.set_aside] == [(1, b"payload 2")]


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


@pytest.mark.parametrize("pushed_bytes_min", [0, 131_072])
def test_append__newer_owner_fences_the_older_one(
    engine: Engine,
    store: JournalStore,
    database_url: str,
    pushed_bytes_min: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server whose shard was taken over in mid-group leaves nothing of that group behind."""
    monkeypatch.setattr(journal_store, "_PUSHED_BYTES_MIN", pushed_bytes_min)
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
        newer.append(owner(engine))
        transaction.append(segment_of(5))
        transaction.append(segment_of(6))

    newer: list[JournalStore] = []
    with pytest.raises(Unavailable) as failure:
        taken_over()
    assert failure.value.reason is Reason.SHUTTING_DOWN
    assert ask_one(database_url, FACTS) == 0
    assert ask_one(database_url, "SELECT sequence FROM producers") == 0
    assert commit(newer[0], numbered(1, 5))[0].verdict is Verdict.RECORD
    assert ask(database_url, "SELECT position, epoch FROM journal") == [(1, 2)]


def test_append__correction_whose_segment_lies_elsewhere_is_not_committed(
    store: JournalStore, database_url: str
) -> None:
    """What a correction names is the position of its segment, or there is no commit."""

    def corrected() -> None:
        with store.transaction() as transaction:
            transaction.awaited_position = 7
            transaction.append(segment_of(5))

    with pytest.raises(AssertionError, match="a correction has its segment"):
        corrected()
    assert ask_one(database_url, FACTS) == 0


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


STEPS: list[Callable[[Any], object]] = [
    lambda it: it.lock_producers([("acme", "p")]),
    lambda it: it.claim_events({b"k" * 16: b"c" * 16}, now_ms=now_ms()),
    lambda it: it.append(segment_of(5)),
    lambda it: it.save_producers({}, now_ms=now_ms()),
    lambda it: it.set_aside([(origin_of(), aside())]),
]


@pytest.mark.parametrize("pushed_bytes_min", [0, 131_072])
@pytest.mark.parametrize("lost_before", range(len(STEPS) + 1))
def test_transaction__connection_lost_at_any_step(
    store: JournalStore,
    database_url: str,
    lost_before: int,
    pushed_bytes_min: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whenever the connection is lost, nothing is acknowledged, nothing stays, and all goes on."""
    monkeypatch.setattr(journal_store, "_PUSHED_BYTES_MIN", pushed_bytes_min)
    open_producer(store)

    def interrupted() -> None:
        with store.transaction() as transaction:
            take_steps(transaction)

    def take_steps(transaction: JournalTransaction) -> None:
        for place, step in enumerate(STEPS):
            if place == lost_before:
                end_connections(database_url)
            step(transaction)
        end_connections(database_url)

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
    """Servers that take shards from each other leave positions without hole, each ack on disk."""
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
    ends = "SELECT shard, count(*), max(position) FROM journal GROUP BY 1 ORDER BY 1"
    positions = "SELECT shard, position, position FROM shards WHERE position > 0 ORDER BY 1"
    assert ask(database_url, ends) == ask(database_url, positions)
    assert tokens_in_journal(database_url) == len(recorded)
    assert ask_one(database_url, "SELECT sum(position)::bigint FROM shards") == len(recorded)


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


def test_release__of_an_entry_is_one(store: JournalStore, database_url: str) -> None:
    """An entry that is released twice at once is recorded once; the other one is refused."""
    open_producer(store)
    (result,) = commit(store, numbered(1, set_aside=[aside()]))
    entry = result.set_aside[0][1]
    decision = Release(quarantine_id=entry, key_id="key_2")
    releasing = Submission(origin=origin_of(""), batch=batch_of(9), releases=decision)
    first, second = commit_group(store, [releasing, releasing], now_ms=now_ms)
    assert isinstance(first, Result)
    assert isinstance(second, Refused)
    assert second.reason is Reason.RELEASE_REFUSED
    assert tokens_in_journal(database_url) == 9
    assert ask(database_url, "SELECT state, decided_by FROM quarantine") == [(2, "key_2")]
