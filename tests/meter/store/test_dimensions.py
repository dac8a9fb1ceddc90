"""The dictionary of dimensions: an id that a server remembers exists, also after a lost commit."""

import pytest
from sqlalchemy import Connection, Engine, event

from meter.journal.commit import Submission
from meter.store.journal import JournalStore
from tests.meter.store.recording import ask_one, batch_of, commit, new_table, origin_of


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
