"""Producers on a real Postgres: the newest instance, gaps, no commit in between."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import Engine, event

from meter.domain.errors import Overloaded
from meter.domain.limits import GAPS_LISTED_MAX
from meter.journal.commit import Result, commit_group
from meter.journal.protocol import Verdict
from meter.producers import ProducerQuery
from meter.store.journal import JournalStore
from tests.meter.store.recording import (
    administrator,
    ask,
    ask_one,
    commit,
    now_ms,
    numbered,
    open_producer,
    origin_of,
    producers_of,
)


def test_open__gap_is_kept_once(store: JournalStore, database_url: str) -> None:
    """Numbers that a producer passes over are recorded as a gap, however often it reopens."""
    open_producer(store)
    commit(store, numbered(1, 5))
    for _ in range(2):
        open_producer(store, first_sequence=5)
    question = "SELECT first_sequence, last_sequence FROM producer_gaps"
    assert ask(database_url, question) == [(2, 4)]
    assert producers_of(store).summarize(silence_ms=None).missing_count == 3
    assert commit(store, numbered(5, 5))[0].verdict is Verdict.RECORD


def test_list__has_the_newest_gaps_and_the_sum_of_all(store: JournalStore) -> None:
    """However many gaps a producer has, a few are listed and all are counted."""
    for number in range(GAPS_LISTED_MAX + 3):
        open_producer(store, first_sequence=2 * number + 3)
    query = ProducerQuery(account_id="acme")
    (found,) = producers_of(store).list_producers(query, silence_ms=None)
    firsts = [gap.first_sequence for gap in found.gaps]
    assert firsts == [2 * number + 1 for number in range(GAPS_LISTED_MAX + 2, 2, -1)]
    assert found.missing_batch_count == 2 * (GAPS_LISTED_MAX + 3)


def test_open__older_instance_changes_nothing(store: JournalStore) -> None:
    """An instance that was followed by a newer one is told of it when it comes again."""
    old, new = b"a" * 16, b"b" * 16
    producers_of(store).open_producer(origin_of(instance=old), first_sequence=0)
    producers_of(store).open_producer(origin_of(instance=new), first_sequence=0)
    state = producers_of(store).open_producer(origin_of(instance=old), first_sequence=9)
    assert (state.instance, state.sequence) == (new, 0)
    assert producers_of(store).summarize(silence_ms=None).missing_count == 0


def test_open__at_once_has_one_newest(store: JournalStore, database_url: str) -> None:
    """Of instances that open at the same moment one stays the newest, and only it may record."""
    instances = [bytes([number]) * 16 for number in range(1, 7)]
    with ThreadPoolExecutor(6) as pool:
        opened = [origin_of(instance=instance) for instance in instances]
        list(pool.map(lambda it: producers_of(store).open_producer(it, first_sequence=0), opened))
    newest = ask_one(database_url, "SELECT instance FROM producers")
    group = [numbered(1, 5, instance=instance) for instance in instances]
    results = commit_group(store, group, now_ms=now_ms)
    assert [isinstance(it, Result) for it in results] == [it == newest for it in instances]


def test_open__of_too_many_is_refused(store: JournalStore) -> None:
    """Where an account has no room for a producer, those that it has open their streams as ever."""
    producers = producers_of(store)
    known, new = origin_of(producer="known"), origin_of(producer="new")
    producers.open_producer(known, first_sequence=0)
    producers.open_producer(known, first_sequence=0, may_be_new=False)
    with pytest.raises(Overloaded) as failure:
        producers.open_producer(new, first_sequence=0, may_be_new=False)
    assert failure.value.metadata == {"bound": "producers"}
    summary = producers.summarize(silence_ms=None)
    assert summary.hearings["acme"].expected_count == 1


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
