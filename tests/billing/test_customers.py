"""The few customers with metrics of their own: the largest of late, and the others together."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from billing.customers import TopCustomers
from billing.metrics import BillingMetrics
from meter.domain.interval import INTERVAL_MS
from meter.series import Exposition

MINUTE_MS = 60_000
BEGIN_MS = 1_000 * INTERVAL_MS


class Shop:
    """Customers of a made-up time, and what the metrics show of them."""

    def __init__(self, count_max: int) -> None:
        self.now_ms = BEGIN_MS
        self.registry = CollectorRegistry()
        metrics = BillingMetrics(Exposition(self.registry))
        self.top = TopCustomers(count_max, metrics=metrics, now_ms=lambda: self.now_ms)

    def sell(self, customer: str, token_count: int, *, minutes: int = 0) -> None:
        """Let so many minutes pass, and then count a customer's tokens."""
        self.now_ms += minutes * MINUTE_MS
        self.top.add(token_count, customer=customer, tier="high")

    def shown(self) -> dict[str, float]:
        """Return the tokens by customer."""
        return {
            sample.labels["customer"]: sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "tokenworks_customer_tokens_total"
        }


def test_add__the_first_have_names_the_rest_are_together() -> None:
    """A free place is taken at once; who comes later, and who has no contract, is an other."""
    shop = Shop(1)
    for customer, token_count in (("a", 5), ("b", 7), ("", 1)):
        shop.sell(customer, token_count)
    assert shop.shown() == {"a": 5, "__other__": 8}


def test_add__who_takes_more_has_the_place_after_a_minute() -> None:
    """The ranking follows the last hour; who lost the place is no longer shown."""
    shop = Shop(1)
    shop.sell("a", 5)
    shop.sell("b", 7)
    shop.sell("b", 1, minutes=1)
    assert shop.shown() == {"b": 1, "__other__": 7}


def test_add__what_is_older_than_an_hour_does_not_rank() -> None:
    """A customer that was large once makes way."""
    shop = Shop(1)
    shop.sell("a", 1_000)
    shop.sell("b", 1, minutes=59)
    assert set(shop.shown()) == {"a", "__other__"}
    shop.sell("b", 1, minutes=1)
    assert "a" not in shop.shown()


def test_add__time_that_went_back() -> None:
    """A clock that is set back does not keep an old ranking alive."""
    shop = Shop(1)
    shop.sell("a", 5)
    shop.sell("b", 7)
    shop.now_ms -= 5 * INTERVAL_MS
    shop.sell("b", 7)
    assert "b" in shop.shown()


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10**6), st.integers(0, 40)), max_size=60),
    st.integers(1, 5),
)
def test_add__never_more_series_than_places(rounds: list[tuple[int, int, int]], most: int) -> None:
    """However customers come and go, no more of them are shown than there are places."""
    shop = Shop(most)
    for customer, token_count, minutes in rounds:
        shop.sell(f"c{customer}", token_count, minutes=minutes)
        assert len(shop.shown().keys() - {"__other__"}) <= most
