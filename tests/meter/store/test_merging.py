"""Sums that are merged into tables on a real Postgres: each row once, whoever else writes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
from sqlalchemy import Engine, event, text

from meter.domain.errors import StoreRefusal
from meter.domain.interval import INTERVAL_MS
from meter.store.journal import JournalStore
from meter.store.merging import send_rows
from meter.store.tables import usage
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.pooled import serve
from tests.meter.store.recording import (
    TOTAL,
    WAIT_SECONDS_MAX,
    administrator,
    ask,
    ask_one,
    counting_of,
    end_connections,
    follow,
    owner,
    record,
    wait_for_lock,
)

ROWS = "SELECT account_id, band, input, request_count FROM usage ORDER BY 1, 2"
# As whoever knows of no lock may write it, between a round's two looks at the table.
INTRUDED = f"""
INSERT INTO usage SELECT 'acme', to_timestamp({BEGIN_MS / 1000}), sku_id, 0, 1, 1,
    2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0 FROM skus
"""


def test_send__texts_of_any_length(engine: Engine) -> None:
    """Rows come as they were sent, however many, and however long each one's texts are."""
    names = ["", "a", "ab", "größer", "長い名前 with blanks ", "x" * 300]
    count = 5_000
    numbers = np.arange(count) - count // 2
    rows = {
        "name": np.array([it.encode() for it in names], np.bytes_)[numbers % len(names)],
        "interval_start": (BEGIN_MS + numbers * INTERVAL_MS).astype("datetime64[ms]"),
        "number": numbers,
        "other_name": np.array([b"", b"h100"])[numbers % 2],
    }
    question = "SELECT * FROM incoming_usage ORDER BY number"
    with engine.begin() as connection:
        send_rows(usage, connection, rows)
        found = connection.execute(text(question)).all()
    assert [(row.name, row.number, row.other_name) for row in found] == [
        (names[number % len(names)], number, "h100" if number % 2 else "")
        for number in numbers.tolist()
    ]
    assert [round(row.interval_start.timestamp() * 1000) for row in found] == (
        BEGIN_MS + numbers * INTERVAL_MS
    ).tolist()


def test_count__what_is_there_grows_and_what_is_not_is_put_down(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """One round adds to rows that there are, and puts down those that there are not."""
    record(journal, 5)
    follow(usage).count_once()
    record(journal, 7, 40_000)
    record(journal, 1, dimension=1)
    follow(usage).count_once()
    assert ask(database_url, ROWS) == [
        ("acme", 0, 12, 2),
        ("acme", 1, 40_000, 1),
        ("team", 0, 1, 1),
    ]


def test_count__row_that_another_writes_meanwhile(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """A row that neither grew nor was put down is not taken for counted: it is counted later."""
    record(journal, 1, dimension=1)
    follow(usage).count_once()
    record(journal, 5)
    is_written = Event()

    def intrude(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE usage") and not is_written.is_set():
            is_written.set()
            with administrator(database_url) as connection:
                connection.execute(INTRUDED)

    event.listen(engine, "after_cursor_execute", intrude)
    with pytest.raises(StoreRefusal, match="Of 1 rows 0 were merged into usage"):
        follow(usage).count_once()
    assert follow(usage).count_once() == 1
    assert ask(database_url, ROWS) == [("acme", 0, 7, 2), ("team", 0, 1, 1)]


def test_count__who_merges_is_waited_for(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Of two servers that put down the same row at once, one waits, and adds to it."""
    record(journal, 5)
    record(owner(engine, shard=1), 7)
    other = counting_of(engine, shard=1)
    is_held = Event()

    def hold(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO usage") and not is_held.is_set():
            is_held.set()
            wait_for_lock(database_url)

    event.listen(engine, "after_cursor_execute", hold)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(follow(usage).count_once)
        assert is_held.wait(WAIT_SECONDS_MAX)
        second = pool.submit(follow(other).count_once)
        assert [it.result(WAIT_SECONDS_MAX) for it in (first, second)] == [1, 1]
    assert ask(database_url, ROWS) == [("acme", 0, 12, 2)]


def test_count__dimensions_of_an_older_database(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """A new connection may be to a database in which a number stands for another account."""
    record(journal, 5)
    follow(usage).count_once()
    with administrator(database_url) as connection:
        connection.execute("UPDATE dimensions SET account_id = 'other'")
    end_connections(database_url)
    engine.dispose()
    record(owner(engine), 7, dimension=2)
    assert ask_one(database_url, "SELECT count(*) FROM dimensions") == 1
    follow(usage).count_once()
    assert ask(database_url, ROWS) == [("acme", 0, 5, 1), ("other", 0, 7, 1)]


def test_count__dimension_that_is_gone(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """What names a dimension that the database has not is not counted, and waits."""
    record(journal, 5)
    record(journal, 7, dimension=1)
    with administrator(database_url) as connection:
        connection.execute("DELETE FROM dimensions WHERE account_id = 'acme'")
    with pytest.raises(StoreRefusal, match="The journal names dimension 1"):
        follow(usage).count_once()
    assert ask_one(database_url, TOTAL) == 0


def test_count__pools_of_one_account_and_sku(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Pools are not in the key of usage: what two of them served is one row there."""
    serve(journal, 1, output=5)
    serve(journal, 3, output=7)
    follow(usage).count_once()
    assert ask(database_url, "SELECT output, request_count FROM usage") == [(12, 2)]
    assert ask(database_url, "SELECT pool, output_tokens FROM pool_usage") == [("h100", 5)]
