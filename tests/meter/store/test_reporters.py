"""Who reported for whom, on a real Postgres: noted by counting, asked by a close."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import Engine

from meter import segment
from meter.domain.times import to_ms
from meter.journal.commit import Submission, commit_group
from meter.producers import Standing
from meter.reporters import Reporter
from meter.store.journal import JournalStore
from meter.store.reporters import ReporterStore, select_accounts_of
from meter.store.usage import UsageStore
from tests.meter.store.recording import (
    administrator,
    ask,
    ask_one,
    batch_of,
    counting_of,
    follow,
    now_ms,
    open_producer,
    origin_of,
    owner,
)

# The month in which all here is reported, in UTC.
START_MS = to_ms(datetime(2027, 1, 1, tzinfo=UTC))
END_MS = to_ms(datetime(2027, 2, 1, tzinfo=UTC))
NOTED = (
    "SELECT DISTINCT account_id, month, key_account_id, producer"
    " FROM producer_reports, unnest(account_ids) AS account_id ORDER BY 1, 2, 4"
)
COUNT = f"SELECT count(*) FROM ({NOTED}) AS noted"
OF_P = Reporter("acme", "p")


def report(
    journal: JournalStore, producer: str, *, dimension: int = 0, end_ms: int = START_MS
) -> None:
    """Record an event that a producer of acme's keys reported."""
    batch = batch_of(5, dimension=dimension, end_ms=end_ms)
    commit_group(journal, [Submission(origin=origin_of(producer), batch=batch)], now_ms=now_ms)


def execute(database_url: str, statement: str) -> None:
    """Change the database as the superuser."""
    with administrator(database_url) as connection:
        connection.execute(statement.encode())


def seen(database_url: str, time_ms: int) -> None:
    """Let all producers have been heard last at a time."""
    execute(database_url, f"UPDATE producers SET seen_time = to_timestamp({time_ms / 1000})")


def reporters_of(usage: UsageStore) -> ReporterStore:
    """Return what knows of the reports that a store counts."""
    return ReporterStore(usage._engine)  # noqa: SLF001


def test_count__notes_who_reported_for_whom(
    journal: JournalStore, usage: UsageStore, database_url: str
) -> None:
    """Each account of each producer stands there once a month; calls without a producer do not."""
    for dimension, end_ms in ((0, START_MS), (0, START_MS), (1, START_MS), (0, END_MS)):
        report(journal, "p", dimension=dimension, end_ms=end_ms)
    report(journal, "q", end_ms=END_MS - 1)
    report(journal, "", dimension=2)
    follow(usage).count_once()
    first, second = date(2027, 1, 1), date(2027, 2, 1)
    assert ask(database_url, NOTED) == [
        ("acme", first, "acme", "p"),
        ("acme", first, "acme", "q"),
        ("acme", second, "acme", "p"),
        ("team", first, "acme", "p"),
    ]


def test_count__what_is_lost_is_not_known(
    engine: Engine, journal: JournalStore, usage: UsageStore, database_url: str
) -> None:
    """What a broken transaction noted, or an older database lacks, is noted with the next batch."""
    report(journal, "q")
    follow(usage).count_once()
    report(journal, "p")
    with pytest.raises(KeyError), usage.counting() as step:
        bodies = step.read(events_max=10)
        assert len(bodies) == 1
        # As counting does, but it dies before its commit.
        step.note_reports([segment.decode(body) for body in bodies])
        raise KeyError
    follow(usage).count_once()
    assert ask_one(database_url, COUNT) == 2
    execute(database_url, "DELETE FROM producer_reports")
    # Whoever restores a database ends all connections to it.
    engine.dispose()
    report(journal, "p")
    follow(usage).count_once()
    assert ask_one(database_url, COUNT) == 1


def test_count__what_is_written_is_not_written_again(
    engine: Engine, journal: JournalStore, usage: UsageStore, database_url: str
) -> None:
    """A server that knows nothing yet asks what is written of a producer, and adds what is not."""
    report(journal, "p")
    report(journal, "p", end_ms=END_MS)
    follow(usage).count_once()
    # Whoever starts anew counts as this one does.
    again = counting_of(engine, shard=0)
    for dimension in (0, 0, 1):
        report(journal, "p", dimension=dimension)
        follow(again).count_once()
    rows = "SELECT account_ids, month FROM producer_reports ORDER BY row_number"
    first, second = date(2027, 1, 1), date(2027, 2, 1)
    assert sorted(ask(database_url, rows)) == [
        (["acme"], first),
        (["acme"], second),
        (["team"], first),
    ]


def test_accounts_of__more_dimensions_than_a_statement_has_parameters(
    engine: Engine, journal: JournalStore
) -> None:
    """A look at the journal that brings 100,000 dimensions is counted: once it never was."""
    report(journal, "p")
    with engine.connect() as connection:
        found = select_accounts_of(connection, range(100_000))
    assert "acme" in found.values()


def test_count__by_two_servers_at_once(engine: Engine, database_url: str) -> None:
    """Two servers that count the same producers' reports note all of them, and wait for nobody."""
    journals = [owner(engine, shard=shard) for shard in range(2)]
    for journal in journals:
        for number in range(20):
            report(journal, f"p{number}", dimension=number % 3)
    counters = [counting_of(engine, shard=shard) for shard in range(2)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda usage: follow(usage).count_once(), counters))
    assert ask_one(database_url, COUNT) == 20


@pytest.mark.parametrize(
    "case",
    [
        ("", True),
        (f"seen_time = to_timestamp({END_MS // 1000})", False),
        (f"seen_time = to_timestamp({END_MS // 1000}) - interval '1 ms'", True),
        (f"seen_time = to_timestamp({END_MS // 1000}), announced_sequence = 9, sequence = 8", True),
        (
            f"seen_time = to_timestamp({END_MS // 1000}), announced_sequence = 9, sequence = 9",
            False,
        ),
        ("edge = true", False),
        (f"state = {Standing.RETIRED}", False),
        (f"state = {Standing.REGISTERED}", False),
        ("seen_time = NULL", True),
    ],
)
def test_waited_for__who_may_still_have_usage(
    journal: JournalStore, usage: UsageStore, database_url: str, case: tuple[str, bool]
) -> None:
    """Waited for is who is active, not at the edge, and was not heard since, or has a backlog."""
    change, is_waited_for = case
    open_producer(journal)
    report(journal, "p")
    follow(usage).count_once()
    seen(database_url, END_MS - 1)
    if change:
        execute(database_url, f"UPDATE producers SET {change}")
    found = reporters_of(usage).waited_for(["acme"], start_ms=START_MS, end_ms=END_MS)
    assert found == ({"acme": [OF_P]} if is_waited_for else {})


def test_waited_for__by_account_and_month(
    engine: Engine, journal: JournalStore, usage: UsageStore, database_url: str
) -> None:
    """Each account waits for those that reported for it, in a month that the span touches."""
    for name in ("p", "q"):
        open_producer(journal, name)
    report(journal, "p")
    report(journal, "q", dimension=1)
    report(journal, "p", dimension=1)
    follow(usage).count_once()
    seen(database_url, START_MS)
    reporters = ReporterStore(engine)
    accounts = ["acme", "team", "other"]
    of_q = Reporter("acme", "q")
    wanted = {"acme": [OF_P], "team": [OF_P, of_q]}
    assert reporters.waited_for(accounts, start_ms=START_MS, end_ms=END_MS) == wanted
    # A month of Kiritimati begins 14 hours before that of UTC.
    early = {"start_ms": START_MS - 14 * 3_600_000, "end_ms": END_MS - 14 * 3_600_000}
    assert reporters.waited_for(accounts, **early) == wanted
    assert reporters.waited_for(accounts, start_ms=END_MS, end_ms=2 * END_MS - START_MS) == {}
    # The span is half-open: its end is of the next month.
    seen(database_url, START_MS - 1)
    before = {"start_ms": START_MS - 86_400_000, "end_ms": START_MS + 1}
    assert reporters.waited_for(["acme"], **before) == {"acme": [OF_P]}
    before["end_ms"] = START_MS
    assert reporters.waited_for(["acme"], **before) == {}
    assert reporters.waited_for([], start_ms=START_MS, end_ms=END_MS) == {}


def test_waited_for__before_it_was_noted(
    journal: JournalStore, usage: UsageStore, database_url: str
) -> None:
    """Of a month that had begun at an upgrade, whoever was heard in it may have reported."""
    execute(database_url, "INSERT INTO account_parents VALUES ('team', now(), 'acme')")
    open_producer(journal)
    seen(database_url, START_MS)
    reporters = reporters_of(usage)
    accounts = ["acme", "team", "other"]
    span = {"start_ms": START_MS, "end_ms": END_MS}
    assert reporters.waited_for(accounts, **span) == {}
    execute(database_url, f"UPDATE reports_known SET since = to_timestamp({START_MS // 1000 + 1})")
    # Acme's key reports for acme and for what is below it.
    assert reporters.waited_for(accounts, **span) == {"acme": [OF_P], "team": [OF_P]}
    later = {"start_ms": START_MS + 1_000, "end_ms": END_MS}
    assert reporters.waited_for(accounts, **later) == {}
    seen(database_url, START_MS - 1)
    assert reporters.waited_for(accounts, **span) == {}
    seen(database_url, END_MS)
    assert reporters.waited_for(accounts, **span) == {}
    execute(
        database_url, "UPDATE producers SET account_id = '', seen_time = seen_time - interval '1 s'"
    )
    everybody = {it: [Reporter("", "p")] for it in accounts}
    assert reporters.waited_for(accounts, **span) == everybody
