"""Segments of one group: several where there are many events, and one commit all the same."""

import pytest

from meter import segment
from meter.journal import commit as group_commit
from meter.journal.protocol import Verdict
from meter.store import journal as journal_store
from meter.store.journal import JournalStore
from tests.meter.store.recording import (
    INPUT,
    ask,
    ask_one,
    commit,
    numbered,
    open_producer,
    segment_of,
)


def test_commit__group_of_many_events_is_several_segments(
    store: JournalStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie behind each other, with whole batches in their order, and are one commit."""
    monkeypatch.setattr(group_commit, "_SEGMENT_EVENTS", 3)
    monkeypatch.setattr(journal_store, "_PUSHED_BYTES_MIN", 0)
    open_producer(store)
    results = commit(store, *(numbered(number, number, 10 * number) for number in range(1, 6)))
    assert [it.recorded_count for it in results] == [2] * 5
    rows = ask(database_url, "SELECT position, xmin, body FROM journal ORDER BY position")
    segments = [segment.decode(body) for _, _, body in rows]
    assert [position for position, _, _ in rows] == [1, 2, 3]
    assert len({xmin for _, xmin, _ in rows}) == 1
    found = [[(origin.sequence, count) for origin, count in it.origins] for it in segments]
    assert found == [[(1, 2), (2, 2)], [(3, 2), (4, 2)], [(5, 2)]]
    assert [it.tokens[INPUT].tolist() for it in segments] == [
        [1, 10, 2, 20],
        [3, 30, 4, 40],
        [5, 50],
    ]


def test_transaction__what_was_pushed_goes_with_a_fault(
    store: JournalStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours between two segments is told as it is, leaves nothing, and all goes on."""
    monkeypatch.setattr(journal_store, "_PUSHED_BYTES_MIN", 0)
    open_producer(store)

    def faulty() -> None:
        with store.transaction() as transaction:
            transaction.append(segment_of(5))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        faulty()
    assert ask_one(database_url, "SELECT count(*) FROM journal") == 0
    assert commit(store, numbered(1, 5))[0].verdict is Verdict.RECORD
    assert ask(database_url, "SELECT position FROM journal") == [(1,)]
