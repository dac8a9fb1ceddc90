"""The dictionary of dimensions: an id that a server remembers exists, also after a lost commit."""

import pytest
from sqlalchemy import Connection, Engine, event

from meter.domain.event import Dimensions, EventBatch
from meter.journal.commit import Submission
from meter.store.journal import JournalStore
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.recording import (
    ask_one,
    batch_of,
    commit,
    new_table,
    origin_of,
    owner,
)


class LostCommit(Exception):
    """Stands for a database that is lost in a commit."""


@pytest.mark.parametrize("lost", ["skus", "dimensions"])
def test_ensure_dimensions__commit_lost(
    store: JournalStore, engine: Engine, database_url: str, lost: str
) -> None:
    """An id whose commit was lost is not remembered: the repeat makes it anew and counts."""
    batch = batch_of(7, table=new_table())

    def lose(connection: Connection) -> None:
        count = connection.exec_driver_sql(f"SELECT count(*) FROM {lost}").scalar_one()
        if count:
            raise LostCommit

    event.listen(engine, "commit", lose)
    with pytest.raises(LostCommit):
        store.ensure_dimensions([batch])
    event.remove(engine, "commit", lose)
    commit(store, Submission(origin=origin_of(""), batch=batch))
    named = "SELECT count(*) FROM dimensions JOIN skus USING (sku_id)"
    assert ask_one(database_url, named) == 1
    assert store.dimension_ids(batch).tolist() == [
        ask_one(database_url, "SELECT dimension_id FROM dimensions")
    ]


def test_ensure_dimensions__of_two_batches_at_once(engine: Engine, database_url: str) -> None:
    """What two batches of a group have in common is the first one's, found or added."""
    table = new_table()
    first = to_batch(
        [PlainEvent(dimension=it, end_ms=BEGIN_MS, tokens={}) for it in (0, 1)], table=table
    )
    second = to_batch(
        [PlainEvent(dimension=it, end_ms=BEGIN_MS, tokens={}) for it in (1, 2)], table=table
    )
    store = owner(engine)
    assert store.ensure_dimensions([first, batch_of(table=table), second]) == [0, 0, 0]
    assert store.ensure_dimensions([first, second]) == [0, 0]
    another = owner(engine)
    assert another.ensure_dimensions([first, second]) == [2, 1]
    assert another.dimension_ids(first).tolist() == store.dimension_ids(first).tolist()
    assert another.dimension_ids(second).tolist() == store.dimension_ids(second).tolist()
    assert ask_one(database_url, "SELECT count(*) FROM dimensions") == 3


def test_ensure_dimensions__new_ones_among_many_events(engine: Engine, database_url: str) -> None:
    """Of more events than dimensions none is looked at where all have ids; a new one gets its."""
    table = new_table()
    store = owner(engine)

    def many(*dimensions: int) -> EventBatch:
        events = [PlainEvent(dimension=it, end_ms=BEGIN_MS, tokens={}) for it in dimensions]
        return to_batch(events * 20, table=table)

    for wanted, batch in ((1, many(0)), (2, many(0, 2)), (2, many(2)), (3, many(1, 2))):
        store.ensure_dimensions([batch])
        assert store.dimension_ids(batch).all()
        assert ask_one(database_url, "SELECT count(*) FROM dimensions") == wanted
    # As many as there is room for, and one more.
    room = 2 * len(table)
    for number in range(len(table), room + 1):
        store.ensure_dimensions([many(*range(number))])
        table.intern(Dimensions("acme", f"m{number}", "m", "high", 1, "", ""))
    store.ensure_dimensions([many(room)])
    assert store.dimension_ids(many(*range(room + 1))).all()
    assert ask_one(database_url, "SELECT count(*) FROM dimensions") == room + 1
