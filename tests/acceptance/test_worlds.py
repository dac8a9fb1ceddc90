"""Random worlds: the oracle's two ways to price them agree, and they reach what can go wrong."""

from collections import defaultdict
from fractions import Fraction

import pytest

from tests.acceptance.oracle_bills import LineKey, Period, bill, line_key, price_event, to_event
from tests.acceptance.reach import reach
from tests.acceptance.worlds import random_world, terms_of

REACHED = {
    *("clock change", "month without a midnight", "month with two midnights", "price change"),
    *("month's first instant", "month's last instant", "contract change", "moved account"),
    *("nested contracts", "uncovered", "unpriced", "override price", "override factor", "key"),
    *("alias", "pattern", "class", "same", "all", "band above", "tier price", "tier factor"),
    *("mode factor", "window factor", "window past midnight", "served model", "zero price"),
    *("no coins", "three digits", "tie"),
}


def test_bill__as_its_events() -> None:
    """In random worlds each line is the sum of its events, priced one by one with nothing kept."""
    for seed in range(300):
        world = random_world(seed)
        terms, events = terms_of(world), [to_event(truth) for truth in world.events]
        bills = bill(events, terms=terms, month=world.month)
        exact: dict[tuple[Period, LineKey], Fraction] = defaultdict(Fraction)
        unpriced = 0
        for event in events:
            for rated in price_event(event, terms=terms) or ():
                if rated.month != world.month:
                    continue
                if rated.price is None:
                    unpriced += rated.quantity
                    continue
                key = line_key(rated.key, price=rated.price, setting=rated.setting)
                exact[rated.period, key] += rated.quantity * rated.price.unit / 1_000_000
        assert exact == {
            (period, key): line.exact
            for period, invoice in bills.invoices.items()
            for key, line in invoice.lines.items()
        }, seed
        assert bills.unpriced.total() == unpriced, seed


def test_random_world__same_for_a_seed() -> None:
    """A seed is a world; another seed is another one."""
    assert random_world(7) == random_world(7)
    assert random_world(7) != random_world(8)


@pytest.mark.stacks
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_random_world__reach() -> None:
    """Two thousand worlds meet each thing that a bill can get wrong, and more than a few times."""
    counts = reach(range(2_000))
    assert counts.keys() == REACHED
    assert min(counts.values()) >= 10, counts.most_common()[-3:]
