"""The metrics of several workers as those of one server.

What each did is added up, and stays in the sum when a worker ends: a counter that went back would
be taken for a new one, and all that it has for new. Of what each shows alike one value is taken,
as the catalogue says.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from prometheus_client.metrics_core import Metric

from meter.domain.limits import SERIES_MAX
from meter.domain.metric import Entry, Joining
from meter.series import OTHER, UNBOUNDED

# Counters and histograms say when they began, beside their values.
_BEGUN: Final = "_created"
_TOTAL: Final = "_total"

# A sample's name, and its labels with their values.
_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True, kw_only=True)
class _Family:
    documentation: str
    kind: str
    values: dict[_Key, float] = field(default_factory=dict)

    @property
    def is_gauge(self) -> bool:
        return self.kind == "gauge"


_Page: TypeAlias = dict[str, _Family]


class JointPage:
    """Joins the pages of workers, each with a number; for one thread at a time."""

    def __init__(self, catalogue: Iterable[Entry], *, sets_max: int = SERIES_MAX) -> None:
        """Take the metrics that there are.

        What workers leave behind has up to `sets_max` label sets of a counter with all their names.
        """
        self._joinings = {it.name.removesuffix(_TOTAL): it.over_servers for it in catalogue}
        # Each label set of a counter has two samples: its value, and when it began.
        self._samples_max = 2 * sets_max
        self._pages: dict[int, _Page] = {}
        self._missed: set[int] = set()
        self._left: _Page = {}

    def take(self, worker: int, families: Iterable[Metric]) -> None:
        """Take what a worker shows now."""
        page = {
            it.name: _Family(
                documentation=it.documentation,
                kind=it.type,
                values={
                    (sample.name, tuple(sample.labels.items())): sample.value
                    for sample in it.samples
                },
            )
            for it in families
        }
        before = self._pages.pop(worker, {})
        for name, key, value in _counted(before):
            now = page[name].values.get(key) if name in page else None
            if now is None or now < value:
                self._went_back(name, key, before[name], is_gone=now is None)
        self._pages[worker] = page
        self._missed.discard(worker)

    def miss(self, worker: int) -> None:
        """Note that a worker does not answer: what it has done stands, how it is nobody knows."""
        self._missed.add(worker)

    def end(self, worker: int) -> None:
        """Note that a worker has ended: what it did stays."""
        page = self._pages.pop(worker, {})
        self._missed.discard(worker)
        for name, key, _ in _counted(page):
            self._leave(name, key, page[name])

    def families(self) -> Sequence[Metric]:
        """Return the joint page, in the order in which each family was first shown."""
        joint: _Page = {}
        pages: list[tuple[_Page, bool]] = [(self._left, False)]
        pages += [(page, worker in self._missed) for worker, page in self._pages.items()]
        for page, is_missed in pages:
            for name, family in page.items():
                if not (is_missed and family.is_gauge):
                    self._join(joint, name, family, family.values)
        return [_to_metric(name, family) for name, family in joint.items()]

    def _went_back(self, name: str, key: _Key, before: _Family, *, is_gone: bool) -> None:
        """Keep the sum of a counter that one worker has begun anew; what none shows goes."""
        others = (page.get(name) for page in self._pages.values())
        if not is_gone or any(it is not None and key in it.values for it in others):
            self._leave(name, key, before)
        elif name in self._left:
            self._left[name].values.pop(key, None)

    def _leave(self, name: str, key: _Key, family: _Family) -> None:
        left = self._left.get(name)
        value = family.values[key]
        if left is not None and key not in left.values and len(left.values) >= self._samples_max:
            key = _folded(key)
        self._join(self._left, name, family, {key: value})

    def _join(self, page: _Page, name: str, family: _Family, values: Mapping[_Key, float]) -> None:
        joined = page.setdefault(
            name, _Family(documentation=family.documentation, kind=family.kind)
        ).values
        joining = self._joinings[name]
        for key, value in values.items():
            known = joined.get(key)
            joined[key] = value if known is None else _one_of(joining, key, known, value)


def _one_of(joining: Joining, key: _Key, known: float, value: float) -> float:
    if joining is Joining.MIN or key[0].endswith(_BEGUN):
        return min(known, value)
    return max(known, value) if joining is Joining.MAX else known + value


def _counted(page: _Page) -> Iterator[tuple[str, _Key, float]]:
    """Yield the samples that only rise."""
    for name, family in page.items():
        if not family.is_gauge:
            for key, value in family.values.items():
                yield name, key, value


def _folded(key: _Key) -> _Key:
    name, labels = key
    return name, tuple((label, OTHER if label in UNBOUNDED else it) for label, it in labels)


def _to_metric(name: str, family: _Family) -> Metric:
    metric = Metric(name, family.documentation, family.kind)
    for (sample, labels), value in family.values.items():
        metric.add_sample(sample, dict(labels), value)
    return metric
