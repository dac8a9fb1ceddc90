"""The writer over a real Postgres: culprits stand alone, what is put off comes later."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import psycopg
import pytest

from meter.domain.errors import MeterError, Overloaded, Unavailable
from meter.journal import writer as writer_module
from meter.journal.commit import Result, Submission
from meter.journal.protocol import Verdict
from meter.journal.writer import JournalWriter
from meter.store.journal import JournalStore
from tests.meter.store.recording import (
    WAIT_SECONDS_MAX,
    administrator,
    ask,
    ask_one,
    batch_of,
    claiming,
    now_ms,
    numbered,
    open_producer,
    origin_of,
    tokens_in_journal,
)


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
    store: JournalStore,
    group: Sequence[Submission],
    *,
    notes: Notes | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> list[Result | BaseException]:
    """Send all through a writer at once and return what became of each."""

    async def run() -> list[Result | BaseException]:
        writer = JournalWriter(
            store,
            observer=notes or Notes(),
            now_ms=now_ms,
            monotonic_seconds=clock,
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


@pytest.mark.parametrize(("seconds", "lines"), [(0.999, []), (1.0, ["commit_slow"])])
def test_write__slow_commit_is_named(
    store: JournalStore, caplog: pytest.LogCaptureFixture, *, seconds: float, lines: list[str]
) -> None:
    """A group commit that takes a second or more has a line in the log, with what it held."""
    clock = iter([0.0, seconds])
    (result,) = write(store, [claiming((1, 5))], clock=lambda: next(clock))
    assert isinstance(result, Result)
    assert [record.message for record in caplog.records] == lines
    assert [vars(record)["events"] for record in caplog.records] == [1] * len(lines)


def test_write__claims_weigh_as_much_as_they_cost(
    store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of event ids fills no group that the others would wait for."""
    monkeypatch.setattr(writer_module, "GROUP_EVENTS_MAX", 22)
    notes = Notes()
    results = write(store, [claiming((number, 1)) for number in range(1, 5)], notes=notes)
    assert all(isinstance(it, Result) for it in results)
    assert notes.groups == [2, 2]


def test_submit__last_part_of_the_buffer_is_for_the_others(store: JournalStore) -> None:
    """Who holds much of the buffer is refused before it is full; who holds little is taken."""

    async def run() -> None:
        writer = JournalWriter(
            store,
            observer=Notes(),
            now_ms=now_ms,
            monotonic_seconds=lambda: 0.0,
            buffer_bytes_max=800,
            on_commit=lambda: None,
        )
        for number in range(1, 8):
            writer.submit(replace(numbered(number, 1, producer="flood"), size_bytes=100))
        with pytest.raises(Overloaded):
            writer.submit(replace(numbered(8, 1, producer="flood"), size_bytes=100))
        writer.submit(replace(numbered(1, 1, producer="honest"), size_bytes=100))
        with pytest.raises(Overloaded):
            writer.submit(replace(numbered(2, 1, producer="honest"), size_bytes=100))

    asyncio.run(run())
