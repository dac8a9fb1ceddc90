"""An installation of before there were periods, upgraded: what was issued stays, and goes on.

`before_periods.json.gz` has the tables of one that was lived by the version before, in a sandbox:
three months closed, usage that came late and was taken back, quarantine, an open stream.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command

import migrations
from billing.close_result import Outcome
from billing.closing import CloseOrder
from billing.periods import Month
from tests.billing.replayed import replay
from tests.billing.test_closing import ms
from tests.billing.town import Town, book_toml, town_on
from tests.meter.store.recording import administrator, ask
from tests.postgres import Cluster

pytestmark = pytest.mark.stacks

KEPT = Path(__file__).parent.parent / "fixtures" / "before_periods.json.gz"
DOCUMENTS = "SELECT number, document, sha256 FROM issued_invoices ORDER BY number"
# The third and the fifth day after September, in the morning.
THIRD_DAY, FIFTH_DAY = ms("2026-10-04T10:00"), ms("2026-10-06T10:00")


@pytest.fixture
def town(cluster: Cluster) -> Iterator[Town]:
    """The installation after its upgrade, on 11 September; its documents are as they were."""
    with cluster.database(template="template0") as url:
        command.upgrade(migrations._config(url), "0007_pre_factory")  # noqa: SLF001
        restore(url, json.loads(gzip.decompress(KEPT.read_bytes())))
        before = ask(url, DOCUMENTS)
        migrations.upgrade(url)
        assert ask(url, DOCUMENTS) == before
        with town_on(url, now_ms=ms("2026-09-11T00:30")) as town:
            yield town


# What a server and a job of the version before go on writing, as they wrote it.
OLD_INVOICE = (
    "number, series, year, serial, contract, version_start, account_id, seller, buyer, currency,"
    " zone, period_start, period_end, issue_time, due_date, total, residue, line_count, cut_id,"
    " engine, sandbox, document, sha256"
)
OLD_STATEMENTS = (
    "UPDATE counting SET position = position + 1, counted_until = now()",
    (
        f"INSERT INTO issued_invoices ({OLD_INVOICE}) SELECT 'NG-2026-000099', series, 2026, 99,"
        f" {OLD_INVOICE.split('serial, ')[1]} FROM issued_invoices WHERE contract = 'c-zero'"
        " LIMIT 1"
    ),
    (
        "INSERT INTO contracts (contract, start_time, revision, toml, set_time, set_by)"
        " SELECT contract, start_time, 2, toml, set_time, set_by FROM contracts"
    ),
    (
        "INSERT INTO price_books (book, start_time, currency, toml, import_time, imported_by)"
        " SELECT 'new', start_time, currency, toml, import_time, imported_by FROM price_books"
    ),
)


def restore(url: str, kept: Mapping[str, Any]) -> None:
    """Fill the tables of a database of that version with what was kept of them."""
    with administrator(url) as connection:
        connection.execute("SET session_replication_role = replica")
        for name, table in kept["tables"].items():
            connection.execute(f"DELETE FROM {name}".encode())
            columns = ", ".join(table["columns"])
            with connection.cursor().copy(f"COPY {name} ({columns}) FROM STDIN".encode()) as copy:
                copy.write(table["rows"])
        for name, last in kept["sequences"].items():
            connection.execute("SELECT setval(%s, %s)", (name, last))


def close_due(town: Town) -> dict[tuple[str, str], Outcome]:
    """Close all that is due; return what became of it by contract and month."""
    result = town.billing.closing.close(CloseOrder(month=None))
    return {(it.period.version.contract, str(it.period.month)): it.outcome for it in result.closed}


def totals(town: Town) -> dict[object, str]:
    """Return what was issued since the upgrade, by contract."""
    rows = town.ask("SELECT contract, total FROM invoices WHERE period_start > '2026-08-31'")
    return {contract: str(total) for contract, total in rows}


def test_upgrade__what_was_issued_is_not_looked_at_for_ever(town: Town) -> None:
    """Documents are whole; papers are made when asked for; what is settled is looked at once."""
    altered = "SELECT count(*) FROM issued_invoices WHERE sha256 <> sha256(document)"
    assert town.ask(altered) == [(0,)]
    assert town.ask("SELECT count(*) FROM papers_due") == [(0,)]
    town.clock.now = FIFTH_DAY
    close_due(town)
    # One has ended with something left over, one is held: both wait for a person.
    unsettled = "SELECT DISTINCT contract FROM billing_periods WHERE settled_terms IS NULL"
    closed = f"{unsettled} AND state = 'closed' ORDER BY 1"
    assert town.ask(closed) == [("c-ended",), ("c-gap",)]


def test_upgrade__what_came_late_is_billed_once(town: Town) -> None:
    """A close waits for who may have reported, bills what older closes left, and nothing twice."""
    late = {("c-ended", "2026-07"): Outcome.LATE_AFTER_FINAL}
    # Nobody used it in July; what came late was never to be billed.
    gap = {("c-gap", "2026-07"): Outcome.HELD_JUMP}
    contracts = ("c-acme", "c-berlin", "c-gap", "c-moved", "c-tokyo", "c-zero")
    town.clock.now = THIRD_DAY
    waits = dict.fromkeys(((it, "2026-09") for it in contracts), Outcome.COLLECTING)
    assert close_due(town) == late | gap | waits
    town.clock.now = FIFTH_DAY
    done = dict.fromkeys(waits, Outcome.ISSUED) | {
        ("c-gap", "2026-09"): Outcome.HELD_EARLIER,
        ("c-zero", "2026-09"): Outcome.ZERO,
    }
    assert close_due(town) == late | gap | done
    issued = {"c-acme": "20.96", "c-berlin": "3.70", "c-moved": "3.00", "c-tokyo": "3.00"}
    assert totals(town) == issued
    heard = "SELECT DISTINCT exception FROM periods WHERE close_time > '2026-10-01'"
    assert town.ask(heard) == [("without /p-sept",)]
    close_due(town)
    assert totals(town) == issued


def test_upgrade__what_was_issued_before_is_replayed(town: Town) -> None:
    """Documents of before come out the same by the terms of then, whatever the prices are now."""
    months = [Month(2026, number) for number in (6, 7, 8)]
    assert [replay(town, it)[1] for it in months] == [[], [], []]
    town.import_book(book_toml('all = "4"', start="2026-08-01T00:00:00"), correct=True)
    replayed, told = replay(town, months[-1])
    assert (replayed.document_count, told) == (6 + 5, [])


@pytest.mark.parametrize("statement", OLD_STATEMENTS)
def test_upgrade__what_an_older_version_writes_is_refused(town: Town, statement: str) -> None:
    """It counts past the totals, issues past the periods, and logs nothing: none of it is taken."""
    with pytest.raises(psycopg.IntegrityError, match=r"counting_totalled|terms_version|\"kind\""):
        town.ask(statement)
