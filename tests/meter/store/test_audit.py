"""The audit on a real Postgres: clean on what was counted, and each damage named by its place."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from meter import segment
from meter.counting.audit import Window
from meter.counting.auditor import Audit, Auditor
from meter.counting.findings import Check
from meter.domain.cell import cell_at
from meter.domain.event import Dimensions, DimensionTable
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_iso
from meter.journal.commit import Submission, commit_group
from meter.store.audit import AuditStore
from meter.store.cuts import CutStore
from meter.store.folding import FoldStore
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.recording import (
    administrator,
    ask_one,
    batch_of,
    commit,
    counting_of,
    follow,
    now_ms,
    numbered,
    open_producer,
    origin_of,
    owner,
    record,
)

DAY_MS = 24 * 3600 * 1000
ID = bytes(range(1, 17))


def audit(engine: Engine, *, since_ms: int | None = None, until_ms: int | None = None) -> Audit:
    """Audit all, or a span."""
    return Auditor(AuditStore(engine)).audit(since_ms=since_ms, until_ms=until_ms)


def says(found: Audit, check: Check) -> list[str]:
    """Return what an audit says of one check."""
    return [it.says for it in found.findings if it.check is check]


def count_all(usage: UsageStore) -> None:
    """Add all that was recorded to usage."""
    while follow(usage).count_once():
        pass


@pytest.fixture
def filled(journal: JournalStore, usage: UsageStore, engine: Engine, database_url: str) -> str:
    """A database with three days of events under three cuts, all counted: its URL."""
    open_producer(journal)
    commit(journal, numbered(1, 10, 20), numbered(2, 30))
    record(journal, 5, dimension=1, end_ms=BEGIN_MS + INTERVAL_MS)
    count_all(usage)
    CutStore(engine).take_cut(now_ms=BEGIN_MS)
    record(journal, 7, 8, end_ms=BEGIN_MS + DAY_MS)
    count_all(usage)
    CutStore(engine).take_cut(now_ms=BEGIN_MS)
    late = [
        PlainEvent(dimension=2, end_ms=BEGIN_MS + day * DAY_MS, tokens={1: 1, 7: 4})
        for day in range(3)
    ]
    table = DimensionTable()
    for account in ("acme", "team", "other"):
        table.intern(Dimensions(account, "m", "m", "high", 1, "", ""))
    submission = Submission(origin=origin_of(""), batch=to_batch(late, table=table))
    commit_group(journal, [submission], now_ms=now_ms)
    count_all(usage)
    return database_url


def apart(place: str, name: str, *numbers: int, segments: str = "") -> str:
    """Return what is said of a sum; `numbers` are the journal's and usage's."""
    journal, usage = numbers
    named = f"; segments {segments}" if segments else ""
    return (
        f"{place}, m, high, {name}: {journal} by the journal, {usage} by usage"
        f" (prompts <32k, delivered, cut 1{named})"
    )


def damage(database_url: str, *statements: str) -> None:
    """Do what only a superuser can, with all constraints off."""
    with administrator(database_url) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement)


def test_audit__clean(filled: str, engine: Engine) -> None:
    """What was counted under several cuts, with late events over days, adds up; nothing is told."""
    del filled
    found = audit(engine)
    assert (found.findings, found.counts) == ([], {})
    assert (found.event_count, found.segment_count, found.batch_count) == (9, 4, 2)
    assert found.journal == found.usage
    assert (found.journal["input"], found.journal["output"]) == (83, 12)


def test_audit__numbers_over_days(
    filled: str, journal: JournalStore, usage: UsageStore, engine: Engine
) -> None:
    """A batch whose events lie days apart is read for each of them, and its number taken once."""
    del filled
    table = DimensionTable()
    table.intern(Dimensions("acme", "m", "m", "high", 1, "", ""))
    days = [
        PlainEvent(dimension=0, end_ms=BEGIN_MS + day * DAY_MS, tokens={1: 1}) for day in range(3)
    ]
    origin = origin_of("p", sequence=3, digest=b"d" * 8)
    commit(journal, Submission(origin=origin, batch=to_batch(days, table=table)))
    count_all(usage)
    found = audit(engine)
    assert (found.findings, found.batch_count, found.event_count) == ([], 3, 12)


def test_snapshot__what_came_after_the_survey(
    filled: str, journal: JournalStore, usage: UsageStore, engine: Engine
) -> None:
    """What was recorded and counted since the survey is read with the rest of its time."""
    del filled
    store = AuditStore(engine)
    survey = store.survey(since_ms=None, until_ms=None)
    record(journal, 77)
    count_all(usage)
    window = Window(start_ms=BEGIN_MS, end_ms=BEGIN_MS + INTERVAL_MS)
    with store.snapshot(survey) as snapshot:
        assert [it.position for it in snapshot.segments(window)] == [1, 4, 5]


def test_audit__nothing_recorded(engine: Engine) -> None:
    """An empty database is audited too."""
    found = audit(engine)
    assert (found.findings, found.event_count) == ([], 0)


def test_audit__of_some_days(filled: str, engine: Engine) -> None:
    """A span holds the events that ended in it, also those of segments that begin before it."""
    del filled
    middle = BEGIN_MS // DAY_MS * DAY_MS + DAY_MS
    found = audit(engine, since_ms=middle, until_ms=middle + DAY_MS)
    assert (found.findings, found.event_count) == ([], 3)


def test_audit__what_is_not_counted_yet(
    filled: str, journal: JournalStore, usage: UsageStore, engine: Engine
) -> None:
    """Segments above the watermark are no difference; other shards have their own."""
    del filled
    record(journal, 999)
    other = owner(engine, shard=1)
    record(other, 500)
    assert audit(engine).findings == []
    count_all(counting_of(engine, shard=1))
    count_all(usage)
    found = audit(engine)
    assert (found.findings, found.journal["input"]) == ([], 83 + 999 + 500)


USAGE_OF_TEAM = "WHERE account_id = 'team'"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            f"UPDATE usage SET input = input + 1 {USAGE_OF_TEAM}",
            apart("2027-01-15T08:15:00Z team", "input", 5, 6, segments="0:2"),
        ),
        (
            f"DELETE FROM usage {USAGE_OF_TEAM}",
            apart("2027-01-15T08:15:00Z team", "input", 5, 0, segments="0:2"),
        ),
        (
            f"UPDATE usage SET account_id = 'other' {USAGE_OF_TEAM}",
            apart("2027-01-15T08:15:00Z other", "input", 0, 5),
        ),
        (
            "UPDATE usage SET cut_id = 2 WHERE cut_id = 1 AND account_id = 'acme'",
            apart("2027-01-15T08:00:00Z acme", "input", 60, 0, segments="0:1"),
        ),
        (
            f"UPDATE usage SET interval_start = '2025-12-11T08:15Z' {USAGE_OF_TEAM}",
            apart("2025-12-11T08:15:00Z team", "input", 0, 5),
        ),
        (
            f"UPDATE usage SET request_count = 3 {USAGE_OF_TEAM}",
            apart("2027-01-15T08:15:00Z team", "request_count", 1, 3, segments="0:2"),
        ),
        (
            "UPDATE usage SET finish_class = 9, band = 44 WHERE account_id = 'team'",
            apart("2027-01-15T08:15:00Z team", "input", 5, 0, segments="0:2"),
        ),
        (
            "DELETE FROM dimensions WHERE account_id = 'team'",
            "the journal names dimension TEAM, which does not exist",
        ),
    ],
)
def test_audit__damaged_usage(filled: str, engine: Engine, statement: str, said: str) -> None:
    """Each change of usage is named by interval, account, model, tier, sum and both numbers."""
    said = said.replace("TEAM", str(dimension_of(filled, "team")))
    damage(filled, statement)
    found = audit(engine)
    assert says(found, Check.SUMS)[0] == said
    assert found.findings[0].is_fault


def dimension_of(database_url: str, account: str) -> int:
    """Return the database's id of the one dimension of an account."""
    where = f"WHERE account_id = '{account}'"
    return int(ask_one(database_url, f"SELECT dimension_id FROM dimensions {where}"))


def change_body(filled: str, change: Callable[[bytearray], None]) -> None:
    """Change the bytes of the second segment."""
    body = bytearray(ask_one(filled, "SELECT body FROM journal WHERE position = 2"))
    change(body)
    damage(filled, f"UPDATE journal SET body = '\\x{body.hex()}' WHERE position = 2")


def test_audit__damaged_total(filled: str, engine: Engine) -> None:
    """What was added up for a month and is not its usage is named, by how much and of what."""
    folding = FoldStore(engine)
    while folding.fold_step(now_ms=BEGIN_MS + 9 * DAY_MS):
        pass
    assert audit(engine).findings == []
    damage(filled, "UPDATE period_totals SET input = input - 3 WHERE account_id = 'team'")
    found = audit(engine)
    start = to_iso(cell_at(BEGIN_MS).start_ms)
    said = f"from {start} team, m, high: usage is not its total (input +3)"
    assert says(found, Check.TOTALS) == [said]
    assert found.counts == {Check.TOTALS: 1}
    late_ms = BEGIN_MS // DAY_MS * DAY_MS + 60 * DAY_MS
    assert says(audit(engine, since_ms=late_ms), Check.TOTALS) == []
    damage(filled, "DELETE FROM usage WHERE account_id = 'other'")
    assert len(says(audit(engine), Check.TOTALS)) == 2


def test_audit__changed_body(filled: str, engine: Engine) -> None:
    """A count in a segment that was changed differs from usage, and the segment is named."""
    team = dimension_of(filled, "team")
    part = segment.encode(
        [(origin_of(""), batch_of(6, dimension=1, end_ms=BEGIN_MS + INTERVAL_MS))],
        dimension_ids=lambda batch: batch.dimension * 0 + team,
    )
    damage(filled, f"UPDATE journal SET body = '\\x{part.hex()}' WHERE position = 2")
    assert says(audit(engine), Check.SUMS) == [
        apart("2027-01-15T08:15:00Z team", "input", 6, 5, segments="0:2")
    ]


def _cut_short(body: bytearray) -> None:
    del body[len(body) // 2 :]


def _other_version(body: bytearray) -> None:
    body[0] = 200


def _no_header(body: bytearray) -> None:
    body[9:12] = b"\xff\xff\xff"


@pytest.mark.parametrize("change", [_cut_short, _other_version, _no_header, bytearray.clear])
def test_audit__unreadable_body(
    filled: str, engine: Engine, change: Callable[[bytearray], None]
) -> None:
    """A segment that cannot be read is named, and all others are audited all the same."""
    change_body(filled, change)
    found = audit(engine)
    (said,) = says(found, Check.SEGMENTS)
    assert said.startswith("segment 2 of shard 0 cannot be read: ")
    assert found.event_count == 8


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE journal SET event_count = 4 WHERE position = 2",
            "segment 2 of shard 0 says 4 events and holds 1",
        ),
        (
            "UPDATE journal SET first_end_time = '2027-01-15T07:15Z' WHERE position = 2",
            "segment 2 of shard 0 holds events of another span of time than it says",
        ),
        ("DELETE FROM journal WHERE position = 2", "shard 0 lacks segment 2 of its journal"),
        ("DELETE FROM journal WHERE position > 2", "shard 0 lacks segments 3 to 4 of its journal"),
        ("DELETE FROM journal", "shard 0 lacks segments 1 to 4 of its journal"),
        (
            "UPDATE shards SET position = 3",
            "segment 4 of shard 0 lies above the shard's newest position",
        ),
    ],
)
def test_audit__damaged_journal(filled: str, engine: Engine, statement: str, said: str) -> None:
    """A segment that is gone, that is too much, or is not what its row says, is named."""
    damage(filled, statement)
    assert says(audit(engine), Check.SEGMENTS)[0] == said


def test_audit__deleted_segment_differs(filled: str, engine: Engine) -> None:
    """What a deleted segment held is in usage and no more in the journal."""
    damage(filled, "DELETE FROM journal WHERE position = 2")
    assert says(audit(engine), Check.SUMS)[0] == (apart("2027-01-15T08:15:00Z team", "input", 0, 5))


_DOUBLE = """
INSERT INTO journal
SELECT shard, 5, epoch, event_count, first_end_time, last_end_time, commit_time, body
FROM journal WHERE position = 1
"""


@pytest.mark.parametrize("is_counted", [False, True])
def test_audit__doubled_segment(
    filled: str, usage: UsageStore, engine: Engine, *, is_counted: bool
) -> None:
    """A segment that is there twice has its batches' numbers twice, counted or not."""
    damage(filled, _DOUBLE, "UPDATE shards SET position = 5")
    if is_counted:
        count_all(usage)
    else:
        damage(filled, "UPDATE counting SET position = 5, totalled_position = 5")
    found = audit(engine)
    assert says(found, Check.NUMBERS) == [
        f"batch {number} of producer p (acme) is recorded again in segment 5 of shard 0"
        for number in (1, 2)
    ]
    assert bool(says(found, Check.SUMS)) is not is_counted


def with_id(producer: str, *, at: int = 0, account: int = 0) -> Any:  # noqa: ANN401
    """Return a batch with one event that has the id."""
    table = DimensionTable()
    for name in ("acme", "team", "other"):
        table.intern(Dimensions(name, "m", "m", "high", 1, "", ""))
    plain = PlainEvent(dimension=account, end_ms=BEGIN_MS + at, tokens={1: 1}, event_id=ID)
    origin = origin_of(producer, sequence=1, digest=producer.encode().ljust(8))
    return Submission(origin=origin, batch=to_batch([plain], table=table))


def test_audit__id_of_two_producers(
    journal: JournalStore, usage: UsageStore, engine: Engine
) -> None:
    """An event that two producers reported is named with both, their batches and the times."""
    for producer in ("gateway", "engine"):
        open_producer(journal, producer)
    commit(journal, with_id("gateway"))
    commit(journal, with_id("engine", at=90))
    count_all(usage)
    found = audit(engine)
    (said,) = says(found, Check.EVENT_IDS)
    assert said == (
        f"event {ID.hex()} of acme is counted 2 times: producer gateway (acme) batch 1 at"
        " 2027-01-15T08:00:00Z, producer engine (acme) batch 1 at 2027-01-15T08:00:00.090Z"
    )
    assert (found.findings[0].is_fault, found.counts) == (True, {Check.EVENT_IDS: 1})


def test_audit__numbers_released_from_quarantine(
    filled: str, journal: JournalStore, usage: UsageStore, engine: Engine
) -> None:
    """An event that was released is recorded under its batch's number, and that is no repeat."""
    released = Submission(origin=origin_of("p", sequence=2), batch=batch_of(3))
    acme = dimension_of(filled, "acme")
    part = segment.gather(
        [(released.origin, released.batch)],
        dimension_ids=lambda batch: batch.dimension * 0 + acme,
    )
    with journal.transaction() as transaction:
        transaction.append(part)
    count_all(usage)
    assert says(audit(engine), Check.NUMBERS) == [
        "batch 2 of producer p (acme) is recorded again in segment 5 of shard 0"
    ]
    damage(
        filled,
        "INSERT INTO api_keys VALUES ('key_1', 'acme', 'p', '\\x01', now())",
        "INSERT INTO quarantine (outcome, state, received_time, key_id, producer, sequence,"
        " event_index, payload) VALUES (14, 2, now(), 'key_1', 'p', 2, 0, '')",
    )
    assert audit(engine).findings == []
