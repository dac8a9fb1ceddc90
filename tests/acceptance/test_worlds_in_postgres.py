"""Random worlds lived through on a real Postgres: recorded, counted, cut, closed, and read back."""

import psycopg
import pytest

from billing.close_result import OPEN_OUTCOMES, Outcome
from billing.periods import read_month
from tests.acceptance.oracle import differences, read_invoices
from tests.acceptance.oracle_bills import Bills, Event, bill, price_event, to_event
from tests.acceptance.worlds import World, random_world, terms_of
from tests.billing.town import Town, TownEvent, town_on
from tests.postgres import Cluster

WORLDS = 120
PARTS = 40
_DAY_MS = 86_400_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    # All of them take minutes: a few are enough for everyday.
    [pytest.param(it, marks=[pytest.mark.stacks] if it else []) for it in range(PARTS)],
)
def test_world__closed_as_the_oracle_does(cluster: Cluster, part: int) -> None:
    """What is closed is what the oracle bills, what is held is what it cannot price."""
    for seed in range(part, WORLDS, PARTS):
        world = random_world(seed)
        with cluster.database() as url:
            faults = _live(world, url)
        assert not faults, f"seed {seed}: {faults}"


def _live(world: World, url: str) -> list[str]:
    """Live the world's month and close it; return what differs from the oracle."""
    terms = terms_of(world)
    events = [
        event
        for event in map(to_event, world.events)
        if any(it.month == world.month for it in price_event(event, terms=terms) or ())
    ]
    if not events:
        return []
    bills = bill(events, terms=terms, month=world.month)
    end_ms = max(event.end_ms for event in events) + 40 * _DAY_MS
    with town_on(url, now_ms=end_ms) as town:
        _settle(town, world)
        # Some of it comes late: after others were counted, and a cut was taken.
        half = len(events) // 2
        for part in (events[:half], events[half:]):
            if part:
                town.record(*map(_to_town, part))
            town.host.cuts.take_cut(now_ms=end_ms)
        result = town.billing.closing.close_month(
            read_month(world.month), account_id=None, dry_run=False
        )
    held = {
        (it.period.version.contract, it.period.span.start_ms)
        for it in result.closed
        if it.outcome in OPEN_OUTCOMES
    }
    outcomes = {it.outcome for it in result.closed}
    expected = {Outcome.ISSUED, Outcome.HELD_UNPRICED, Outcome.NO_USAGE, Outcome.ZERO}
    assert outcomes <= expected
    faults = [] if held == {tuple(it) for it in bills.held} else [f"held: {held}"]
    with psycopg.connect(url) as connection:
        invoices, wrong = read_invoices(connection, month=world.month)
    # What comes to nothing is no document, and may come with the next part of the month: stories
    # tell of that.
    silent = {it.period.version.contract for it in result.closed if it.outcome is Outcome.ZERO}
    issued = {
        it: invoice
        for it, invoice in bills.invoices.items()
        if it not in bills.held and it.contract not in silent
    }
    found = {it: invoice for it, invoice in invoices.items() if it.contract not in silent}
    return [*faults, *wrong, *differences(Bills(invoices=issued), invoices=found)]


def _settle(town: Town, world: World) -> None:
    for account_id, account in world.tree.items():
        town.add_account(account_id, handle=account.handle, moves=account.parents)
    for text in world.books:
        town.import_book(text)
    for text in world.contracts:
        town.set_contract(text)


def _to_town(event: Event) -> TownEvent:
    return TownEvent(**event._asdict())
