"""What other terms change: told on real usage, and never done to what was billed unasked."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import NoReturn

import pytest

from billing.errors import BillingReason
from billing.periods import read_month
from billing.setting_terms import BookTaken, ContractTaken
from billing.term_effects import TermsEffect
from meter.domain.errors import InvalidArgument, Reason, Refused, Unavailable
from tests.billing.store.test_terms import ms
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on
from tests.postgres import Cluster

OCTOBER, NOVEMBER = read_month("2026-10"), read_month("2026-11")
DEAR = 'all = "5"'
MIDDLE = "2026-10-15T00:00:00"


@pytest.fixture(scope="module")
def town(cluster: Cluster) -> Iterator[Town]:
    """A town in mid-November that all tests here share; each has a house of its own."""
    with cluster.database() as url, town_on(url, now_ms=ms("2026-11-15")) as town:
        yield town


class House:
    """An account with a team below, its book at 3 a million and its contract, all of one name."""

    def __init__(self, town: Town, name: str) -> None:
        self.town, self.name, self.team = town, name, f"{name}-team"
        self.setting = town.billing.setting
        town.add_account(name)
        town.add_account(self.team, moves=((0, name),))
        town.import_book(self.book())
        town.set_contract(self.contract())

    def book(self, *prices: str, start: str = "2026-01-01T00:00:00") -> str:
        """A version of the book."""
        return book_toml(*prices, book=self.name, start=start)

    def contract(self, extra: str = "", *, start: str = "", until: str = "") -> str:
        """A version of the contract."""
        return contract_toml(
            self.name,
            covers=self.name,
            zone="UTC",
            book=self.name,
            series=self.name.upper(),
            start=start or "2026-10-01T00:00:00",
            until=until,
            extra=extra,
        )

    def below(self, *, start: str) -> str:
        """A contract for the team."""
        return contract_toml(
            self.team,
            covers=self.team,
            zone="UTC",
            book=self.name,
            series=self.team.upper(),
            start=start,
        )

    def use(self, day: str, *, count: int = 1_000_000, by_team: bool = False) -> None:
        """Record input tokens that were used then."""
        account = self.team if by_team else self.name
        self.town.record(TownEvent(account=account, end_ms=ms(day), classes={"input": count}))

    def close(self) -> str:
        """Close October; return the number of the invoice."""
        self.town.billing.closing.close_month(OCTOBER, account_id=self.name, dry_run=False)
        question = f"SELECT number FROM invoices WHERE contract = '{self.name}'"
        ((number,),) = self.town.ask(question)
        return str(number)

    def take_book(self, toml: str, *, correct: bool = False) -> BookTaken:
        """Take in a version of a book."""
        return self.town.import_book(toml, correct=correct)

    def take_contract(self, toml: str, *, correct: bool = False) -> ContractTaken:
        """Take in a version of a contract."""
        return self.town.set_contract(toml, correct=correct)


def told(effects: Sequence[TermsEffect]) -> list[tuple[str, str, str, str, bool]]:
    """What effects say, in short."""
    return [
        (it.contract, str(it.month), str(it.before), str(it.after), it.is_closed) for it in effects
    ]


def test_preview_book__open_months(town: Town) -> None:
    """Prices that begin in an open month are told by contract and month, and change nothing."""
    house = House(town, "openly")
    for day in ("2026-10-10", "2026-10-20", "2026-11-02"):
        house.use(day)
    dear = house.book(DEAR, start=MIDDLE)
    version = town.billing.terms.load().version
    effects = house.setting.preview_book(dear)
    assert told(effects) == [
        ("openly", "2026-10", "6.00", "8.00", False),
        ("openly", "2026-11", "3.00", "5.00", False),
    ]
    assert [it.difference for it in effects] == [2, 2]
    assert town.billing.terms.load().version == version
    assert told(house.take_book(dear).effects) == told(effects)
    assert house.setting.preview_book(dear) == ()


def test_preview_book__has_not_begun(town: Town) -> None:
    """Prices of tomorrow change nothing that has begun."""
    house = House(town, "later")
    house.use("2026-11-14")
    later = house.book(DEAR, start="2026-11-16T00:00:00")
    assert house.setting.preview_book(later) == ()
    assert house.take_book(later).effects == ()


def test_preview_book__of_nobody(town: Town) -> None:
    """A book that nobody has changes nothing, nor a version of a time when nothing was used."""
    house = House(town, "nobody")
    house.use("2026-10-20")
    house.take_book(house.book('all = "4"', start="2026-10-18T00:00:00"))
    assert house.setting.preview_book(house.book(DEAR, start=MIDDLE)) == ()
    assert house.setting.preview_book(book_toml(book="unused")) == ()


def test_import_book__closed_month(town: Town) -> None:
    """Prices by which an invoice would come to another amount are refused, with the way out."""
    house = House(town, "closed")
    house.use("2026-10-20")
    number = house.close()
    dear = house.book(DEAR, start=MIDDLE)
    effects = house.setting.preview_book(dear)
    assert told(effects) == [("closed", "2026-10", "3.00", "5.00", True)]
    assert effects[0].numbers == (number,)
    with pytest.raises(Refused) as error:
        house.take_book(dear)
    assert error.value.reason is BillingReason.PERIOD_ISSUED
    for words in (number, "2026-10", "3.00 USD", "5.00", "--dry-run", "--correct"):
        assert words in error.value.message
    assert len(town.billing.terms.load().books.versions("closed")) == 1


def test_import_book__corrects_what_was_billed(town: Town) -> None:
    """Where that is wanted, the difference is issued at once, and nothing is left of it."""
    house = House(town, "dearer")
    house.use("2026-10-20")
    number = house.close()
    dear = house.book(DEAR, start=MIDDLE)
    taken = house.take_book(dear, correct=True)
    assert told(taken.effects) == [("dearer", "2026-10", "3.00", "5.00", True)]
    (document,) = taken.corrections
    assert (document.kind.value, str(document.net)) == ("supplementary_invoice", "2.00")
    assert document.reason == "New prices of dearer"
    assert number != (document.issue and document.issue.number)
    again = house.take_book(dear, correct=True)
    assert (again.is_new, again.corrections) == (False, ())


def test_set_contract__corrects_what_was_billed(town: Town) -> None:
    """A discount for a month that was billed is given back as a credit note."""
    house = House(town, "cheaper")
    house.use("2026-10-20")
    house.close()
    discount = house.contract('[[overrides]]\nfactor = "0.5"\n')
    taken = house.take_contract(discount, correct=True)
    (document,) = taken.corrections
    assert (document.kind.value, document.net) == ("credit_note", Decimal("-1.50"))


def test_import_book__stopped_before_it_corrects(town: Town) -> None:
    """Terms that were kept stay when their corrections fail; what is left over is issued later."""
    house = House(town, "stopped")
    house.use("2026-10-20")
    house.close()

    def stop(*_: object, **__: object) -> NoReturn:
        raise Unavailable(Reason.STORE_UNAVAILABLE, "Gone.")

    stopped = replace(house.setting, correct=stop)
    dear = house.book(DEAR, start=MIDDLE)
    with pytest.raises(Unavailable):
        stopped.import_book(dear, key_id="key_1", correct_issued=True)
    assert not house.take_book(dear).is_new
    correct = house.setting.correct
    (document,) = correct("stopped", OCTOBER, reason="New prices", key_id="key_1")
    assert document.net == 2
    assert correct("stopped", OCTOBER, reason="New prices", key_id="key_1") == ()


def test_import_book__closed_month_of_the_same_amount(town: Town) -> None:
    """Prices of which nothing was used in a closed month are taken in."""
    house = House(town, "same")
    house.use("2026-10-10")
    house.close()
    assert house.take_book(house.book(DEAR, start=MIDDLE)).effects == ()


def test_import_book__what_came_late_is_no_effect(town: Town) -> None:
    """Usage that came after a close is the next invoice's, whatever terms are taken in."""
    house = House(town, "late")
    house.use("2026-10-10")
    house.close()
    house.use("2026-10-12", count=5_000_000)
    assert house.take_book(house.book(DEAR, start=MIDDLE)).effects == ()


def test_set_contract__words_alone(town: Town) -> None:
    """An order number or address changes no amount, and is taken in whatever was billed."""
    house = House(town, "words")
    house.use("2026-10-10")
    house.close()
    taken = house.take_contract(house.contract('po = "7"\n'))
    assert (taken.is_new, taken.effects) == (True, ())


def test_set_contract__closed_month(town: Town) -> None:
    """Terms set anew that would change an invoice are refused; begun after it, they are taken."""
    house = House(town, "anew")
    house.use("2026-10-10")
    number = house.close()
    discount = '[[overrides]]\nfactor = "0.5"\n'
    with pytest.raises(Refused, match=number):
        house.take_contract(house.contract(discount))
    later = house.contract(discount, start="2026-11-01T00:00:00")
    assert house.take_contract(later).effects == ()


def test_set_contract__takes_usage_from_the_one_above(town: Town) -> None:
    """A contract for a team takes its usage out of the one above: both are told."""
    house = House(town, "above")
    house.use("2026-11-02")
    house.use("2026-11-03", by_team=True)
    below = house.below(start="2026-11-01T00:00:00")
    assert told(house.setting.preview_contract(below)) == [
        ("above", "2026-11", "6.00", "3.00", False),
        ("above-team", "2026-11", "0", "3.00", False),
    ]


def test_set_contract__takes_usage_from_an_invoice(town: Town) -> None:
    """A contract below cannot take out of the one above what an invoice has billed."""
    house = House(town, "taken")
    house.use("2026-10-10", by_team=True)
    number = house.close()
    with pytest.raises(Refused, match=number):
        house.take_contract(house.below(start="2026-10-01T00:00:00"))
    assert house.take_contract(house.below(start="2026-11-01T00:00:00")).is_new


def test_set_contract__ends_earlier(town: Town) -> None:
    """What is used after a contract's end, set earlier, is billed by the one above, or nobody."""
    house = House(town, "ended")
    below = house.below(start="2026-10-01T00:00:00")
    house.take_contract(below)
    house.use("2026-11-10", by_team=True)
    house.use("2026-11-10", count=2_000_000)
    ended = below.replace("zone =", "until = 2026-11-05T00:00:00\nzone =")
    assert told(house.take_contract(ended).effects) == [
        ("ended", "2026-11", "6.00", "9.00", False),
        ("ended-team", "2026-11", "3.00", "0", False),
    ]
    taken = house.take_contract(house.contract(until="2026-11-05T00:00:00"))
    assert told(taken.effects) == [("ended", "2026-11", "9.00", "0", False)]


def test_set_contract__in_another_zone(town: Town) -> None:
    """A month of another zone has other periods; only what moves from one to the other is told."""
    house = House(town, "zone")
    house.use("2026-10-10")
    auckland = house.contract().replace('"UTC"', '"Pacific/Auckland"')
    begun = auckland.replace("2026-10-01T00", "2026-10-01T13")
    assert told(house.setting.preview_contract(begun)) == []
    house.use("2026-10-31T23:00:00", count=2_000_000)
    assert told(house.setting.preview_contract(begun)) == [
        ("zone", "2026-10", "9.00", "3.00", False),
        ("zone", "2026-11", "0", "6.00", False),
    ]


def test_preview_contract__charges_and_unpriced_tokens(town: Town) -> None:
    """Charges count in each open month, and tokens that would have no price are told."""
    house = House(town, "charged")
    house.use("2026-11-10")
    charge = '[[charges]]\nid = "fee"\ntext = "Fee"\nprice = "10"\nevery = "month"\n'
    assert told(house.setting.preview_contract(house.contract(charge))) == [
        ("charged", "2026-10", "0", "10.00", False),
        ("charged", "2026-11", "3.00", "13.00", False),
    ]
    town.import_book(book_toml('output = "1"', book="thin"))
    thin = house.contract().replace('book = "charged"', 'book = "thin"')
    (effect,) = house.setting.preview_contract(thin)
    assert (str(effect.after), effect.unpriced_tokens) == ("0", 1_000_000)


def test_import_book__a_month_closed_meanwhile(town: Town) -> None:
    """What is closed between the look and the change is seen before the change is kept."""
    house = House(town, "meanwhile")
    house.use("2026-10-20")
    terms = town.billing.terms

    class ClosesFirst:
        """Terms that somebody closes a month by before they are changed."""

        def __getattr__(self, name: str) -> object:
            return getattr(terms, name)

        def add_book(self, *args: object, **kwargs: object) -> object:
            house.close()
            return terms.add_book(*args, **kwargs)  # type: ignore[arg-type]

    late = replace(house.setting, terms=ClosesFirst())  # type: ignore[arg-type]
    with pytest.raises(Refused) as error:
        late.import_book(house.book(DEAR, start=MIDDLE), key_id="key_1", correct_issued=False)
    assert error.value.reason is BillingReason.PERIOD_ISSUED


def test_diff_prices__who_pays_more(town: Town) -> None:
    """Two versions are laid on a month's usage: each contract's difference, and the sum."""
    house = House(town, "payer")
    house.use("2026-10-10")
    house.use("2026-10-20", count=3_000_000, by_team=True)
    house.take_contract(house.below(start="2026-10-01T00:00:00"))
    read = town.billing.terms.read_book
    cheap = read(book_toml('all = "2.5"', book="new"))
    diff = house.setting.diff_prices(read(house.book()), cheap, month=OCTOBER)
    assert told(diff.effects) == [
        ("payer", "2026-10", "3.00", "2.50", False),
        ("payer-team", "2026-10", "9.00", "7.50", False),
    ]
    (total,) = diff.totals
    assert (total.before, total.after, total.difference) == (
        *(Decimal("12.00"), Decimal("10.00"), Decimal("-2.00")),
    )
    nothing = house.setting.diff_prices(read(house.book()), cheap, month=NOVEMBER)
    assert (nothing.effects, nothing.totals) == ((), ())


def test_diff_prices__two_currencies(town: Town) -> None:
    """Amounts in two currencies are not compared."""
    read = town.billing.terms.read_book
    with pytest.raises(InvalidArgument, match="USD"):
        town.billing.setting.diff_prices(
            read(book_toml()), read(book_toml().replace("USD", "EUR")), month=OCTOBER
        )


def test_load__terms_of_then(town: Town) -> None:
    """Terms are read as they were at a version: books, contracts and their revisions."""
    house = House(town, "then")
    terms = town.billing.terms
    first = terms.load()
    house.take_book(house.book(DEAR, start=MIDDLE))
    house.take_contract(house.contract('po = "7"\n'))
    now, then = terms.load(), terms.load(first.version)
    assert (then.version, now.version) == (first.version, first.version + 2)
    for it in (first, then):
        assert len(it.books.versions("then")) == 1
        assert [version.po for version in it.contracts.versions("then")] == [""]
    assert len(now.books.versions("then")) == 2
    assert [version.po for version in now.contracts.versions("then")] == ["7"]
    assert then.digests == first.digests
    assert then.digests != now.digests
