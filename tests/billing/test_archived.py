"""A month whose journal has left for files is explained and replayed as if it were there."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from billing.app import make_parts
from billing.closing import CloseOrder
from billing.documents.explanation import explanation_to_json
from billing.periods import read_month
from meter.archive_file import ArchiveFolder
from meter.store.archived_bodies import ArchivedBodies
from meter.store.evidence import EvidenceStore
from meter.store.parts import ArchiveStore, PartStore
from tests.billing.replayed import replay
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on

OCTOBER = read_month("2026-10")
NUMBER = "NG-2026-000001"


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town whose October is closed, and half a year over."""
    with town_on(database_url, now_ms=ms("2026-11-08")) as town:
        town.add_account("acme")
        town.import_book(book_toml('input = "3"'))
        town.set_contract(contract_toml())
        for number in range(1, 6):
            event = TownEvent(
                account="acme",
                end_ms=ms(f"2026-10-1{number}T12:07"),
                classes={"input": 1_000_000 * number},
                event_id=number,
                request_id=f"request-{number}",
            )
            town.record(event)
        town.billing.closing.close(CloseOrder(month=OCTOBER, early=True))
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("INSERT INTO installation VALUES (true, true, '2027-06-10Z')")
        yield town


def test_archived_month__is_explained_and_replayed(town: Town, tmp_path: Path) -> None:
    """Lines lead to the same events, and documents come out byte by byte, from files alone."""
    bodies = ArchivedBodies(tmp_path)
    evidence = EvidenceStore(town.engine, archive=bodies)
    explaining = make_parts(replace(town.host, evidence=evidence)).explaining
    before = explanation_to_json(explaining.explain_line(NUMBER, 1))
    events = list(explaining.line_events(NUMBER, 1))
    assert len(events) == 5
    archive = ArchiveStore(town.engine, ArchiveFolder(tmp_path))
    while archive.archive_step("journal_first") is not None:
        pass
    assert PartStore(town.engine).drop("journal_first") == ""
    with psycopg.connect(town.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM journal").fetchone() == (0,)
    assert explanation_to_json(explaining.explain_line(NUMBER, 1)) == before
    assert list(explaining.line_events(NUMBER, 1)) == events
    replayed, says = replay(town, OCTOBER, archive=bodies)
    assert says == []
    assert (replayed.document_count, replayed.different) == (1, set())
