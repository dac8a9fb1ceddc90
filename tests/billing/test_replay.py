"""Replay on a real Postgres: the same bytes from the journal, and each change by hand named."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest

from billing.app import make_replaying
from billing.closing import CloseOrder
from billing.crediting import Wanted
from billing.issued import Doing
from billing.periods import Month, read_month
from tests.billing.replayed import replay
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on

OCTOBER, NOVEMBER = read_month("2026-10"), read_month("2026-11")


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def an_event(number: int, *, month: int = 10, account: str = "acme", **classes: int) -> TownEvent:
    """Return an event whose id is its number."""
    return TownEvent(
        account=account,
        end_ms=ms(f"2026-{month:02}-10T12:07"),
        classes=classes or {"input": 123_457, "output": 7_919 * number},
        event_id=number,
    )


def close(town: Town, month: Month) -> list[str]:
    """Close a month, and return the numbers of what was issued."""
    order = CloseOrder(month=month, early=True)
    closed = town.billing.closing.close(order).closed
    issues = [it.invoice.issue for it in closed if it.invoice is not None]
    return [it.number for it in issues if it is not None]


def doing(town: Town) -> Doing:
    """Return who does something now."""
    return Doing(key_id="key_1", now_ms=town.clock.now)


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in early December whose October is closed: two accounts under one contract."""
    with town_on(database_url, now_ms=ms("2026-11-08")) as town:
        town.add_account("acme")
        town.add_account("team", moves=((0, "acme"),))
        town.import_book(book_toml('input = "3.33"', 'output = "7.77"'))
        town.set_contract(contract_toml())
        town.record(an_event(1), an_event(2, account="team"))
        town.record(an_event(3))
        assert close(town, OCTOBER) == ["NG-2026-000001"]
        town.clock.now = ms("2026-12-08")
        yield town


def test_replay__makes_the_same_bytes_of_the_journal(town: Town) -> None:
    """A month that nobody has touched comes out as it was issued, whatever came after it."""
    town.record(an_event(4))
    replayed, says = replay(town, OCTOBER)
    assert says == []
    assert (replayed.document_count, replayed.different) == (1, set())


def test_replay__of_adjustments(town: Town) -> None:
    """What came late is borne by the next invoice, which comes out the same too."""
    town.record(an_event(4), an_event(5, month=11))
    town.correct(2)
    assert close(town, NOVEMBER) == ["NG-2026-000002"]
    for month in (OCTOBER, NOVEMBER):
        assert replay(town, month)[1] == []
    assert town.ask("SELECT count(*) FROM issued_lines WHERE kind = 'adjustment'") == [(1,)]


def test_replay__of_credits_void_and_reissue(town: Town) -> None:
    """Credit notes, what takes a document back, and what stands for it, come out the same."""
    notes = town.billing.credit_notes
    for place, wanted in enumerate([Wanted(token_count=100_000), Wanted(amount=Decimal("0.02"))]):
        notes.credit(
            "NG-2026-000001",
            line=1 + place % 2,
            wanted=wanted,
            reason="a test",
            credit_id=f"credit-{place}",
            doing=doing(town),
        )
    town.record(an_event(6))
    notes.void("NG-2026-000001", reason="all wrong", doing=doing(town))
    assert close(town, OCTOBER) == ["NG-2026-000002"]
    replayed, says = replay(town, OCTOBER)
    assert says == []
    assert replayed.document_count == 5


def test_replay__by_the_terms_as_they_were(town: Town) -> None:
    """Prices that were backdated after an invoice do not change it; what corrects it has both."""
    town.import_book(
        book_toml('input = "2"', 'output = "8"', start="2026-10-05T00:00:00"), correct=True
    )
    replayed, says = replay(town, OCTOBER)
    assert says == []
    assert replayed.document_count == 2


def test_replay__of_what_is_written_off(town: Town) -> None:
    """A document that gives a difference up is made again as others are."""
    town.record(an_event(7, account="team"))
    town.billing.correcting.correct(
        "acme-2026", OCTOBER, reason="a test", key_id="key_1", write_off=True
    )
    replayed, says = replay(town, OCTOBER)
    assert says == []
    assert replayed.document_count == 2


def test_replay__of_a_document_that_bears_nothing_of_a_period_that_moved(town: Town) -> None:
    """What came late and was voided is looked at and not borne: no price of it is named."""
    town.import_book(book_toml('input = "4"', start="2026-10-31T23:00:00"))
    town.record(an_event(4), an_event(5, month=11, input=9_000))
    town.correct(4)
    assert close(town, NOVEMBER) == ["NG-2026-000002"]
    assert replay(town, NOVEMBER)[1] == []


_KEEP = "CREATE TEMPORARY TABLE kept AS SELECT * FROM {table} WHERE {place}"
_GIVE_BACK = "INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept"
_SAY = (
    "UPDATE issued_invoices SET buyer = '{new}', document = d.text, sha256 = sha256(d.text) FROM ("
    " SELECT number, convert_to(replace(convert_from(document, 'UTF8'), '\"{old}\"', '\"{new}\"'),"
    " 'UTF8') AS text FROM issued_invoices) d WHERE d.number = issued_invoices.number"
)


def _dropped(table: str, place: str) -> tuple[str, str]:
    """Return what takes rows away, and what gives them back."""
    keep = _KEEP.format(table=table, place=place)
    return f"{keep}; DELETE FROM {table} WHERE {place}", _GIVE_BACK.format(table=table)


_ALTERED = (
    "CREATE TEMPORARY TABLE bodies AS SELECT body FROM journal WHERE position = 2;"
    " UPDATE journal SET event_count = 2,"
    " body = (SELECT body FROM journal WHERE position = 1) WHERE position = 2"
)
# What a superuser changes, what undoes it, and what is told.
CHANGES = [
    (
        "UPDATE price_books SET toml = replace(toml, '3.33', '3.34')",
        "UPDATE price_books SET toml = replace(toml, '3.34', '3.33')",
        "book list from 2026-01-01T00:00:00Z has SHA-256",
    ),
    (
        "UPDATE usage SET input = input + 7 WHERE account_id = 'team'",
        "UPDATE usage SET input = input - 7 WHERE account_id = 'team'",
        "Z team, llama-4, high, input: 123,457 by the journal, 123,464 by usage",
    ),
    (*_dropped("journal", "position = 2"), "shard 0 lacks segment 2 of its journal"),
    (
        _ALTERED,
        "UPDATE journal SET event_count = 1, body = (SELECT body FROM bodies) WHERE position = 2",
        "team, llama-4, high, output: 31,676 by the journal, 15,838 by usage",
    ),
    (
        "UPDATE issued_invoices SET total = total + 1",
        "UPDATE issued_invoices SET total = total - 1",
        "NG-2026-000001, total: its row has",
    ),
    (
        "UPDATE issued_lines SET billed = billed + 1, residue = residue - 1",
        "UPDATE issued_lines SET billed = billed - 1, residue = residue + 1",
        "NG-2026-000001, line 1, billed: its row has 2.23, its document 1.23",
    ),
    (
        *_dropped("issued_lines", "line = 2"),
        "NG-2026-000001, line 2: its row has no row, its document a line",
    ),
    (
        _SAY.format(old="ACME SA", new="Somebody SA"),
        _SAY.format(old="Somebody SA", new="ACME SA"),
        'NG-2026-000001, buyer.name: issued "Somebody SA", replayed "ACME SA"',
    ),
]


def test_replay__names_what_was_changed_by_hand(town: Town) -> None:
    """A price, usage, journal or document that was changed is named, and nothing else ever."""
    with psycopg.connect(town.database_url, autocommit=True) as connection:
        for change, undo, told in CHANGES:
            connection.execute(change.encode())
            says = replay(town, OCTOBER)[1]
            assert [it for it in says if told in it], (told, says)
            connection.execute(undo.encode())
    assert replay(town, OCTOBER)[1] == []


def test_replay__names_a_document_that_is_gone(town: Town) -> None:
    """A document that was issued and taken away leaves its number, which is named."""
    assert make_replaying(town.host).look_for_missing().faults == []
    with psycopg.connect(town.database_url, autocommit=True) as connection:
        for table in ("papers_due", "issued_lines", "issued_invoices"):
            connection.execute(f"DELETE FROM {table}".encode())
    (fault,) = make_replaying(town.host).look_for_missing().faults
    assert fault.says == "NG-2026-000001 was issued and is not there"
