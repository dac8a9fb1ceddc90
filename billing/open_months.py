"""For how long months that have ended stay open, as a metric: late invoices break a promise."""

from collections.abc import Callable
from typing import Final, Protocol

from billing.metrics import BillingMetrics

_EVERY_MS: Final = 60_000


class OpenMonthPort(Protocol):
    """Where the periods are."""

    def find_oldest_end_ms(self, *, now_ms: int) -> int | None:
        """Return when the longest-ended open period ended, None without any."""
        ...


class OpenMonths:
    """Looks at the periods at most once a minute; `look` is called by one thread at a time."""

    def __init__(
        self, store: OpenMonthPort, *, metrics: BillingMetrics, now_ms: Callable[[], int]
    ) -> None:
        """Take the store, what shows it, and the installation's clock."""
        self._store = store
        self._metrics = metrics
        self._now_ms = now_ms
        self._looked_ms: int | None = None

    def look(self) -> None:
        """Show how long ago it was, unless that was just looked at; raises Unavailable."""
        now_ms = self._now_ms()
        if self._looked_ms is not None and 0 <= now_ms - self._looked_ms < _EVERY_MS:
            return
        end_ms = self._store.find_oldest_end_ms(now_ms=now_ms)
        self._metrics.month_open(0 if end_ms is None else (now_ms - end_ms) // 1000)
        self._looked_ms = now_ms
