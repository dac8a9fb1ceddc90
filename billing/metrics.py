"""Billing's Prometheus metrics; amounts become floats here and nowhere else.

They are for gauges and ratios. Invoices come from Postgres, never from them.
"""

from collections.abc import Collection
from decimal import Decimal
from typing import Final

from meter.domain.metric import Entry
from meter.series import Exposition

REVENUE: Final = Entry(
    name="tokenworks_revenue_total",
    kind="counter",
    unit="currency",
    labels=("currency", "tier", "pool"),
    meaning="What counted tokens come to at their contract's prices, unrounded, since this server"
    " started. With joules it gives dollars per megawatt-hour; no invoice is made of it.",
)
UNPRICED: Final = Entry(
    name="tokenworks_unpriced_tokens_total",
    kind="counter",
    unit="tokens",
    labels=("tier", "model"),
    meaning="Counted tokens that no contract covers or no book prices. They hold invoices.",
)
PRICE: Final = Entry(
    name="tokenworks_price_per_million_tokens",
    kind="gauge",
    unit="currency",
    labels=("currency", "tier", "model", "token_class"),
    meaning="What a million tokens were last priced at by a price book: online, with a prompt of"
    " the shortest band. Contracts with terms of their own do not show here.",
)
CUSTOMER_TOKENS: Final = Entry(
    name="tokenworks_customer_tokens_total",
    kind="counter",
    unit="tokens",
    labels=("customer", "tier"),
    meaning="Counted tokens by contract, of those alone that took the most in the last hour: as"
    " many as TOKENWORKS_CUSTOMER_METRICS_MAX says (0: it is off). All others are `__other__`,"
    " and one that is passed by begins anew when it is back.",
)
MONTH_OPEN: Final = Entry(
    name="tokenworks_month_open_seconds",
    kind="gauge",
    unit="seconds",
    labels=(),
    meaning="How long ago the billing period ended that has been over for longest and is not"
    " closed: it collects, is due, or is held. 0 when all that have ended are closed. Periods are"
    " known from the first close on; all servers tell the same.",
)
CATALOGUE: Final = (REVENUE, UNPRICED, PRICE, CUSTOMER_TOKENS, MONTH_OPEN)


class BillingMetrics:
    """The catalogue's metrics, on the process's page."""

    def __init__(self, page: Exposition) -> None:
        """Make them all."""
        self._revenue, self._unpriced = page.counter(REVENUE), page.counter(UNPRICED)
        self._price, self._customer_tokens = page.gauge(PRICE), page.counter(CUSTOMER_TOKENS)
        self._month_open = page.plain_gauge(MONTH_OPEN)

    def month_open(self, seconds: int) -> None:
        """Note for how long the longest-ended month is open still."""
        self._month_open.set(seconds)

    def earned(self, amount: Decimal, *, currency: str, tier: str, pool: str) -> None:
        """Note what tokens came to, an amount ≥ 0."""
        self._revenue.labels(currency, tier, pool).inc(float(amount))

    def unpriced(self, token_count: int, *, tier: str, model: str) -> None:
        """Note tokens without a price."""
        self._unpriced.labels(tier, model).inc(token_count)

    def priced(
        self, unit_price: Decimal, *, currency: str, tier: str, model: str, token_class: str
    ) -> None:
        """Note the price of a million tokens in a price book."""
        self._price.labels(currency, tier, model, token_class).set(float(unit_price))

    def consumed(self, token_count: int, *, customer: str, tier: str) -> None:
        """Note a customer's tokens."""
        self._customer_tokens.labels(customer, tier).inc(token_count)

    def keep_customers(self, wanted: Collection[tuple[str, str]]) -> None:
        """Take away the customers, each with its tier, that are not wanted."""
        self._customer_tokens.keep(wanted)
