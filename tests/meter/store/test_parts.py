"""The journal's parts on a real Postgres: made ahead, archived, dropped, and read from files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from meter.archive_file import ArchiveFolder
from meter.corrections import ById, Search
from meter.counting.auditor import Audit, Auditor
from meter.domain.errors import MeterError, NotFound, StoreRefusal, Unavailable
from meter.domain.event import Dimensions, DimensionTable
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import Mode, TokenClass
from meter.evidence import EventEvidence, EvidenceQuery
from meter.journal.commit import Submission, commit_group
from meter.store.archived_bodies import ArchivedBodies
from meter.store.audit import AuditStore
from meter.store.corrections import CorrectionStore
from meter.store.cuts import CutStore
from meter.store.evidence import EvidenceStore
from meter.store.journal import JournalStore
from meter.store.parts import ArchiveStore, PartStore
from meter.store.usage import UsageStore
from meter.upkeep import Upkeep
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.recording import (
    administrator,
    ask,
    ask_one,
    commit,
    follow,
    now_ms,
    numbered,
    open_producer,
    origin_of,
)

FIRST = "journal_first"
LATER = "2027-06-10T12:00Z"
LATER_MS = 1_812_700_800_000
ID = bytes(range(1, 17))
PARTS = "SELECT part FROM journal_parts ORDER BY end_time"


def leap(database_url: str, time: str) -> None:
    """Put the installation on a driven clock that stands at a time."""
    with administrator(database_url) as connection:
        connection.execute("DELETE FROM installation")
        connection.execute("INSERT INTO installation VALUES (true, true, %s)", [time])


def execute(database_url: str, statement: str) -> None:
    """Do what only a superuser can."""
    with administrator(database_url) as connection:
        connection.execute(statement.encode())


@pytest.fixture
def filled(journal: JournalStore, usage: UsageStore, engine: Engine, database_url: str) -> str:
    """A database with some segments under a cut, all counted, half a year later: its URL."""
    open_producer(journal)
    for sequence in range(1, 6):
        commit(journal, numbered(sequence, sequence, 10 * sequence))
    table = DimensionTable()
    table.intern(Dimensions("acme", "m", "m", "high", 1, "", ""))
    event = PlainEvent(
        dimension=0, end_ms=BEGIN_MS + INTERVAL_MS, tokens={1: 7}, event_id=ID, request_id="r-1"
    )
    submission = Submission(origin=origin_of(""), batch=to_batch([event], table=table))
    commit_group(journal, [submission], now_ms=now_ms)
    while follow(usage).count_once():
        pass
    CutStore(engine).take_cut(now_ms=BEGIN_MS)
    leap(database_url, LATER)
    return database_url


def archived(engine: Engine, folder: Path) -> str:
    """Write the first part into files and drop it; returns why it stays."""
    archive = ArchiveStore(engine, ArchiveFolder(folder))
    while archive.archive_step(FIRST) is not None:
        pass
    return PartStore(engine).drop(FIRST)


def audit(engine: Engine, folder: Path) -> Audit:
    """Audit all, with the files."""
    store = AuditStore(engine, archive=ArchivedBodies(folder))
    return Auditor(store).audit(since_ms=None, until_ms=None)


def query() -> EvidenceQuery:
    """Return what asks for all that acme was used, class INPUT."""
    return EvidenceQuery(
        places={"acme": [BEGIN_MS, BEGIN_MS + INTERVAL_MS]},
        model="m",
        served_model="",
        tier="high",
        mode=Mode.ONLINE,
        token_class=TokenClass.INPUT,
        bands=None,
        cut_id=1,
    )


def events(engine: Engine, folder: Path) -> list[EventEvidence]:
    """Return the events behind all of it, with the files."""
    store = EvidenceStore(engine, archive=ArchivedBodies(folder))
    return list(store.find_events(query()))


def test_make_parts__are_there_before_their_month(engine: Engine, database_url: str) -> None:
    """This month and three more have a part; a second call makes none."""
    leap(database_url, LATER)
    parts = PartStore(engine)
    made = parts.make_parts()
    assert parts.make_parts() == 0
    found = [part for (part,) in ask(database_url, PARTS)]
    assert found[-made:] == [f"journal_2027_{month:02}" for month in (6, 7, 8, 9)][-made:]
    assert found[-1] == "journal_2027_09"


def test_make_parts__take_what_came_before_them(
    journal: JournalStore, engine: Engine, database_url: str
) -> None:
    """What was recorded in a month without a part moves into it, and counts once."""
    leap(database_url, "2030-02-28T23:59Z")
    open_producer(journal)
    commit(journal, numbered(1, 10, 20))
    assert ask_one(database_url, "SELECT count(*) FROM journal_rest") == 1
    PartStore(engine).make_parts()
    places = ask(database_url, "SELECT tableoid::regclass::text, position FROM journal")
    assert places == [("journal_2030_02", 1)]
    commit(journal, numbered(2, 30))
    assert ask_one(database_url, "SELECT count(*) FROM journal_2030_02") == 2


def test_drop__each_reason_to_stay(filled: str, engine: Engine, tmp_path: Path) -> None:
    """A part stays while it is young, not counted, not archived, or its month is not closed."""
    parts = PartStore(engine)
    leap(filled, "2027-01-30T00:00Z")
    execute(filled, "UPDATE journal_parts SET end_time = '2027-01-01' WHERE start_time IS NULL")
    assert parts.drop(FIRST) == "young"
    assert parts.drop("journal") == parts.drop("accounts") == "young"
    leap(filled, LATER)
    execute(filled, "UPDATE counting SET position = 3, totalled_position = 3")
    assert archived(engine, tmp_path) == "uncounted"
    execute(filled, "UPDATE counting SET position = 6, totalled_position = 6")
    execute(
        filled,
        "INSERT INTO billing_periods (contract, period_start, period_end, month, version_start,"
        " zone, tzdata, open_time, state) VALUES ('c', '2027-01-01Z', '2027-02-01Z', '2027-01-01',"
        " '2027-01-01Z', 'UTC', '', now(), 'open')",
    )
    assert parts.drop(FIRST) == "open month"
    execute(filled, "DELETE FROM billing_periods")
    execute(
        filled,
        "INSERT INTO contracts (contract, start_time, revision, toml, set_time, set_by,"
        " terms_version) VALUES ('c', '2027-01-01Z', 1, '', now(), '', 1)",
    )
    assert parts.drop(FIRST) == "open month"
    execute(filled, "DELETE FROM contracts")
    execute(filled, "UPDATE journal_archives SET segment_count = segment_count - 1")
    assert parts.drop(FIRST) == "not archived"
    execute(filled, "UPDATE journal_archives SET segment_count = segment_count + 1")
    assert parts.drop(FIRST) == ""
    assert ask_one(filled, "SELECT count(*) FROM journal") == 0


def test_drop__a_segment_in_no_file(filled: str, engine: Engine, tmp_path: Path) -> None:
    """A segment that came after the files were written keeps its part, until it has a file."""
    archive = ArchiveStore(engine, ArchiveFolder(tmp_path))
    while archive.archive_step(FIRST) is not None:
        pass
    execute(
        filled,
        "INSERT INTO journal SELECT 0, 7, epoch, event_count, first_end_time, last_end_time,"
        " commit_time, body FROM journal WHERE position = 6",
    )
    execute(filled, "UPDATE counting SET position = 7, totalled_position = 7")
    parts = PartStore(engine)
    assert parts.drop(FIRST) == "not archived"
    assert archived(engine, tmp_path) == ""
    assert ask_one(filled, "SELECT count(*) FROM journal_archives") == 2


def test_archive__is_read_as_the_journal(filled: str, engine: Engine, tmp_path: Path) -> None:
    """Audit, evidence and corrections find in files what they found in the database."""
    before, behind = audit(engine, tmp_path), events(engine, tmp_path)
    assert before.findings == []
    assert len(behind) == 11
    assert archived(engine, tmp_path) == ""
    assert ask_one(filled, "SELECT count(*) FROM journal") == 0
    after = audit(engine, tmp_path)
    assert (after.findings, after.journal, after.segment_count) == ([], before.journal, 6)
    assert events(engine, tmp_path) == behind
    store = EvidenceStore(engine, archive=ArchivedBodies(tmp_path))
    assert sum(it.token_count for it in store.find_segments(query())) == 172
    corrections = CorrectionStore(engine, own_shard=lambda: 0, archive=ArchivedBodies(tmp_path))
    search = Search(event=ById(event_id=ID), account_id="acme", start_ms=BEGIN_MS, end_ms=None)
    assert corrections.find_event(search).event.tokens == {1: 7}
    late = Search(event=ById(event_id=ID), account_id="acme", start_ms=LATER_MS, end_ms=None)
    with pytest.raises(NotFound):
        corrections.find_event(late)


def test_archive__without_its_folder(filled: str, engine: Engine, tmp_path: Path) -> None:
    """Whoever reads without the folder is told which setting is missing, or what is not there."""
    assert archived(engine, tmp_path) == ""
    with pytest.raises(Unavailable, match=f"{FIRST}/0-.*TOKENWORKS_ARCHIVE_FOLDER"):
        list(EvidenceStore(engine).find_events(query()))
    with pytest.raises(Unavailable, match="is it mounted"):
        events(engine, tmp_path / "elsewhere")
    (path,) = (tmp_path / FIRST).iterdir()
    path.rename(tmp_path / "moved")
    with pytest.raises(Unavailable, match="cannot be read"):
        events(engine, tmp_path)
    path.write_bytes(b"no Parquet at all")
    with pytest.raises(StoreRefusal, match="no file of the journal"):
        events(engine, tmp_path)
    assert ask_one(filled, "SELECT count(*) FROM archived_segments") == 6


def test_archive__of_other_bytes(filled: str, engine: Engine, tmp_path: Path) -> None:
    """A file whose bodies are others than those recorded is not believed."""
    folder = ArchiveFolder(tmp_path)
    assert archived(engine, tmp_path) == ""
    name = ask_one(filled, "SELECT file FROM journal_archives")
    rows = list(folder.read(name))
    folder.write(name, [rows[1], rows[0], *rows[2:]])
    with pytest.raises(StoreRefusal, match="not what was written"):
        events(engine, tmp_path)


def test_archive__that_reads_back_other_bytes(
    filled: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives back what it was not given keeps the part in the database."""
    read = ArchiveFolder.read
    monkeypatch.setattr(ArchiveFolder, "read", lambda *it: list(read(*it))[::-1])
    with pytest.raises(StoreRefusal, match="does not read back"):
        archived(engine, tmp_path)
    assert PartStore(engine).drop(FIRST) == "not archived"
    assert ask_one(filled, "SELECT count(*) FROM journal") == 6


# What the disk may refuse, step by step.
FAULTS: list[tuple[Any, str]] = [
    (Path, "mkdir"),
    (Path, "unlink"),
    (Path, "open"),
    (os, "fsync"),
    (Path, "replace"),
    (os, "open"),
    (ArchiveFolder, "read"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_archive__ended_at_each_step(
    filled: str,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: tuple[Any, str],
) -> None:
    """Wherever writing ends, nothing is registered or dropped, and the next try finds all of it."""
    before = audit(engine, tmp_path).journal

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "the disk says no")

    (tmp_path / FIRST).mkdir()
    (tmp_path / FIRST / "0-000000000001.parquet.1.part").write_bytes(b"of one that was killed")
    with monkeypatch.context() as broken:
        broken.setattr(*fault, refuse)
        with pytest.raises((MeterError, OSError)):
            archived(engine, tmp_path)
    assert ask_one(filled, "SELECT count(*) FROM archived_segments") == 0
    assert PartStore(engine).drop(FIRST) == "not archived"
    assert archived(engine, tmp_path) == ""
    assert audit(engine, tmp_path).journal == before
    assert [it.name for it in (tmp_path / FIRST).iterdir()] == ["0-000000000001.parquet"]


def test_archive__one_server_at_a_time(filled: str, engine: Engine, tmp_path: Path) -> None:
    """While one writes, another one leaves it alone."""
    folder = ArchiveFolder(tmp_path)
    found: list[object] = []

    class Nested(ArchiveFolder):
        def write(self, *words: Any) -> Any:  # noqa: ANN401
            found.append(ArchiveStore(engine, folder).archive_step(FIRST))
            return super().write(*words)

    assert ArchiveStore(engine, Nested(tmp_path)).archive_step(FIRST) is not None
    assert found == [None]
    assert ask_one(filled, "SELECT count(*) FROM archived_segments") == 6


def test_upkeep__keeps_what_it_is_told(filled: str, engine: Engine, tmp_path: Path) -> None:
    """Without days or files nothing goes; with both, what is old enough does, and no more."""
    archive = ArchiveStore(engine, ArchiveFolder(tmp_path))

    def kept(days: int | None, step: Callable[[str], object | None] | None) -> Upkeep:
        return Upkeep(PartStore(engine), archive_step=step, kept_days=days, now_ms=lambda: LATER_MS)

    assert kept(None, archive.archive_step).due() == ()
    assert kept(40, None).due() == ()
    assert kept(200, archive.archive_step).due() == []
    upkeep = kept(40, archive.archive_step)
    upkeep.make_parts()
    assert FIRST in upkeep.due()
    for part in upkeep.due():
        while upkeep.step(part):
            pass
    assert upkeep.due() == []
    assert ask_one(filled, "SELECT count(*) FROM journal_segments") == 6
