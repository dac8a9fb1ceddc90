"""What is counted comes to what an invoice would bill, whoever bills it and whenever it was."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from billing.metrics import BillingMetrics
from billing.periods import Span
from billing.revenue import Pricing, RevenueMeter, revenue_by_tier
from meter.counted import Counted, Sampled
from meter.domain.event import Dimensions
from meter.domain.tokens import FinishClass, TokenClass
from meter.series import Exposition
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town whose acme has a contract from the 10th on, at half the price from the 20th."""
    with town_on(database_url, now_ms=ms("2026-10-25")) as town:
        town.add_account("acme")
        town.add_account("other")
        town.import_book(book_toml('input = "4"'))
        town.set_contract(contract_toml(start="2026-10-10T00:00:00", zone="UTC"))
        town.set_contract(
            contract_toml(start="2026-10-20T00:00:00", zone="UTC")
            + '[[overrides]]\nmodels = ["llama-4"]\nfactor = "0.5"\n'
        )
        yield town


def meter_of(town: Town) -> tuple[RevenueMeter, CollectorRegistry]:
    """Return a meter of revenue, and where it notes what it hears."""
    registry = CollectorRegistry()
    metrics = BillingMetrics(Exposition(registry))
    return RevenueMeter(town.billing.terms, tree=town.host.tree, metrics=metrics), registry


def a_round() -> Counted:
    """Return a million tokens of two classes, of two accounts, on three days."""
    days = [ms(f"2026-10-{day}") for day in ("09", "15", "21")]
    millions = np.full(6, 1_000_000, np.int64)
    return Counted(
        dimension_id=np.array([1, 2] * 3, np.int64),
        interval_start_ms=np.repeat(np.array(days, np.int64), 2),
        band=np.zeros(6, np.int64),
        finish_class=np.full(6, FinishClass.DELIVERED, np.int64),
        tokens={TokenClass.INPUT: millions, TokenClass.OUTPUT: millions},
        request_count=np.ones(6, np.int64),
        dimensions={
            1: Dimensions("acme", "llama-4", "llama-4", "high", 1, "h100", ""),
            2: Dimensions("other", "llama-4", "llama-4", "high", 1, "h100", ""),
        },
        sampled=Sampled(dimension_id=np.zeros(0, np.int64), end_ms=np.zeros(0, np.int64)),
    )


def earned(registry: CollectorRegistry) -> float | None:
    """Return the dollars that were noted."""
    labels = {"currency": "USD", "tier": "high", "pool": "h100"}
    return registry.get_sample_value("tokenworks_revenue_total", labels)


def test_revenue__by_the_contract_of_its_time(town: Town) -> None:
    """Before the contract nothing is earned, then the full price, then half of it."""
    revenue, registry = meter_of(town)
    revenue.counted(a_round())
    revenue.counted(a_round())
    assert earned(registry) == 2 * (4 + 2)
    # Of twelve million tokens a round, those two million of acme have a price.
    labels = {"tier": "high", "model": "llama-4"}
    unpriced = registry.get_sample_value("tokenworks_unpriced_tokens_total", labels)
    assert unpriced == 2 * 10_000_000


def test_revenue__follows_new_terms(town: Town) -> None:
    """A contract that is set between two rounds is what the second is priced by."""
    revenue, registry = meter_of(town)
    revenue.counted(a_round())
    town.set_contract(contract_toml("of-other", covers="other", start="2026-10-01T00:00:00"))
    revenue.counted(a_round())
    assert earned(registry) == (4 + 2) + (4 + 2 + 12)


def test_price__is_the_book_s_own(town: Town) -> None:
    """Shown is the price of the shortest prompts, and not what a contract made of it later."""
    labels = {"currency": "USD", "tier": "high", "model": "llama-4", "token_class": "INPUT"}
    name = "tokenworks_price_per_million_tokens"
    revenue, registry = meter_of(town)
    long = dataclasses.replace(a_round(), band=np.full(6, 3, np.int64))
    revenue.counted(long)
    assert registry.get_sample_value(name, labels) is None
    revenue.counted(a_round())
    assert registry.get_sample_value(name, labels) == 4


def test_revenue__of_a_span(town: Town) -> None:
    """The usage of a span comes to the exact sum of its prices, by tier."""
    for day in ("09", "15", "21"):
        classes = {"input": 1_000_001}
        town.record(TownEvent(account="acme", end_ms=ms(f"2026-10-{day}"), classes=classes))
    pricing = Pricing(town.billing.terms.load(), town.host.tree())
    span = Span(start_ms=ms("2026-10-01"), end_ms=ms("2026-11-01"))
    (row,) = revenue_by_tier(pricing, town.host.facts, span)
    assert (row.tier, row.currency, row.amount) == ("high", "USD", Decimal("6.000006"))
