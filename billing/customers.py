"""Who took the most tokens of late: the few customers that have metrics of their own."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from billing.metrics import BillingMetrics
from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.series import OTHER

# The last hour: three whole intervals and the one that has begun.
_INTERVALS: Final = 4
_RANKED_MS: Final = 60_000


class TopCustomers:
    """Counts customers' tokens, of so many by name and of the others together; on one thread.

    Once a minute the customers are ranked anew. A place that is free is taken at once.
    """

    def __init__(
        self, count_max: int, *, metrics: BillingMetrics, now_ms: Callable[[], int]
    ) -> None:
        """Take how many are named, at least 1, and where their tokens are noted."""
        assert count_max > 0, "without any there is nothing to rank"
        self._count_max = count_max
        self._metrics = metrics
        self._now_ms = now_ms
        self._intervals: deque[tuple[int, Counter[str]]] = deque()
        self._ranked_ms = 0
        self._named: set[str] = set()
        self._tiers: set[str] = set()

    def add(self, token_count: int, *, customer: str, tier: str) -> None:
        """Take tokens that were counted (≥ 0); a customer of "" is nobody's."""
        now_ms = self._now_ms()
        self._turn(now_ms)
        self._tiers.add(tier)
        if customer:
            self._intervals[-1][1][customer] += token_count
            if len(self._named) < self._count_max:
                self._named.add(customer)
        name = customer if customer in self._named else OTHER
        self._metrics.consumed(token_count, customer=name, tier=tier)

    def _turn(self, now_ms: int) -> None:
        """Move on to the interval that it is, and rank when it is time."""
        start_ms = interval_start_ms(now_ms)
        if not self._intervals or self._intervals[-1][0] != start_ms:
            self._intervals.append((start_ms, Counter()))
            while self._intervals[0][0] <= start_ms - _INTERVALS * INTERVAL_MS:
                self._intervals.popleft()
        # Also where a sandbox's clock leapt, or a machine's went back.
        if not 0 <= now_ms - self._ranked_ms < _RANKED_MS:
            self._ranked_ms = now_ms
            self._rank()

    def _rank(self) -> None:
        totals: Counter[str] = Counter()
        for _, counts in self._intervals:
            totals.update(counts)
        ranked = sorted(totals, key=lambda name: (-totals[name], name))
        self._named = set(ranked[: self._count_max])
        self._metrics.keep_customers(
            {(name, tier) for name in {*self._named, OTHER} for tier in self._tiers}
        )
