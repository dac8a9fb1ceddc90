"""Billing's Prometheus metrics; amounts become floats here and nowhere else.

They are for gauges and ratios. Invoices come from Postgres, never from them.
"""

from decimal import Decimal
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from meter.domain.metric import Entry

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
CATALOGUE: Final = (REVENUE, UNPRICED)


class BillingMetrics:
    """The catalogue's metrics, in the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make them all."""
        self._revenue, self._unpriced = (
            Counter(entry.name, entry.meaning, entry.labels, registry=registry)
            for entry in CATALOGUE
        )

    def earned(self, amount: Decimal, *, currency: str, tier: str, pool: str) -> None:
        """Note what tokens came to, an amount ≥ 0."""
        self._revenue.labels(currency, tier, pool).inc(float(amount))

    def unpriced(self, token_count: int, *, tier: str, model: str) -> None:
        """Note tokens without a price."""
        self._unpriced.labels(tier, model).inc(token_count)
