"""What the store's tests record: accounts, batches of plain events, and what is found on disk."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import psycopg
from sqlalchemy import Engine

from meter import segment
from meter.counting.aggregate import UsageDelta
from meter.counting.follower import Follower
from meter.counting.fresh import Fresh
from meter.domain.event import (
    Claims,
    Dimensions,
    DimensionTable,
    EventBatch,
    Origin,
    SetAside,
)
from meter.domain.outcome import Outcome
from meter.journal.commit import Result, Submission, commit_group
from meter.leases import Leases
from meter.runtime.ids import process_name
from meter.segment import Gathered
from meter.store.journal import JournalStore
from meter.store.leases import LeaseStore
from meter.store.producers import ProducerStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch

INSTANCE: Final = b"i" * 16
INPUT: Final = 1
ACCOUNTS: Final = ("acme", "team", "other")
WAIT_SECONDS_MAX: Final = 30.0
# Between two looks, each of which is a new connection.
LOOK_SECONDS: Final = 0.01
TOTAL = "SELECT coalesce(sum(input), 0)::bigint FROM usage"


def now_ms() -> int:
    """Return the one time of these tests."""
    return BEGIN_MS


@contextlib.contextmanager
def administrator(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the superuser, each statement by itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def create_accounts(database_url: str) -> None:
    """Make the accounts that events name."""
    with administrator(database_url) as connection:
        for account in ACCOUNTS:
            connection.execute("INSERT INTO accounts VALUES (%s, %s, now())", (account, account))


def ask(database_url: str, question: str) -> list[tuple[Any, ...]]:
    """Return the rows of a question put by the superuser."""
    with administrator(database_url) as connection:
        return connection.execute(question).fetchall()


def ask_one(database_url: str, question: str) -> Any:  # noqa: ANN401
    """Return the one value that a question has."""
    ((value,),) = ask(database_url, question)
    return value


def new_table() -> DimensionTable:
    """Return a table with one row for each account, in order."""
    table = DimensionTable()
    for account in ACCOUNTS:
        table.intern(Dimensions(account, "m", "m", "high", 1, "", ""))
    return table


TABLE: Final = new_table()


def batch_of(
    *counts: int, table: DimensionTable = TABLE, end_ms: int = BEGIN_MS, dimension: int = 0
) -> EventBatch:
    """Return a batch with an event for each count of input tokens."""
    return to_batch(
        [PlainEvent(dimension=dimension, end_ms=end_ms, tokens={INPUT: count}) for count in counts],
        table=table,
    )


def numbered(
    sequence: int,
    *counts: int,
    producer: str = "p",
    instance: bytes = INSTANCE,
    set_aside: Sequence[SetAside] = (),
    table: DimensionTable = TABLE,
) -> Submission:
    """Return a stream's batch; its digest follows from its number and counts."""
    digest = hash((sequence, counts)).to_bytes(8, "big", signed=True)
    return Submission(
        origin=origin_of(producer, instance=instance, sequence=sequence, digest=digest),
        batch=batch_of(*counts, table=table),
        set_aside=set_aside,
        whole=b"whole batch",
    )


def origin_of(
    producer: str = "p", *, instance: bytes = INSTANCE, sequence: int = 0, digest: bytes = b""
) -> Origin:
    """Return the origin of a producer of the account acme."""
    return Origin(
        account_id="acme",
        key_id="key_1",
        received_ms=BEGIN_MS,
        producer=producer,
        instance=instance,
        sequence=sequence,
        digest=digest,
    )


def claiming(*events: tuple[int, int]) -> Submission:
    """Return a call's events as pairs of id and count; the content is the count."""
    keys = [number.to_bytes(16, "big") for number, _ in events]
    return Submission(
        origin=Origin(account_id="acme", key_id="key_1", received_ms=BEGIN_MS),
        batch=batch_of(*(count for _, count in events)),
        claims=Claims(
            keys=keys,
            hashes=[count.to_bytes(16, "big") for _, count in events],
            indexes=list(range(len(events))),
            payload=lambda index: b"payload %d" % index,
        ),
    )


def aside(index: int = 0) -> SetAside:
    """Return an event that is kept aside."""
    return SetAside(index=index, outcome=Outcome.TIER_UNKNOWN, payload=b"event")


def segment_of(*counts: int) -> Gathered:
    """Return a segment with an event for each count, of whatever dimension has the id 1."""
    return segment.gather(
        [(origin_of(), batch_of(*counts))], dimension_ids=lambda batch: batch.dimension + 1
    )


def owner(engine: Engine, *, shard: int = 0, fresh: Fresh | None = None) -> JournalStore:
    """Return a store that owns a shard, whoever had it."""
    return JournalStore(engine, leases=holding(engine, shard=shard), fresh=fresh)


def holding(engine: Engine, *, shard: int | None = None, name: str = "") -> Leases:
    """Return what holds a shard for a process of its own, and renews nothing by itself."""
    owner = name or process_name()
    store = LeaseStore(engine, owner=owner)
    leases = Leases(store, shard=shard, monotonic_seconds=time.monotonic)
    leases.take()
    return leases


def commit(store: JournalStore, *group: Submission) -> list[Result]:
    """Commit a group of which nothing is put off or refused."""
    results = commit_group(store, group, now_ms=now_ms)
    assert all(isinstance(result, Result) for result in results)
    return [result for result in results if isinstance(result, Result)]


def open_producer(store: JournalStore, producer: str = "p", *, first_sequence: int = 0) -> None:
    """Open a producer with the instance that all batches here have."""
    producers_of(store).open_producer(origin_of(producer), first_sequence=first_sequence)


def producers_of(store: JournalStore) -> ProducerStore:
    """Return the producers of the database that a journal is in."""
    return ProducerStore(store._engine)  # noqa: SLF001


def tokens_in_journal(database_url: str) -> int:
    """Return the input tokens of all segments."""
    bodies = [body for (body,) in ask(database_url, "SELECT body FROM journal")]
    segments = map(segment.decode, bodies)
    return sum(int(part.tokens[INPUT].sum()) for part in segments if INPUT in part.tokens)


def wait_for_lock(database_url: str) -> None:
    """Return when some connection waits for another one's lock."""
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not waiting_count(database_url):
        assert time.monotonic() < end, "nobody waits"
        time.sleep(LOOK_SECONDS)


def waiting_count(database_url: str) -> int:
    """Return how many connections wait for another one's lock."""
    question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return int(ask_one(database_url, question))


def counting_of(engine: Engine, *, shard: int = 0, fresh: Fresh | None = None) -> UsageStore:
    """Return a store that counts a shard."""
    store = UsageStore(engine, own_shard=lambda: shard, fresh=fresh)
    store.ensure_watermark(shard)
    return store


def record(journal: JournalStore, *counts: int, end_ms: int = BEGIN_MS, dimension: int = 0) -> None:
    """Write one segment with an event for each count."""
    batch = batch_of(*counts, end_ms=end_ms, dimension=dimension)
    commit_group(journal, [Submission(origin=origin_of(""), batch=batch)], now_ms=now_ms)


class Heard:
    """Adds up what a follower tells of."""

    def __init__(self) -> None:
        self.tokens: Counter[int] = Counter()

    def hear(self, delta: UsageDelta) -> None:
        """Take what was counted."""
        for number, counts in delta.tokens.items():
            self.tokens[int(number)] += int(counts.sum())


def follow(
    usage: UsageStore,
    *,
    heard: Heard | None = None,
    monotonic_seconds: Callable[[], float] = lambda: 0.0,
) -> Follower:
    """Return a follower that was not started."""
    return Follower(
        usage,
        now_ms=now_ms,
        monotonic_seconds=monotonic_seconds,
        on_counted=(heard or Heard()).hear,
    )


def end_connections(database_url: str) -> None:
    """End every other connection to the database, as a crash of Postgres does."""
    with administrator(database_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
