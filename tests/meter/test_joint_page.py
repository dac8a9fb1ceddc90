"""The pages of several workers make one: counters never go back, and gauges say what is true."""

from collections.abc import Callable

from prometheus_client import generate_latest

import billing.metrics
import meter.metrics
from meter.domain.metric import Entry, Joining
from meter.joint_page import JointPage
from meter.metrics import Metrics
from meter.series import OTHER, CountedHistogram, Exposition

COUNTER = Entry(
    name="things_total", kind="counter", unit="things", labels=("model",), meaning="Things."
)
GAUGES = tuple(
    Entry(name=f"level_{it}", kind="gauge", unit="things", labels=(), meaning="", joining=it)
    for it in Joining
)
HISTOGRAM = Entry(name="wait", kind="histogram", unit="seconds", labels=("pool",), meaning="")


class Worker:
    """What one worker shows."""

    def __init__(self) -> None:
        self.page = Exposition()
        self.things = self.page.counter(COUNTER)
        self.levels = [self.page.plain_gauge(it) for it in GAUGES]
        self.waits: CountedHistogram = self.page.counted_histogram(HISTOGRAM, buckets=(1.0, 2.0))


class Joint:
    """The joint page of some workers."""

    def __init__(self, *workers: Worker, sets_max: int = 8) -> None:
        truncated = Entry(
            name="tokenworks_series_truncated_total",
            kind="counter",
            unit="",
            labels=("metric",),
            meaning="",
        )
        self.page = JointPage((COUNTER, *GAUGES, HISTOGRAM, truncated), sets_max=sets_max)
        self.workers = dict(enumerate(workers))

    def look(self) -> None:
        """Take what all workers show now."""
        for number, worker in self.workers.items():
            self.page.take(number, worker.page.registry.collect())

    def show(self, name: str) -> dict[tuple[str, ...], float]:
        """Return a metric's samples by the values of their labels."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in self.page.families()
            for sample in family.samples
            if sample.name == name
        }


def test_families__of_two() -> None:
    """What each did is added up by label set; of a gauge the catalogue says what is true."""
    first, second = Worker(), Worker()
    first.things.labels("a").inc(1)
    second.things.labels("a").inc(2)
    second.things.labels("b").inc(4)
    for first_level, second_level in zip(first.levels, second.levels, strict=True):
        first_level.set(3)
        second_level.set(5)
    first.waits.observe("p", 0.5)
    second.waits.observe("p", 1.5, count=2)
    joint = Joint(first, second)
    joint.look()
    assert joint.show("things_total") == {("a",): 3, ("b",): 4}
    assert [joint.show(it.name)[()] for it in GAUGES] == [8, 5, 3]
    assert joint.show("wait_bucket") == {("p", "1.0"): 1, ("p", "2.0"): 3, ("p", "+Inf"): 3}
    assert joint.show("wait_sum") == {("p",): 3.5}
    assert joint.show("wait_count") == {("p",): 3}


def test_families__of_one_is_its_page() -> None:
    """Joined to nothing, a page stays as it is, in the form in which it is served."""
    metrics = Metrics()
    metrics.tokens.labels("free", "m", "p", "INPUT").inc(3)
    metrics.energy.power_valid.labels("p").set(0)
    metrics.report_lag.observe("p", 3.0)
    metrics.ack_seconds.labels("call").observe(0.1)
    page = JointPage((*meter.metrics.CATALOGUE, *billing.metrics.CATALOGUE))
    page.take(1, metrics.registry.collect())

    class Shown:
        """What the library writes."""

        collect: Callable[[], object] = staticmethod(page.families)

    assert generate_latest(Shown()) == generate_latest(metrics.registry)  # type: ignore[arg-type]


def test_end__leaves_counters_and_no_gauges() -> None:
    """What an ended worker did stays in the sums, and its successor's is added to it."""
    first, second = Worker(), Worker()
    first.things.labels("a").inc(1)
    second.things.labels("a").inc(2)
    first.waits.observe("p", 0.5)
    second.levels[0].set(5)
    first.levels[0].set(1)
    joint = Joint(first, second)
    joint.look()
    begun = joint.show("things_created")
    joint.page.end(0)
    assert joint.show("things_total") == {("a",): 3}
    assert joint.show("wait_count") == {("p",): 1}
    assert joint.show("level_sum") == {(): 5}
    assert joint.show("things_created") == begun
    successor = joint.workers[0] = Worker()
    successor.things.labels("a").inc(10)
    joint.look()
    assert joint.show("things_total") == {("a",): 13}
    assert joint.show("things_created") == begun


def test_miss__keeps_what_was_done() -> None:
    """Of a worker that does not answer its last counters stand; its gauges are not known."""
    first, second = Worker(), Worker()
    first.things.labels("a").inc(1)
    second.things.labels("a").inc(2)
    first.levels[0].set(1)
    second.levels[0].set(5)
    joint = Joint(first, second)
    joint.look()
    joint.page.miss(0)
    assert joint.show("things_total") == {("a",): 3}
    assert joint.show("level_sum") == {(): 5}
    joint.look()
    assert joint.show("level_sum") == {(): 6}


def test_take__of_a_series_that_a_worker_takes_away() -> None:
    """A sum does not go back when one worker ends its share; what none shows is gone."""
    first, second = Worker(), Worker()
    first.things.labels("a").inc(1)
    second.things.labels("a").inc(2)
    joint = Joint(first, second)
    joint.look()
    first.things.remove("a")
    joint.look()
    assert joint.show("things_total") == {("a",): 3}
    first.things.labels("a").inc(4)
    joint.look()
    assert joint.show("things_total") == {("a",): 7}
    first.things.remove("a")
    second.things.remove("a")
    joint.look()
    assert joint.show("things_total") == {}
    second.things.labels("a").inc(8)
    joint.look()
    assert joint.show("things_total") == {("a",): 8}


def test_take__of_a_series_begun_anew_between_two_looks() -> None:
    """What went back was taken away and came again: both are in the sum."""
    worker = Worker()
    worker.things.labels("a").inc(5)
    joint = Joint(worker)
    joint.look()
    worker.things.remove("a")
    worker.things.labels("a").inc(2)
    joint.look()
    assert joint.show("things_total") == {("a",): 7}


def test_end__is_bounded() -> None:
    """Names that workers leave behind are bounded, however often they end; no sum is lost."""
    joint = Joint(sets_max=2)
    for model in "abcd":
        worker = Worker()
        worker.things.labels(model).inc()
        joint.workers = {0: worker}
        joint.look()
        joint.page.end(0)
    assert joint.show("things_total") == {("a",): 1, ("b",): 1, (OTHER,): 2}
