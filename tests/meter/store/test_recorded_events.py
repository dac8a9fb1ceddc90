"""Recorded events found again: which row of the journal is meant, and which one never."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from meter.corrections import ById, ByPlace, Search
from meter.domain.errors import NotFound, Refused
from meter.journal.commit import Release, Submission
from meter.store.corrections import CorrectionStore
from meter.store.journal import JournalStore
from meter.store.recorded_events import batch_index, batch_row
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.recording import (
    INPUT,
    TABLE,
    aside,
    batch_of,
    commit,
    numbered,
    open_producer,
    origin_of,
)


def find(engine: Engine, event: ById | ByPlace) -> dict[int, int]:
    """Return the tokens of the event that is meant."""
    search = Search(event=event, account_id="acme", start_ms=0, end_ms=None)
    return dict(CorrectionStore(engine, own_shard=lambda: 0).find_event(search).event.tokens)


def test_find__wants_the_bytes_to_be_an_id(engine: Engine, store: JournalStore) -> None:
    """Bytes that stand elsewhere in a segment, or across two ids, are no event's id."""
    ids = [b"a" * 8 + b"b" * 8, b"c" * 8 + b"d" * 8]
    events = [
        PlainEvent(
            dimension=0,
            end_ms=BEGIN_MS,
            tokens={INPUT: place},
            event_id=it,
            request_id="0123456789abcdef",
        )
        for place, it in enumerate(ids)
    ]
    commit(store, Submission(origin=origin_of(""), batch=to_batch(events, table=TABLE)))
    for wrong in (b"b" * 8 + b"c" * 8, b"0123456789abcdef"):
        with pytest.raises(NotFound):
            find(engine, ById(event_id=wrong))
    assert find(engine, ById(event_id=ids[1])) == {INPUT: 1}


def test_find__in_its_time_alone(engine: Engine, store: JournalStore) -> None:
    """Of two events with one id, recorded together, each is found by the time in which it ended."""
    events = [
        PlainEvent(
            dimension=0, end_ms=BEGIN_MS + step, tokens={INPUT: 1 + step}, event_id=b"1" * 16
        )
        for step in range(2)
    ]
    commit(store, Submission(origin=origin_of(""), batch=to_batch(events, table=TABLE)))
    corrections = CorrectionStore(engine, own_shard=lambda: 0)
    wanted = ById(event_id=b"1" * 16)
    for step in range(2):
        start_ms = BEGIN_MS + step
        search = Search(event=wanted, account_id="acme", start_ms=start_ms, end_ms=start_ms + 1)
        assert corrections.find_event(search).event.tokens == {INPUT: 1 + step}
    with pytest.raises(Refused, match="one of a call, ended 2027-01-15T08:00:00Z"):
        find(engine, wanted)


def test_find__behind_many_of_another_account(engine: Engine, store: JournalStore) -> None:
    """However often others have reported the same id, the event of this account's key is found."""
    wanted = ById(event_id=b"1" * 16)
    event = PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={INPUT: 1}, event_id=wanted.event_id)
    theirs = origin_of("")._replace(account_id="other")
    commit(store, Submission(origin=theirs, batch=to_batch([event] * 200, table=TABLE)))
    with pytest.raises(Refused, match="reported with a key of other: say whose"):
        find(engine, wanted)
    own = replace(event, tokens={INPUT: 2})
    commit(store, Submission(origin=origin_of(""), batch=to_batch([own], table=TABLE)))
    assert find(engine, wanted) == {INPUT: 2}


def test_find__under_a_number_that_was_used_twice(engine: Engine, store: JournalStore) -> None:
    """A batch and other bytes under its number, released: each has places, whatever the clock."""
    open_producer(store)
    commit(store, numbered(1, 5, 7, set_aside=[aside(0)]))
    (changed,) = commit(store, numbered(1, 9))
    ((_, entry),) = changed.set_aside
    released = Submission(
        origin=origin_of(instance=entry.to_bytes(8), sequence=1),
        batch=batch_of(9, 11),
        set_aside=[aside(1)],
        releases=Release(quarantine_id=entry, key_id="key_1"),
    )
    commit(store, released)
    places = [ByPlace(producer="p", sequence=1, index=index) for index in range(4)]
    assert [find(engine, place) for place in places[:2]] == [{INPUT: 9}, {INPUT: 5}]
    with pytest.raises(Refused, match="Several events are meant"):
        find(engine, places[2])
    with pytest.raises(NotFound):
        find(engine, places[3])


@given(aside=st.sets(st.integers(0, 30)), count=st.integers(0, 31))
def test_batch_row__and_index_belong_together(aside: set[int], count: int) -> None:
    """Rows are the places that were not set aside, in order; each is told from the other."""
    places = [index for index in range(count) if index not in aside]
    for row, index in enumerate(places):
        assert batch_row(index, aside=sorted(aside)) == row
        assert batch_index(row, aside=sorted(aside)) == index
    assert all(batch_row(index, aside=sorted(aside)) is None for index in aside)
