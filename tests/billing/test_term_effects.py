"""What other terms change: told on real usage, and never done to what was billed unasked."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

import pytest

from billing.errors import BillingReason
from billing.periods import read_month
from billing.ports import Terms
from billing.setting_terms import SettingTerms
from billing.term_effects import TermsEffect
from meter.domain.errors import InvalidArgument, Refused
from tests.billing.store.test_terms import ms
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on

OCTOBER, NOVEMBER = read_month("2026-10"), read_month("2026-11")
DEAR = book_toml('all = "5"', start="2026-10-15T00:00:00")


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in mid-November: acme with a team below, and other; acme pays 3 a million."""
    with town_on(database_url, now_ms=ms("2026-11-15")) as town:
        town.add_account("acme")
        town.add_account("team", moves=((0, "acme"),))
        town.add_account("other")
        town.import_book(book_toml())
        town.set_contract(contract_toml(zone="UTC"))
        yield town


def use(town: Town, account: str, day: str, *, count: int = 1_000_000) -> None:
    """Record input tokens that were used then."""
    town.record(TownEvent(account=account, end_ms=ms(day), classes={"input": count}))


def close_october(town: Town) -> str:
    """Close October; return the number of acme's invoice."""
    town.billing.closing.close_month(OCTOBER, account_id=None, dry_run=False)
    ((number,),) = town.ask("SELECT number FROM invoices WHERE contract = 'acme-2026'")
    return str(number)


def told(effects: Sequence[TermsEffect]) -> list[tuple[str, str, str, str, bool]]:
    """What effects say, in short."""
    return [
        (it.contract, str(it.month), str(it.before), str(it.after), it.is_closed) for it in effects
    ]


def test_preview_book__open_months(town: Town) -> None:
    """Prices that begin in an open month are told by contract and month, and change nothing."""
    use(town, "acme", "2026-10-10")
    use(town, "acme", "2026-10-20")
    use(town, "acme", "2026-11-02")
    version = town.billing.terms.load().version
    effects = town.billing.setting.preview_book(DEAR)
    assert told(effects) == [
        ("acme-2026", "2026-10", "6.00", "8.00", False),
        ("acme-2026", "2026-11", "3.00", "5.00", False),
    ]
    assert [it.difference for it in effects] == [2, 2]
    assert town.billing.terms.load().version == version
    assert told(town.import_book(DEAR).effects) == told(effects)
    assert town.billing.setting.preview_book(DEAR) == ()


def test_preview_book__has_not_begun(town: Town) -> None:
    """Prices of tomorrow change nothing that has begun."""
    use(town, "acme", "2026-11-14")
    later = book_toml('all = "5"', start="2026-11-16T00:00:00")
    assert town.billing.setting.preview_book(later) == ()
    assert town.import_book(later).effects == ()


def test_preview_book__of_nobody(town: Town) -> None:
    """A book that no contract has changes nothing, and so does one between two versions alike."""
    use(town, "acme", "2026-10-20")
    town.import_book(book_toml('all = "4"', start="2026-10-18T00:00:00"))
    effects = town.billing.setting.preview_book(DEAR)
    # It is in force from the 15th to the 18th alone, when nothing was used.
    assert effects == ()
    assert town.billing.setting.preview_book(book_toml(book="unused")) == ()


def test_import_book__closed_month(town: Town) -> None:
    """Prices by which an invoice would come to another amount are refused, with the way out."""
    use(town, "acme", "2026-10-20")
    number = close_october(town)
    effects = town.billing.setting.preview_book(DEAR)
    assert told(effects) == [("acme-2026", "2026-10", "3.00", "5.00", True)]
    assert effects[0].numbers == (number,)
    with pytest.raises(Refused) as error:
        town.import_book(DEAR)
    assert error.value.reason is BillingReason.PERIOD_ISSUED
    for words in (number, "2026-10", "3.00 USD", "5.00", "--dry-run", "--correct"):
        assert words in error.value.message
    assert len(town.billing.terms.load().books.versions("list")) == 1


def test_import_book__closed_month_of_the_same_amount(town: Town) -> None:
    """Prices of which nothing was used in a closed month are taken in."""
    use(town, "acme", "2026-10-10")
    close_october(town)
    assert town.import_book(DEAR).effects == ()


def test_import_book__what_came_late_is_no_effect(town: Town) -> None:
    """Usage that came after a close is the next invoice's, whatever terms are taken in."""
    use(town, "acme", "2026-10-10")
    close_october(town)
    use(town, "acme", "2026-10-12", count=5_000_000)
    assert town.import_book(DEAR).effects == ()


def test_set_contract__words_alone(town: Town) -> None:
    """An order number or address changes no amount, and is taken in whatever was billed."""
    use(town, "acme", "2026-10-10")
    close_october(town)
    taken = town.set_contract(contract_toml(zone="UTC", extra='po = "7"\n'))
    assert (taken.is_new, taken.effects) == (True, ())


def test_set_contract__closed_month(town: Town) -> None:
    """Terms set anew that would change an invoice are refused; begun after it, they are taken."""
    use(town, "acme", "2026-10-10")
    number = close_october(town)
    discount = '[[overrides]]\nfactor = "0.5"\n'
    with pytest.raises(Refused, match=number):
        town.set_contract(contract_toml(zone="UTC", extra=discount))
    taken = town.set_contract(
        contract_toml(zone="UTC", start="2026-11-01T00:00:00", extra=discount)
    )
    assert taken.effects == ()


def test_set_contract__takes_usage_from_the_one_above(town: Town) -> None:
    """A contract for a team takes its usage out of the one above: both are told."""
    use(town, "acme", "2026-11-02")
    use(town, "team", "2026-11-03")
    below = contract_toml(
        "of-team", covers="team", zone="UTC", start="2026-11-01T00:00:00", series="TE"
    )
    assert told(town.billing.setting.preview_contract(below)) == [
        ("acme-2026", "2026-11", "6.00", "3.00", False),
        ("of-team", "2026-11", "0", "3.00", False),
    ]


def test_set_contract__takes_usage_from_an_invoice(town: Town) -> None:
    """A contract below cannot take out of the one above what an invoice has billed."""
    use(town, "team", "2026-10-10")
    number = close_october(town)
    below = contract_toml("of-team", covers="team", zone="UTC", series="TE")
    with pytest.raises(Refused, match=number):
        town.set_contract(below)
    later = contract_toml(
        "of-team", covers="team", zone="UTC", series="TE", start="2026-11-01T00:00:00"
    )
    assert town.set_contract(later).is_new


def test_set_contract__ends_earlier(town: Town) -> None:
    """A contract that is to end earlier bills nothing that was used afterwards."""
    use(town, "acme", "2026-11-10")
    ended = contract_toml(zone="UTC", until="2026-11-05T00:00:00")
    assert told(town.set_contract(ended).effects) == [("acme-2026", "2026-11", "3.00", "0", False)]


def test_preview_contract__charges_and_unpriced_tokens(town: Town) -> None:
    """Charges count in each open month, and tokens that would have no price are told."""
    use(town, "acme", "2026-11-10")
    charge = '[[charges]]\nid = "fee"\ntext = "Fee"\nprice = "10"\nevery = "month"\n'
    assert told(town.billing.setting.preview_contract(contract_toml(zone="UTC", extra=charge))) == [
        ("acme-2026", "2026-10", "0", "10.00", False),
        ("acme-2026", "2026-11", "3.00", "13.00", False),
    ]
    town.import_book(book_toml('output = "1"', book="thin"))
    (effect,) = town.billing.setting.preview_contract(contract_toml(zone="UTC", book="thin"))
    assert (effect.after, effect.unpriced_tokens) == (0, 1_000_000)


def test_import_book__a_month_closed_meanwhile(town: Town) -> None:
    """What is closed between the look and the change is seen before the change is kept."""
    use(town, "acme", "2026-10-20")
    terms, setting = town.billing.terms, town.billing.setting

    class ClosesFirst:
        """Terms that somebody closes a month by before they are changed."""

        def __getattr__(self, name: str) -> object:
            return getattr(terms, name)

        def add_book(self, *args: object, **kwargs: object) -> object:
            close_october(town)
            return terms.add_book(*args, **kwargs)  # type: ignore[arg-type]

    late = SettingTerms(
        terms=ClosesFirst(),  # type: ignore[arg-type]
        effects=setting.effects,
        correct=setting.correct,
        clock=setting.clock,
    )
    with pytest.raises(Refused) as error:
        late.import_book(DEAR, key_id="key_1", correct_issued=False)
    assert error.value.reason is BillingReason.PERIOD_ISSUED


def test_diff_prices__who_pays_more(town: Town) -> None:
    """Two versions are laid on a month's usage: each contract's difference, and the sum."""
    town.set_contract(contract_toml("of-other", covers="other", zone="UTC", series="OT"))
    use(town, "acme", "2026-10-10")
    use(town, "other", "2026-10-20", count=3_000_000)
    read = town.billing.terms.read_book
    diff = town.billing.setting.diff_prices(
        read(book_toml()), read(book_toml('all = "2.5"', book="new")), month=OCTOBER
    )
    assert told(diff.effects) == [
        ("acme-2026", "2026-10", "3.00", "2.50", False),
        ("of-other", "2026-10", "9.00", "7.50", False),
    ]
    (total,) = diff.totals
    assert (total.before, total.after, total.difference) == (
        *(Decimal("12.00"), Decimal("10.00"), Decimal("-2.00")),
    )
    nothing = town.billing.setting.diff_prices(
        read(book_toml()), read(book_toml('all = "2.5"')), month=NOVEMBER
    )
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
    terms = town.billing.terms
    first = terms.load()
    town.import_book(DEAR)
    town.set_contract(contract_toml(zone="UTC", extra='po = "7"\n'))
    now = terms.load()
    then: Terms = terms.load(first.version)
    assert (then.version, now.version) == (first.version, first.version + 2)
    for it in (first, then):
        assert len(it.books.versions("list")) == 1
        assert [version.po for version in it.contracts] == [""]
    assert len(now.books.versions("list")) == 2
    assert [version.po for version in now.contracts] == ["7"]
    assert then.digests == first.digests
    assert then.digests != now.digests
