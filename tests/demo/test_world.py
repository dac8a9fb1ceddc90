"""The demo's world: one that its own rules hold in, and that the product takes in."""

from datetime import UTC, date, datetime, timedelta

import pytest

from billing.book_file import read_book
from billing.contract_file import read_contract
from cli.demo.teams import AUCKLAND, BERLIN, LATENCY, LOS_ANGELES, RESEARCH_QUOTA, THROUGHPUT, TIERS
from cli.demo.world import (
    BEGIN,
    BOARDS,
    BOOKS,
    CLOCK_CHANGE,
    CUSTOMERS,
    END,
    FACTORY,
    KILL,
    MONTH,
    MOVE,
    NEW_BOOK,
    PREVIEW,
    PRICE_CHANGE,
    PRICE_IMPORT,
    SERVERS,
    TEAMS,
    day_span,
    find_payer,
    month_span,
    read_terms,
    to_ms,
)
from meter.energy.factory_file import read_factory


@pytest.mark.parametrize("name", [*BOOKS, NEW_BOOK])
def test_book__is_taken_in(name: str) -> None:
    """Each book is one that the product imports."""
    book = read_book(read_terms(name), tiers=TIERS)
    assert book.book in {customer.book for customer in CUSTOMERS}
    assert book.start_ms == to_ms(PRICE_CHANGE) or book.start_ms < to_ms(BEGIN)


@pytest.mark.parametrize("name", [customer.account for customer in CUSTOMERS])
def test_contract__is_taken_in(name: str) -> None:
    """Each contract is one that the product sets, for its customer and months."""
    customer = next(it for it in CUSTOMERS if it.account == name)
    dollars = read_book(read_terms(NEW_BOOK), tiers=TIERS).currency
    contract = read_contract(
        read_terms(name),
        tiers=TIERS,
        find_account=lambda written, _: written,
        find_currency_of_book=lambda _: dollars,
    )
    assert contract.covers == (name,)
    assert contract.zone == customer.zone
    assert contract.book == customer.book
    assert contract.start_ms == to_ms(month_span(customer.zone)[0])


def test_factory__is_taken_in() -> None:
    """The description is one that the product sets, of all boards, from the clock's begin on."""
    factory = read_factory(read_terms(FACTORY), version=1, tiers=TIERS)
    assert factory.start_ms == to_ms(BEGIN)
    assert {name: (pool.device_count, pool.idle_mw) for name, pool in factory.pools.items()} == {
        name: (boards.count, boards.idle_watts * 1_000) for name, boards in BOARDS.items()
    }
    peak_watts = sum(boards.count * boards.peak_watts for boards in BOARDS.values())
    (site,) = factory.sites.values()
    assert site.pue is not None
    assert peak_watts * site.pue < site.contracted_watts


def test_team__has_prices_a_pool_and_a_share() -> None:
    """Teams ask for models that their customer's book prices, on pools with servers and boards."""
    books = {read_book(read_terms(it), tiers=TIERS).book: it for it in BOOKS}
    for customer in CUSTOMERS:
        book = read_book(read_terms(books[customer.book]), tiers=TIERS)
        assert all(book.find_model(team.model) for team in customer.teams)
    assert {team.pool for team in TEAMS} == set(SERVERS) == set(BOARDS) == {THROUGHPUT, LATENCY}
    assert sum(team.permille for team in TEAMS) == 1_000


def test_quota__has_a_price_in_whole_cents() -> None:
    """A day's tokens of each class at $150 per million have no fraction of a cent."""
    assert all(tokens * 150 * 100 % 1_000_000 == 0 for tokens in RESEARCH_QUOTA.values())
    assert sum(RESEARCH_QUOTA.values()) == 50_000_000


def test_month__is_lived_through_whole() -> None:
    """The clock begins before the first October and ends with the last one."""
    spans = [month_span(customer.zone) for customer in CUSTOMERS]
    assert min(begin for begin, _ in spans) >= BEGIN
    assert max(end for _, end in spans) == END
    assert month_span(BERLIN) == (
        datetime(2026, 9, 30, 22, tzinfo=UTC),
        datetime(2026, 10, 31, 23, tzinfo=UTC),
    )


def test_day__is_as_long_as_its_clocks_say() -> None:
    """The day on which Berlin's clocks go back has 25 hours, others have 24."""
    begin, end = day_span(CLOCK_CHANGE.date(), BERLIN)
    assert end - begin == timedelta(hours=25)
    assert begin < CLOCK_CHANGE < end
    begin, end = day_span(date(2026, 10, 24), BERLIN)
    assert end - begin == timedelta(hours=24)


def test_dates__come_in_their_order() -> None:
    """Prices are known before they hold, the preview is before the kill, and all is in October."""
    dates = [PRICE_IMPORT, PREVIEW, KILL]
    assert dates == sorted(dates)
    assert {f"{it:%Y-%m}" for it in dates} == {MONTH}
    assert PRICE_CHANGE.date() > PRICE_IMPORT
    assert day_span(PRICE_CHANGE.date(), LOS_ANGELES)[0] == PRICE_CHANGE


def test_payer__moves_with_the_team() -> None:
    """A team's requests are its old customer's until it moves, and always in both Octobers."""
    move_ms = to_ms(MOVE.time)
    assert MOVE.time == day_span(date(2026, 10, 20), AUCKLAND)[0]
    assert find_payer(MOVE.account, at_ms=move_ms - 1) == "auckland"
    assert find_payer(MOVE.account, at_ms=move_ms) == MOVE.parent == "los-angeles"
    assert find_payer("research", at_ms=move_ms) == "research"
    # Its own October ends while the new customer's still goes on.
    assert month_span(AUCKLAND)[1] < month_span(LOS_ANGELES)[1]
    assert month_span(LOS_ANGELES)[0] < MOVE.time
