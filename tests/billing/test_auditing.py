"""The audit of invoices on a real Postgres: clean on what was issued, each damage named."""

from collections.abc import Iterator

import psycopg
import pytest

from billing.app import make_auditing
from billing.auditing import InvoiceAudit
from billing.crediting import Wanted
from billing.issued import Doing
from meter.store.totals import UsageTotals
from tests.billing.test_closing import close, ms, use
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in November, whose October is issued: acme with a team that moved in on the 20th."""
    with town_on(database_url, now_ms=ms("2026-11-05")) as town:
        town.add_account("acme")
        town.add_account("team", moves=((0, None), (ms("2026-10-20"), "acme")))
        town.add_account("other")
        town.import_book(book_toml('input = "3"', 'output = "15"', 'tier.free.all = "0"'))
        town.set_contract(contract_toml())
        town.set_contract(contract_toml("of-other", covers="other", zone="UTC", series="OT"))
        use(town, input=1_000_000, output=2)
        use(town, input=500, at="2026-10-31T22:59")
        use(town, input=7, at="2026-10-31T23:01")
        use(town, account="team", input=30, at="2026-10-19")
        use(town, account="team", input=400, at="2026-10-20T00:01")
        use(town, account="other", input=9_000)
        close(town)
        yield town


def audit(town: Town, *, since: str = "2026-01-01", until: str = "2027-01-01") -> InvoiceAudit:
    """Audit the invoices of a span."""
    auditing = make_auditing(town.host, usage=UsageTotals(town.engine))
    return auditing.audit(start_ms=ms(since), end_ms=ms(until))


def damage(town: Town, *statements: str) -> None:
    """Do what only a superuser can, with all constraints off."""
    with psycopg.connect(town.database_url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement.encode())


def test_audit__clean(town: Town) -> None:
    """Lines are usage up to their cut, in each contract's month, of whom it covered."""
    use(town, input=5_000)
    found = audit(town)
    assert (found.invoice_count, found.line_count, found.faults) == (2, 3, [])
    assert found.billed_tokens == found.used_tokens == 1_000_000 + 2 + 500 + 400 + 9_000


def test_audit__of_a_span(town: Town) -> None:
    """Only invoices whose periods meet the span are audited."""
    assert audit(town, until="2026-09-30").invoice_count == 0
    assert audit(town, since="2026-11-01").invoice_count == 0
    assert audit(town, since="2026-10-31", until="2026-11-02").invoice_count == 2


_NUMBER = "invoice NG-2026-000001"
_ALL = "1,000,900"
_TOKENS = (
    "invoice NG-2026-000001: acme, llama-4, high, online, input: lines bill {} tokens, usage up to"
    " cut 1 has {} (from 2026-09-30T22:00:00Z to 2026-10-31T23:00:00Z)"
)
_LINE = "WHERE number = 'NG-2026-000001' AND token_class = 'input'"
_MORE = (
    "UPDATE issued_lines SET quantity = quantity + 1000000, exact = exact + 3, billed = billed + 3,"
    f" residue = residue {_LINE}"
)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "UPDATE usage SET input = input + 1 WHERE account_id = 'acme' AND input = 500",
            _TOKENS.format(_ALL, "1,000,901"),
        ),
        (
            "DELETE FROM usage WHERE account_id = 'team' AND input = 400",
            _TOKENS.format(_ALL, "1,000,500"),
        ),
        (
            "UPDATE usage SET cut_id = 2 WHERE account_id = 'acme' AND input = 500",
            _TOKENS.format(_ALL, "1,000,400"),
        ),
        (_MORE, _TOKENS.format("2,000,900", _ALL)),
        (f"DELETE FROM issued_lines {_LINE}", _TOKENS.format("0", _ALL)),
        (
            f"UPDATE issued_lines SET billed = 2, residue = exact - 2 {_LINE}",
            f"{_NUMBER}: line 1: its row has {_ALL} tokens for 2, the document {_ALL} for 3.00",
        ),
        (
            "UPDATE issued_invoices SET total = 1 WHERE number = 'NG-2026-000001'",
            f"{_NUMBER}: its lines come to 3.00, its row says 1, its document 3.00",
        ),
        (
            "UPDATE issued_invoices SET line_count = 9 WHERE number = 'NG-2026-000001'",
            f"{_NUMBER}: 2 lines are kept, 2 in its document, 9 by its row",
        ),
    ],
)
def test_audit__damaged(town: Town, statement: str, said: str) -> None:
    """A change of usage, of a line, a total or a count is named by invoice, key and numbers."""
    damage(town, statement)
    found = audit(town)
    assert found.fault_count >= 1
    assert found.faults[0].says == said
    assert found.faults[0].facts["invoice"] == "NG-2026-000001"


def test_audit__of_what_came_late(town: Town) -> None:
    """What later invoices bill of a month is of that month; free tokens are on none of them."""
    use(town, input=5_000)
    free = TownEvent(account="acme", end_ms=ms("2026-10-07"), classes={"input": 3}, tier="free")
    town.record(free)
    use(town, at="2026-11-20", input=1_000_000)
    town.clock.now = ms("2026-12-06")
    close(town, "2026-11")
    found = audit(town)
    assert (found.invoice_count, found.line_count, found.faults) == (3, 5, [])
    damage(town, _MORE.replace(_LINE, "WHERE kind = 'adjustment'"))
    tokens, row, _ = audit(town).faults
    assert tokens.says.startswith(f"{_NUMBER}: acme, llama-4, high, online, input: lines bill")
    assert row.says.startswith("invoice NG-2026-000002: line 2: its row has")


def test_audit__of_void_and_credited(town: Town) -> None:
    """A void invoice's period is let be until it is issued again; a credit takes no tokens."""
    notes, doing = town.billing.credit_notes, Doing(key_id="key_1", now_ms=town.clock.now)
    notes.credit(
        "OT-2026-000001", line=1, wanted=Wanted(), reason="slow", credit_id="c", doing=doing
    )
    notes.void("NG-2026-000001", reason="wrong", doing=doing)
    found = audit(town)
    assert (found.invoice_count, found.used_tokens, found.faults) == (4, 9_000, [])
    close(town)
    found = audit(town)
    assert (found.invoice_count, found.used_tokens, found.faults) == (5, 1_009_902, [])
