"""What was just committed is counted from memory, and comes to what the journal says."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from meter.counting.fresh import Fresh
from meter.domain.errors import Unavailable
from meter.store.journal import JournalStore
from meter.store.usage import CountingStep, UsageStore
from tests.meter.store.recording import (
    TOTAL,
    Heard,
    administrator,
    aside,
    ask,
    ask_one,
    claiming,
    commit,
    counting_of,
    end_connections,
    follow,
    holding,
    numbered,
    open_producer,
    owner,
    record,
    segment_of,
)

WATERMARK = "SELECT position FROM counting WHERE shard = 0"
UNREADABLE = "UPDATE journal SET body = '\\x00' WHERE position >= {position}"
REPORTS = "SELECT account_id, producer FROM producer_reports, unnest(account_ids) AS account_id"
KEPT = {
    "usage": "SELECT * FROM usage ORDER BY 1, 2, 3, 4",
    "producer_reports": f"{REPORTS} ORDER BY 1, 2",
}


@pytest.fixture
def fresh() -> Fresh:
    """What both stores of these tests share."""
    return Fresh()


@pytest.fixture
def journal(engine: Engine, fresh: Fresh) -> JournalStore:
    """The owner of shard 0, who tells what it has committed."""
    with engine.connect(), engine.connect(), engine.connect():
        # All that is needed is open: a connection that is made later voids what is held.
        return owner(engine, fresh=fresh)


@pytest.fixture
def usage(engine: Engine, journal: JournalStore, fresh: Fresh) -> UsageStore:
    """Counts shard 0, and has begun to."""
    del journal
    store = counting_of(engine, fresh=fresh)
    follow(store).count_once()
    return store


def execute(database_url: str, *statements: str) -> None:
    """Change the database as the superuser."""
    with administrator(database_url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def make_unreadable(database_url: str, *, position: int = 1) -> None:
    """Spoil the bodies from a position on: whoever reads one of them fails."""
    execute(database_url, UNREADABLE.format(position=position))


def test_count__own_commits_are_not_read_back(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """What this process has committed is counted, and who reported it, though no body is there."""
    open_producer(journal)
    commit(journal, numbered(1, 5), numbered(2, 6))
    record(journal, 7, 8)
    make_unreadable(database_url)
    heard = Heard()
    assert [follow(usage, heard=heard).count_once() for _ in range(2)] == [4, 0]
    assert (ask_one(database_url, TOTAL), heard.tokens.total()) == (26, 26)
    assert ask_one(database_url, WATERMARK) == 2
    assert ask(database_url, REPORTS) == [("acme", "p")]


def test_count__memory_goes_on_behind_the_journal(
    engine: Engine, fresh: Fresh, database_url: str
) -> None:
    """What was there before is read, up to where memory begins and no further."""
    leases = holding(engine, shard=0)
    for count in (1, 2):
        record(JournalStore(engine, leases=leases), count)
    usage = counting_of(engine, fresh=fresh)
    with usage.counting():
        pass
    record(JournalStore(engine, leases=leases, fresh=fresh), 4)
    make_unreadable(database_url, position=3)
    assert follow(usage).count_once() == 3
    assert (ask_one(database_url, TOTAL), ask_one(database_url, WATERMARK)) == (7, 3)


def test_count__added_up_ahead_in_many_runs(
    usage: UsageStore,
    journal: JournalStore,
    fresh: Fresh,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is added up while counting rests is counted once, with what came after it."""
    monkeypatch.setattr("meter.counting.fresh.GROUP_EVENTS_MAX", 3)
    monkeypatch.setattr("meter.counting.fresh._AHEAD_EVENTS_MIN", 3)
    for count in (1, 2, 5):
        record(journal, *[1] * count)
    usage.add_up_ahead()
    record(journal, 1)
    make_unreadable(database_url)
    assert [follow(usage).count_once() for _ in range(2)] == [9, 0]
    assert ask_one(database_url, TOTAL) == 9
    assert fresh.size_bytes == 0


def test_count__full_memory_is_read_back(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above its bound nothing is held: the rest is read, and what comes then is held again."""
    bodies: list[int] = []
    read = CountingStep.read

    def note(self: CountingStep, *, events_max: int) -> Sequence[bytes]:
        found = read(self, events_max=events_max)
        bodies.extend([len(found)] if found else [])
        return found

    monkeypatch.setattr(CountingStep, "read", note)
    fresh = Fresh(bytes_max=1)
    with engine.connect(), engine.connect(), engine.connect():
        journal = owner(engine, fresh=fresh)
    usage = counting_of(engine, fresh=fresh)
    follow(usage).count_once()
    for _ in range(2):
        for count in (1, 2, 4):
            record(journal, count)
        size_bytes = fresh.size_bytes
        assert follow(usage).count_once() == 3
        assert (size_bytes > 0, fresh.size_bytes) == (True, 0)
    assert bodies == [2, 2]
    assert (ask_one(database_url, TOTAL), ask_one(database_url, WATERMARK)) == (14, 6)


def test_count__what_was_rolled_back_is_not_held(
    usage: UsageStore, journal: JournalStore, fresh: Fresh, database_url: str
) -> None:
    """A segment of a transaction that did not commit is nowhere; its position is another's."""
    with pytest.raises(KeyError), journal.transaction() as transaction:
        transaction.append(segment_of(5))
        raise KeyError
    assert fresh.size_bytes == 0
    record(journal, 7)
    assert follow(usage).count_once() == 1
    assert (ask_one(database_url, TOTAL), ask_one(database_url, WATERMARK)) == (7, 1)


def test_count__commit_whose_answer_is_lost(
    engine: Engine, usage: UsageStore, journal: JournalStore, fresh: Fresh, database_url: str
) -> None:
    """Of a commit whose fate is not known nothing is held; the journal has it, and it counts."""

    def lose_answer(connection: Any) -> None:  # noqa: ANN401
        connection.commit()
        raise OperationalError("COMMIT", {}, ConnectionResetError())

    record(journal, 1)
    held_bytes = fresh.size_bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.dialect, "do_commit", lose_answer)
        with pytest.raises(Unavailable), journal.transaction() as transaction:
            transaction.append(segment_of(5))
    assert fresh.size_bytes == held_bytes > 0
    record(journal, 7)
    assert [follow(usage).count_once() for _ in range(2)] == [3, 0]
    assert (ask_one(database_url, TOTAL), ask_one(database_url, WATERMARK)) == (13, 3)


def test_count__round_that_failed_is_read_back(
    usage: UsageStore, journal: JournalStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that took from memory and was rolled back is counted by the next one, once."""
    record(journal, 5)
    with monkeypatch.context() as patch:
        patch.setattr(CountingStep, "advance", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            follow(usage).count_once()
    record(journal, 7)
    assert [follow(usage).count_once() for _ in range(2)] == [2, 0]
    assert (ask_one(database_url, TOTAL), ask_one(database_url, WATERMARK)) == (12, 2)


@pytest.fixture
def older(journal: JournalStore, usage: UsageStore, database_url: str) -> None:
    """Commit a segment, and go back to a database that never had it."""
    del usage
    record(journal, 5)
    execute(database_url, "DELETE FROM journal", "UPDATE shards SET position = 0")


@pytest.mark.usefixtures("older")
def test_count__older_database_has_other_rows(usage: UsageStore, database_url: str) -> None:
    """What the journal does not have, though it was committed, is not counted."""
    assert follow(usage).count_once() == 0
    assert ask_one(database_url, "SELECT count(*) FROM usage") == 0
    assert ask_one(database_url, WATERMARK) == 0


@pytest.mark.usefixtures("older")
def test_count__older_database_was_written_by_another(
    engine: Engine, usage: UsageStore, database_url: str
) -> None:
    """A row at the same position, of as many events, is not the one that is held."""
    record(owner(engine), 7)
    assert follow(usage).count_once() == 1
    assert (ask_one(database_url, TOTAL), ask_one(database_url, WATERMARK)) == (7, 1)


def test_count__older_database_whose_clock_stands(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Where even the time of commit is the same, what was held went with the connections."""
    record(journal, 5)
    same = ask_one(database_url, "SELECT commit_time FROM journal").isoformat()
    execute(database_url, "DELETE FROM journal", "UPDATE shards SET position = 0")
    end_connections(database_url)
    engine.dispose()
    record(owner(engine), 7)
    execute(database_url, f"UPDATE journal SET commit_time = '{same}'")
    assert follow(usage).count_once() == 1
    assert (ask_one(database_url, TOTAL), ask_one(database_url, WATERMARK)) == (7, 1)


def test_count__lost_shard(
    engine: Engine, usage: UsageStore, journal: JournalStore, fresh: Fresh, database_url: str
) -> None:
    """Who lost its shard holds what it had committed, and nothing of what was refused."""
    record(journal, 5)
    held_bytes = fresh.size_bytes
    newer = owner(engine)
    with pytest.raises(Unavailable), journal.transaction() as transaction:
        transaction.append(segment_of(9))
    assert fresh.size_bytes == held_bytes > 0
    record(newer, 7)
    assert [follow(usage).count_once() for _ in range(2)] == [2, 0]
    assert (ask_one(database_url, TOTAL), ask_one(database_url, WATERMARK)) == (12, 2)


def test_count__from_memory_as_from_the_journal(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Of any mix of batches, calls, repeats and events set aside both ways write the same rows."""
    open_producer(journal)
    random = Random(7)
    heard, again = Heard(), Heard()
    sequence = 0
    for _ in range(30):
        group = []
        for _ in range(random.randint(1, 4)):
            counts = [random.randint(0, 300_000) for _ in range(random.randint(1, 5))]
            if random.random() < 0.5:
                sequence += 1
                group.append(numbered(sequence, *counts, set_aside=[aside()][: sequence % 2]))
            else:
                group.append(claiming(*((random.randint(1, 40), count) for count in counts)))
        commit(journal, *group)
        if random.random() < 0.3:
            usage.add_up_ahead()
        if random.random() < 0.2:
            follow(usage, heard=heard).count_once()
    bodies = dict(ask(database_url, "SELECT position, body FROM journal"))
    make_unreadable(database_url)
    follow(usage, heard=heard).count_once()
    found = {name: ask(database_url, question) for name, question in KEPT.items()}
    with administrator(database_url) as connection:
        connection.execute("UPDATE counting SET position = 0, totalled_position = 0")
        for name in KEPT:
            connection.execute(f"DELETE FROM {name}".encode())
        for position, body in bodies.items():
            connection.execute("UPDATE journal SET body = %s WHERE position = %s", (body, position))
    follow(counting_of(engine), heard=again).count_once()
    for name, question in KEPT.items():
        assert ask(database_url, question) == found[name]
        assert found[name]
    assert heard.tokens == again.tokens
