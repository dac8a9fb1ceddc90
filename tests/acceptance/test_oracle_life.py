"""The oracle of months against sums that were worked out by hand."""

from datetime import datetime
from fractions import Fraction
from itertools import count

from tests.acceptance.oracle_accounts import Account, Tree
from tests.acceptance.oracle_bills import Event
from tests.acceptance.oracle_documents import Document, Line, Tax
from tests.acceptance.oracle_life import Life
from tests.acceptance.oracle_terms import to_ms
from tests.acceptance.stories import random_story
from tests.acceptance.test_oracle import KEYNOTE

MONTHS = ("2026-10", "2026-11", "2026-12")
CONTRACT = """
contract = "acme-2026"
from = 2026-10-01T00:00:00
zone = "UTC"
currency = "USD"
book = "keynote"
covers = ["acme"]
"""
TREE: Tree = {
    "acme": Account("acme", ((0, None),)),
    "lab": Account("lab", ((0, "acme"),)),
}
_NUMBERS = count()


def live(contract: str = CONTRACT, *, book: str = KEYNOTE) -> Life:
    """Return a life in which nothing has happened but that terms were agreed on."""
    life = Life(TREE)
    life.set_book(book)
    life.set_contract(contract)
    return life


def used(
    tokens: int, *, day: str = "2026-10-05", tier: str = "medium", account: str = "acme"
) -> Event:
    """Return a request for that many output tokens; a medium million costs 3 dollars."""
    end_ms = to_ms(datetime.fromisoformat(f"{day}T12:00Z"))
    return Event(account, "m", "", tier, "online", {"output": tokens}, end_ms, str(next(_NUMBERS)))


def close(life: Life, month: str) -> tuple[str, Document | None]:
    """Close a month of the one contract."""
    [closed] = life.close(month, months=MONTHS)
    return closed.outcome, closed.document


def tokens_and_cents(lines: tuple[Line, ...]) -> list[tuple[int, int]]:
    """Return tokens and cents of each line."""
    return [(it.quantity, int(it.billed * 100)) for it in lines]


def test_close__late_tokens_are_the_rounded_whole_less_what_was_billed() -> None:
    """4,000 tokens are 1.2 cents, 1 billed; 1,000 more make 1.5, so the second cent comes late."""
    life = live()
    life.report(used(4_000))
    _, first = close(life, "2026-10")
    life.report(used(1_000), used(2_000, day="2026-11-05"))
    _, second = close(life, "2026-11")
    assert first is not None
    assert second is not None
    assert tokens_and_cents(first.lines) == [(4_000, 1)]
    assert tokens_and_cents(second.lines) == [(2_000, 1), (1_000, 1)]
    assert second.lines[1].origin_ms == first.period.start_ms


def test_close__what_was_taken_back_is_given_back() -> None:
    """A million that was billed and then voided is 3 dollars less, in a credit note alone."""
    life = live()
    event = used(1_000_000)
    life.report(event)
    close(life, "2026-10")
    life.take_back(event)
    outcome, document = close(life, "2026-11")
    assert document is not None
    assert (outcome, document.kind) == ("issued", "credit_note")
    assert tokens_and_cents(document.lines) == [(-1_000_000, -300)]


def test_close__below_the_minimum_is_carried_into_the_next_invoice() -> None:
    """3 dollars of October stand on November's invoice, where the two pass the minimum of 5."""
    life = live(f'{CONTRACT}[document]\nminimum = "5"')
    life.report(used(1_000_000), used(1_000_000, day="2026-11-05"))
    assert close(life, "2026-10") == ("carried", None)
    outcome, document = close(life, "2026-11")
    assert document is not None
    assert (outcome, document.net) == ("issued", Fraction(6))


def test_close__nothing_to_pay_is_no_document_unless_asked_for() -> None:
    """What is free makes no document; with `zero = true` it makes one of 0."""
    for text, expected in ((CONTRACT, "zero"), (f"{CONTRACT}[document]\nzero = true", "issued")):
        life = live(text)
        life.report(used(1_000_000, tier="free"))
        assert close(life, "2026-10")[0] == expected


def test_close__an_earlier_open_month_with_usage_holds_up() -> None:
    """November waits until October is closed."""
    life = live()
    life.report(used(1_000_000), used(1_000_000, day="2026-11-05"))
    assert close(life, "2026-11") == ("held earlier", None)


def test_close__without_a_price_is_held() -> None:
    """A tier that the book does not know holds the invoice."""
    life = live()
    life.report(used(1_000_000, tier="unheard"))
    assert close(life, "2026-10") == ("held", None)


def test_credit__is_not_clawed_back_by_late_usage() -> None:
    """A dollar off the line stays off, whatever comes late."""
    life = live()
    life.report(used(1_000_000))
    _, document = close(life, "2026-10")
    assert document is not None
    note = life.credit(document, 1, amount=Fraction(1))
    assert (note.net, life.left(document, 1)) == (Fraction(-1), Fraction(2))
    life.report(used(1_000_000))
    _, later = close(life, "2026-11")
    assert later is not None
    assert tokens_and_cents(later.lines) == [(1_000_000, 300)]


def test_void__is_issued_again_by_all_usage_now() -> None:
    """An invoice that was taken back is 0 with its credit note; the new one has what came late."""
    life = live(f'{CONTRACT}[tax]\ncategory = "S"\nrate = "19"')
    life.report(used(1_000_000))
    _, first = close(life, "2026-10")
    assert first is not None
    note = life.void(first)
    assert first.total + note.total == 0
    assert first.total == Fraction("3.57")
    life.report(used(1_000_000))
    _, second = close(life, "2026-10")
    assert second is not None
    assert (second.net, second.replaces) == (Fraction(6), first.index)


def test_correct__new_terms_of_a_closed_month_are_the_difference() -> None:
    """At 2 instead of 3 dollars a million goes back as 3 and comes again as 2."""
    life = live()
    life.report(used(1_000_000))
    _, first = close(life, "2026-10")
    assert first is not None
    life.set_contract(f'{CONTRACT}[[overrides]]\nmodels = ["m"]\nprices = {{ all = "2" }}')
    document = life.correct(first.period, write_off=False)
    assert document is not None
    assert (document.kind, document.net, document.refers_to) == (
        "credit_note",
        Fraction(-1),
        first.index,
    )
    assert sorted(tokens_and_cents(document.lines)) == [(-1_000_000, -300), (1_000_000, 200)]
    assert life.correct(first.period, write_off=False) is None


def test_correct__what_is_written_off_is_not_billed_later() -> None:
    """A write-off is 0, and its tokens count as billed."""
    life = live()
    life.report(used(1_000_000))
    _, first = close(life, "2026-10")
    assert first is not None
    life.report(used(1_000_000))
    document = life.correct(first.period, write_off=True)
    assert document is not None
    assert (document.kind, document.net) == ("write_off", Fraction())
    assert close(life, "2026-11") == ("no usage", None)


def test_close__splits_by_the_account_below_what_is_covered() -> None:
    """Half a cent of each of two accounts is a cent each, on lines of their own."""
    life = live(f'{CONTRACT}[document]\ngroup_by = "account"')
    life.report(used(1_700), used(1_700, account="lab"))
    _, document = close(life, "2026-10")
    assert document is not None
    assert [it.key.group for it in document.lines] == ["acme", "lab"]
    assert document.net == Fraction("0.02")


def test_close__charges_bear_taxes_of_their_own() -> None:
    """744 GPU hours at 2.50 are 1,860; taxes are of the sums by category."""
    life = live(
        f'{CONTRACT}[tax]\ncategory = "S"\nrate = "19"\n[[charges]]\nid = "gpu"\ntext = "GPU"\n'
        'unit = "hour"\nquantity = "744"\nprice = "2.50"\nevery = "month"\n'
        'tax = { category = "Z" }'
    )
    life.report(used(1_000_000))
    _, document = close(life, "2026-10")
    assert document is not None
    assert document.taxes == {
        Tax("S", Fraction(19)): (Fraction(3), Fraction("0.57")),
        Tax("Z", Fraction(0)): (Fraction(1860), Fraction(0)),
    }
    assert document.total == Fraction("1863.57")


def test_stories__are_the_same_for_a_seed() -> None:
    """A story that fails can be told again."""
    assert random_story(7) == random_story(7)
    assert random_story(7) != random_story(8)
