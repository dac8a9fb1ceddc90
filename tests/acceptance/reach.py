"""What random worlds reach: in how many of them events meet each thing a bill can get wrong."""

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final
from zoneinfo import ZoneInfo

from tests.acceptance.oracle_accounts import parent_at
from tests.acceptance.oracle_bills import (
    EXPONENTS,
    Bills,
    Event,
    Rated,
    Terms,
    bill,
    interval_start_ms,
    price_event,
    to_event,
)
from tests.acceptance.oracle_terms import ContractVersion, month_span_ms, to_ms, wall_time
from tests.acceptance.worlds import World, random_world, terms_of

_DAY_MS: Final = 24 * 3600 * 1000


def reach(seeds: Iterable[int]) -> Counter[str]:
    """Count the worlds in which each thing is met."""
    return Counter(name for seed in seeds for name in met(random_world(seed)))


def met(world: World) -> set[str]:
    """Name what a world's events meet: steps of their prices, places, times and money."""
    terms = terms_of(world)
    # The same accounts, had none of them ever moved.
    tree = {it: account._replace(parents=account.parents[:1]) for it, account in world.tree.items()}
    unmoved = Terms(tree, books=terms.books, contracts=terms.contracts)
    found: set[str] = set()
    events = [to_event(truth) for truth in world.events]
    for event in events:
        payers = _payers(event, terms=terms)
        found |= {"moved account"} if payers[:1] != _payers(event, terms=unmoved)[:1] else set()
        found |= {"nested contracts"} if len(payers) > 1 else set()
        for rated in price_event(event, terms=terms) or ():
            if rated.month == world.month:
                found |= set(_met_by(event, rated=rated))
    return found | set(_met_by_bills(bill(events, terms=terms, month=world.month)))


def _payers(event: Event, *, terms: Terms) -> list[ContractVersion]:
    """Return the contracts that cover the event's account, the nearest first."""
    at_ms = interval_start_ms(event.end_ms)
    found: dict[ContractVersion, None] = {}
    place: str | None = event.account
    while place is not None:
        contract = terms.find_contract(place, at_ms=at_ms)
        found |= {contract: None} if contract else {}
        place = parent_at(terms.tree, place, at_ms=at_ms)
    return list(found)


def _met_by(event: Event, *, rated: Rated) -> Iterator[str]:
    contract, book, windows = rated.setting
    start_ms, end_ms = month_span_ms(rated.month, zone=contract.zone)
    changes = {
        "month's first instant": event.end_ms == start_ms,
        "month's last instant": event.end_ms == end_ms - 1,
        "clock change": (end_ms - start_ms) % _DAY_MS != 0,
        "month without a midnight": wall_time(start_ms, zone=contract.zone).hour > 0,
        "month with two midnights": _is_twice(start_ms, zone=contract.zone),
        "served model": contract.is_by_served and event.served_model not in {"", event.model},
        "no coins": EXPONENTS.get(contract.currency) == 0,
        "three digits": EXPONENTS.get(contract.currency) == 3,
    }
    yield from (name for name, is_met in changes.items() if is_met)
    if rated.price is None or book is None:
        return
    yield from rated.price.steps
    if rated.price.above:
        yield "band above"
    if not rated.price.unit:
        yield "zero price"
    wall = wall_time(interval_start_ms(event.end_ms), zone=book.zone)
    minute = wall.hour * 60 + wall.minute
    hours = [it for each in windows if each.name == rated.price.window for it in each.hours]
    if any(minute < end <= begin for begin, end in hours):
        yield "window past midnight"


def _met_by_bills(bills: Bills) -> Iterator[str]:
    if bills.unpriced:
        yield "unpriced"
    if bills.uncovered:
        yield "uncovered"
    for period, invoice in bills.invoices.items():
        if len({key.price_start_ms for key in invoice.lines}) > 1:
            yield "price change"
        if sum(other.contract == period.contract for other in bills.invoices) > 1:
            yield "contract change"
        half = Fraction(1, 2 * 10 ** EXPONENTS.get(invoice.currency, 2))
        if any(abs(line.residue) == half for line in invoice.lines.values()):
            yield "tie"


def _is_twice(at_ms: int, *, zone: ZoneInfo) -> bool:
    wall = wall_time(at_ms, zone=zone)
    return to_ms(wall.replace(tzinfo=zone, fold=1)) > at_ms
