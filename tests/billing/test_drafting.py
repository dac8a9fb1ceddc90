"""Late usage, carried months, charges and groups on a real Postgres: with the next invoice."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.crediting import Wanted
from billing.invoicing import DocumentKind, Invoice
from billing.issued import Doing
from billing.periods import read_month
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on

TAX = '[tax]\ncategory = "S"\nrate = "19"\n'
SUPPORT = (
    '[[charges]]\nid = "support"\ntext = "Support"\nquantity = "1"\nunit = "month"\n'
    'price = "250"\nevery = "month"\n'
)
SETUP = (
    '[[charges]]\nid = "setup"\ntext = "Setup"\nquantity = "3"\nunit = "h"\n'
    'price = "0.335"\non = 2026-10-31\n'
)


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in early November: acme with two teams; all tokens at 3, those of the free at 0."""
    with town_on(database_url, now_ms=ms("2026-11-05")) as town:
        town.add_account("acme")
        town.add_account("red", moves=((0, "acme"),))
        town.add_account("blue", moves=((0, "red"), (ms("2026-10-16"), "acme")))
        town.import_book(book_toml('all = "3"', 'tier.free.all = "0"'))
        yield town


def use(
    town: Town,
    *,
    at: str = "2026-10-10",
    account: str = "acme",
    event_id: int = 0,
    tier: str = "high",
    **classes: int,
) -> None:
    """Record and count one event of llama-4."""
    event = TownEvent(
        account=account,
        end_ms=ms(at),
        classes=classes or {"input": 1_000_000},
        tier=tier,
        event_id=event_id,
    )
    town.record(event)


def close(town: Town, month: str = "2026-10") -> Invoice | None:
    """Close a month, five days after it ended at least; return what was issued."""
    town.clock.now = max(town.clock.now, ms(f"{read_month(month).next()}-06"))
    (closed,) = town.billing.closing.close_month(read_month(month)).closed
    return closed.invoice if closed.invoice is not None and closed.invoice.issue else None


def issue(town: Town, month: str = "2026-10") -> Invoice:
    """Close a month that an invoice comes of."""
    found = close(town, month)
    assert found is not None
    return found


def lines(invoice: Invoice) -> list[tuple[int, str, str]]:
    """Return tokens, amount and origin of each line."""
    return [
        (
            it.token_count,
            str(it.billed),
            "" if it.origin is None else f"{it.origin.month} {it.origin.number}/{it.origin.line}",
        )
        for it in invoice.lines
    ]


def test_late__comes_with_the_next_invoice(town: Town) -> None:
    """Tokens that came after the close are an adjustment of the line that they would be in."""
    town.set_contract(contract_toml())
    use(town, input=1_000_000, output=500_000)
    number = issue(town).issue
    assert number is not None
    use(town, output=100_000)
    use(town, at="2026-11-10", input=10_000)
    november = issue(town, "2026-11")
    origin = f"2026-10 {number.number}/2"
    assert lines(november) == [(10_000, "0.03", ""), (100_000, "0.30", origin)]
    use(town, at="2026-12-10", input=20_000)
    assert lines(issue(town, "2026-12")) == [(20_000, "0.06", "")]


def test_late__rounds_as_one(town: Town) -> None:
    """Rounds of late tokens that are nothing each come to what they are together."""
    town.set_contract(contract_toml())
    use(town, input=1_000_000)
    issue(town)
    found = []
    for month in ("2026-11", "2026-12", "2027-01"):
        use(town, input=1_000)
        use(town, at=f"{month}-03", input=1_000_000)
        found.append(lines(issue(town, month))[1][:2])
    # 3.003, 3.006 and 3.009 are 3.00, 3.01 and 3.01.
    assert found == [(1_000, "0.00"), (1_000, "0.01"), (1_000, "0.00")]


def test_late__of_what_is_free(town: Town) -> None:
    """Free tokens are lines of their own month, and no adjustments: no money moves."""
    town.set_contract(contract_toml())
    use(town, input=1_000_000)
    use(town, input=5, tier="free")
    assert [it[0] for it in lines(issue(town))] == [5, 1_000_000]
    use(town, input=6, tier="free")
    use(town, at="2026-11-03", input=1_000_000)
    assert lines(issue(town, "2026-11")) == [(1_000_000, "3.00", "")]


def test_late__after_a_credit(town: Town) -> None:
    """A credit gives money and takes no tokens: late usage is billed as if there were none."""
    town.set_contract(contract_toml())
    use(town, input=1_000_000)
    first = issue(town).issue
    assert first is not None
    town.billing.credit_notes.credit(
        first.number,
        line=1,
        wanted=Wanted(),
        reason="slow",
        credit_id="c-1",
        doing=Doing(key_id="key_1", now_ms=town.clock.now),
    )
    use(town, input=500_000)
    use(town, at="2026-11-10", input=1_000_000)
    origin = f"2026-10 {first.number}/1"
    found = lines(issue(town, "2026-11"))
    assert found == [(1_000_000, "3.00", ""), (500_000, "1.50", origin)]


def test_late__in_a_month_that_was_carried(town: Town) -> None:
    """What a carried month has left over comes once, also when it comes in two invoices."""
    town.set_contract(contract_toml(extra='minimum = "5.00"\n'))
    use(town, input=1_000_000)
    assert close(town) is None
    use(town, at="2026-11-10", input=2_000_000)
    november = issue(town, "2026-11").issue
    assert november is not None
    use(town, input=1_000_000)
    use(town, at="2026-12-10", input=2_000_000)
    december = issue(town, "2026-12")
    # The adjustment of November is the first line that billed it.
    origin = f"2026-10 {november.number}/2"
    assert lines(december) == [(2_000_000, "6.00", ""), (1_000_000, "3.00", origin)]


def test_price__that_moved_in_a_closed_month(town: Town) -> None:
    """Other prices take back what was billed at the old ones, and bill it at the new."""
    town.set_contract(contract_toml())
    use(town, at="2026-10-02", input=1_000_000)
    use(town, at="2026-10-20", input=1_000_000)
    first = issue(town).issue
    assert first is not None
    dear = book_toml('all = "4"', start="2026-10-15T00:00:00")
    # As whoever takes terms in leaves it when a crash comes before the corrections.
    town.billing.terms.add_book(dear, key_id="key_1", now_ms=town.clock.now, judge=lambda *_: None)
    use(town, at="2026-11-10", input=1_000_000)
    origin = f"2026-10 {first.number}/1"
    november = issue(town, "2026-11")
    assert lines(november) == [
        (1_000_000, "4.00", ""),
        (-1_000_000, "-3.00", origin),
        (1_000_000, "4.00", "2026-10 /0"),
    ]
    assert november.lines[1].price.source == 'models."llama-4".all'
    use(town, at="2026-12-10", input=1_000_000)
    assert lines(issue(town, "2026-12")) == [(1_000_000, "4.00", "")]


def test_void__comes_to_a_credit_note(town: Town) -> None:
    """A month that takes back more than it bills is a credit note, in a series of its own."""
    town.set_contract(contract_toml(extra=TAX))
    use(town, event_id=7, input=1_000_000)
    issue(town)
    town.correct(7)
    use(town, at="2026-11-10", input=10_000)
    november = issue(town, "2026-11")
    assert november.kind is DocumentKind.CREDIT_NOTE
    assert november.issue is not None
    assert november.issue.number == "NG-C-2026-000001"
    # 19 % of 2.97, which is 0.5643.
    assert (november.net, november.total) == (Decimal("-2.97"), Decimal("-3.53"))


def test_carried__comes_with_the_next_invoice(town: Town) -> None:
    """Below the minimum nothing is issued; tokens and charges come later, and name no line."""
    town.set_contract(contract_toml(extra='minimum = "5.00"\n' + SETUP))
    use(town, input=1_000_000)
    assert close(town) is None
    use(town, at="2026-11-10", input=2_000_000)
    november = issue(town, "2026-11")
    assert lines(november) == [(2_000_000, "6.00", ""), (1_000_000, "3.00", "2026-10 /0")]
    (setup,) = november.charges
    assert (setup.line, setup.exact, setup.billed) == (3, Decimal("1.005"), Decimal("1.01"))
    assert setup.origin is not None
    assert str(setup.origin.month) == "2026-10"
    assert november.total == Decimal("10.01")
    use(town, at="2026-12-10", input=2_000_000)
    december = issue(town, "2026-12")
    assert (lines(december), december.charges) == ([(2_000_000, "6.00", "")], ())


def test_reissued__after_a_void(town: Town) -> None:
    """A void invoice is issued again: all of it, with what came late, in the place of the other."""
    town.set_contract(contract_toml(extra=SUPPORT))
    use(town, input=1_000_000)
    first = issue(town).issue
    assert first is not None
    doing = Doing(key_id="key_1", now_ms=town.clock.now)
    town.billing.credit_notes.void(first.number, reason="wrong buyer", doing=doing)
    use(town, input=1_000_000)
    again = issue(town)
    assert (again.replaces, again.kind) == (first.number, DocumentKind.INVOICE)
    assert (lines(again), again.total) == ([(2_000_000, "6.00", "")], Decimal("256.00"))
    assert [it.charge_id for it in again.charges] == ["support"]


def test_charge__once_a_month(town: Town) -> None:
    """A month in two parts bears its charge once; each month bears it whole."""
    town.set_contract(contract_toml(extra=SUPPORT))
    town.set_contract(contract_toml(start="2026-10-15T00:00:00", extra=SUPPORT))
    use(town, at="2026-10-02")
    use(town, at="2026-10-20")
    closed = town.billing.closing.close_month(read_month("2026-10")).closed
    found = [it.invoice for it in closed if it.invoice is not None]
    assert [(it.net, len(it.charges)) for it in found] == [
        (Decimal("253.00"), 1),
        (Decimal("3.00"), 0),
    ]
    november = issue(town, "2026-11")
    assert [it.charge_id for it in november.charges] == ["support"]


def test_tax__on_the_sum_of_rounded_lines(town: Town) -> None:
    """Taxes are by category and rate, each rounded once; a charge may have its own."""
    free = SETUP + 'tax = { category = "Z" }\n'
    town.set_contract(contract_toml(extra=TAX + free))
    use(town, input=1_000, output=2_000)
    found = issue(town)
    taxes = [(it.tax.category, str(it.basis), str(it.amount)) for it in found.taxes]
    # Lines of 0.003 and 0.006 are 0.00 and 0.01.
    assert taxes == [("S", "0.01", "0.00"), ("Z", "1.01", "0.00")]
    assert (found.net, found.total) == (Decimal("1.02"), Decimal("1.02"))


def test_group__is_where_an_account_was(town: Town) -> None:
    """Lines are split by the account right below what is covered, as it was when it was used."""
    town.set_contract(contract_toml(extra='group_by = "account"\n'))
    for day in ("10", "20"):
        for account in ("acme", "red", "blue"):
            use(town, at=f"2026-10-{day}", account=account)
    found = issue(town)
    assert [(it.group, it.token_count) for it in found.lines] == [
        ("acme", 2_000_000),
        ("blue", 1_000_000),
        ("red", 3_000_000),
    ]
    assert [(it.account_id, it.path) for it in found.groups] == [
        ("acme", "acme"),
        ("blue", "acme/blue"),
        ("red", "acme/red"),
    ]


def test_unpriced__names_its_first_interval(town: Town) -> None:
    """What has no price is told with the quarter of an hour of its first use, not a day's."""
    town.set_contract(contract_toml())
    town.record(
        TownEvent(account="acme", end_ms=ms("2026-10-20T13:20"), classes={"input": 3}, model="x"),
        TownEvent(account="acme", end_ms=ms("2026-10-11T07:40"), classes={"input": 4}, model="x"),
    )
    (draft,) = town.billing.closing.preview("acme", read_month("2026-10"))
    (found,) = draft.unpriced
    assert (found.token_count, found.first_ms) == (7, ms("2026-10-11T07:30"))


def test_preview__of_a_closed_month(town: Town) -> None:
    """It is of all usage by now, and says when it was closed, as what, and what has changed."""
    town.set_contract(contract_toml())
    use(town, input=1_000_000)
    first = issue(town).issue
    assert first is not None
    use(town, input=500_000)
    (found,) = town.billing.closing.previews("acme", read_month("2026-10"))
    assert lines(found.invoice) == [(1_500_000, "4.50", "")]
    assert (found.number, found.close_ms) == (first.number, first.issue_ms)
    assert found.difference == Decimal("1.50")


def test_document__says_what_it_is_made_of(town: Town) -> None:
    """It names the files of its terms, and the hash of its usage, in whatever parts."""
    town.set_contract(contract_toml())
    use(town, at="2026-10-03", input=3_000)
    use(town, at="2026-10-05", input=4_000)
    found = issue(town)
    assert [(it.kind, it.name) for it in found.terms] == [
        ("contract", "acme-2026"),
        ("book", "list"),
    ]
    assert all(len(it.sha256) == 64 for it in found.terms)
    ((digest,),) = town.ask(
        "SELECT encode(sha256('acme|llama-4|llama-4|high|online|0|input|7000\n'), 'hex')"
    )
    assert found.usage_sha256 == digest
