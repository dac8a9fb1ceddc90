"""Metrics whose label sets stay bounded: what is one too many is folded into `__other__`.

A label's values come from whoever reports. Without a bound, a producer that makes up names fills
the memory of this process and of every Prometheus that scrapes it.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from meter.domain.limits import SERIES_MAX
from meter.domain.metric import Entry

OTHER: Final = "__other__"
# Labels whose values nobody lists beforehand, in the order in which they are folded.
UNBOUNDED: Final = ("customer", "model", "pool", "site")
TRUNCATED: Final = Entry(
    name="tokenworks_series_truncated_total",
    kind="counter",
    unit="values",
    labels=("metric",),
    meaning="Values that came under `__other__`, for their metric has as many label sets as it may"
    f" ({SERIES_MAX:,} with names of their own), or that a gauge leaves out for the same reason."
    " Sums are right; what is split by that label is not.",
)

Values = tuple[str, ...]
Child = TypeVar("Child", bound=MetricWrapperBase)


class Series(Generic[Child]):
    """A counter or gauge with labels; safe to share between threads.

    At most `sets_max` label sets have all their names, and as many again the first of their
    unbounded labels folded; what comes then has all of these folded. A gauge's values are no sums:
    those beyond `sets_max` are left out instead.
    """

    def __init__(
        self, metric: Child, *, labels: Values, sets_max: int, on_folded: Callable[[], None]
    ) -> None:
        """Take the metric and its labels; `on_folded` hears of each value that is folded."""
        self._metric = metric
        self._sets_max = sets_max
        self._on_folded = on_folded
        self._lock = threading.Lock()
        self._children: dict[Values, Child] = {}
        self._folds = [labels.index(each) for each in UNBOUNDED if each in labels]
        # Where the gauges go that are left out: no page shows it.
        self._nowhere = Gauge("nowhere", "", registry=None)
        self._is_sum = isinstance(metric, Counter)

    def labels(self, *values: object) -> Child:
        """Return the child of these values of the labels, in their order."""
        key = tuple(map(str, values))
        with self._lock:
            child = self._children.get(key)
            if child is not None:
                return child
            if len(self._children) < self._sets_max or not self._folds:
                return self._admit(key)
            self._on_folded()
            if not self._is_sum:
                return self._nowhere  # type: ignore[return-value]  # a gauge in place of a gauge
            key = self._fold(key, self._folds[:1])
            if key not in self._children and len(self._children) >= 2 * self._sets_max:
                key = self._fold(key, self._folds)
            return self._children.get(key) or self._admit(key)

    def keep(self, wanted: Collection[Values]) -> None:
        """Take away the label sets that are not wanted."""
        with self._lock:
            for key in self._children.keys() - set(wanted):
                self._remove(key)

    def remove(self, *values: object) -> None:
        """Take away a label set, if it is there."""
        key = tuple(map(str, values))
        with self._lock:
            if key in self._children:
                self._remove(key)

    def _admit(self, key: Values) -> Child:
        child = self._children[key] = self._metric.labels(*key)
        return child

    def _remove(self, key: Values) -> None:
        del self._children[key]
        self._metric.remove(*key)

    @staticmethod
    def _fold(key: Values, places: Sequence[int]) -> Values:
        return tuple(OTHER if place in places else each for place, each in enumerate(key))


class CountedHistogram(Collector):
    """A histogram that takes many observations at a time; safe to share between threads.

    Its one label, when it has one, is bounded as a counter's are.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        buckets: Sequence[float],
        sets_max: int,
        on_folded: Callable[[], None],
    ) -> None:
        """Take what the catalogue says, and the upper edges of the buckets without the last."""
        assert len(entry.labels) == 1, "a histogram has many series for each label set as it is"
        self._entry = entry
        self._edges = list(buckets)
        self._sets_max = sets_max
        self._on_folded = on_folded
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, label: str, value: float, *, count: int = 1) -> None:
        """Take one value, so many times."""
        counts = [0] * (len(self._edges) + 1)
        counts[bisect_left(self._edges, value)] = count
        self.add(label, counts=counts, total=value * count)

    def add(self, label: str, *, counts: Sequence[int], total: float) -> None:
        """Take what lies in each bucket, the one above the last edge included, and the sum."""
        with self._lock:
            if label not in self._counts and len(self._counts) >= self._sets_max:
                label = OTHER
                self._on_folded()
            known = self._counts.setdefault(label, [0] * (len(self._edges) + 1))
            self._counts[label] = [a + b for a, b in zip(known, counts, strict=True)]
            self._sums[label] = self._sums.get(label, 0.0) + total

    def collect(self) -> Iterator[Metric]:
        """Yield the family, as the library asks for it."""
        family = HistogramMetricFamily(
            self._entry.name, self._entry.meaning, labels=self._entry.labels
        )
        names = [*(str(float(edge)) for edge in self._edges), "+Inf"]
        with self._lock:
            for label, counts in self._counts.items():
                buckets = list(zip(names, accumulate(counts), strict=True))
                family.add_metric([label], buckets, self._sums[label])
        yield family


class Exposition:
    """Makes the metrics of one page, each bounded."""

    def __init__(
        self, registry: CollectorRegistry | None = None, *, sets_max: int = SERIES_MAX
    ) -> None:
        """Take the page's registry, or make one; `sets_max` is the bound of each metric."""
        self.registry = registry or CollectorRegistry()
        self._sets_max = sets_max
        self._truncated = Counter(
            TRUNCATED.name, TRUNCATED.meaning, TRUNCATED.labels, registry=self.registry
        )

    def counter(self, entry: Entry) -> Series[Counter]:
        """Return a counter with labels."""
        metric = Counter(entry.name, entry.meaning, entry.labels, registry=self.registry)
        return self._bounded(metric, entry)

    def gauge(self, entry: Entry) -> Series[Gauge]:
        """Return a gauge with labels."""
        metric = Gauge(entry.name, entry.meaning, entry.labels, registry=self.registry)
        return self._bounded(metric, entry)

    def plain_counter(self, entry: Entry) -> Counter:
        """Return a counter without labels."""
        return Counter(entry.name, entry.meaning, registry=self.registry)

    def plain_gauge(self, entry: Entry) -> Gauge:
        """Return a gauge without labels."""
        return Gauge(entry.name, entry.meaning, registry=self.registry)

    def histogram(self, entry: Entry, *, buckets: Sequence[float]) -> Histogram:
        """Return a histogram whose labels, if any, are bounded by themselves."""
        return Histogram(
            entry.name, entry.meaning, entry.labels, registry=self.registry, buckets=buckets
        )

    def counted_histogram(self, entry: Entry, *, buckets: Sequence[float]) -> CountedHistogram:
        """Return a histogram with one label that takes many observations at a time."""
        made = CountedHistogram(
            entry, buckets=buckets, sets_max=self._sets_max, on_folded=self._on_folded(entry)
        )
        self.registry.register(made)
        return made

    def _bounded(self, metric: Child, entry: Entry) -> Series[Child]:
        return Series(
            metric,
            labels=entry.labels,
            sets_max=self._sets_max,
            on_folded=self._on_folded(entry),
        )

    def _on_folded(self, entry: Entry) -> Callable[[], None]:
        def fold() -> None:
            self._truncated.labels(entry.name).inc()

        return fold
