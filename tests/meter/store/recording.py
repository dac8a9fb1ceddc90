"""What the store's tests record: accounts, batches of plain events, and what is found on disk."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg

from meter.domain.event import (
    Claims,
    Dimensions,
    DimensionTable,
    EventBatch,
    Origin,
    SetAside,
)
from meter.domain.outcome import Outcome
from meter.journal.commit import Submission
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch

INSTANCE: Final = b"i" * 16
INPUT: Final = 1
ACCOUNTS: Final = ("acme", "team", "other")
WAIT_SECONDS_MAX: Final = 30.0


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
