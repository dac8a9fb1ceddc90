"""Label sets are bounded, whatever producers call their models and pools, and nothing is lost."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from billing.metrics import CATALOGUE as BILLING
from billing.metrics import BillingMetrics
from meter.domain.metric import Entry
from meter.domain.tokens import FinishClass, TokenClass
from meter.metrics import CATALOGUE, Metrics
from meter.series import OTHER, UNBOUNDED, Exposition

TIERS = ("free", "high")
SETS_MAX = 4
COUNTER = Entry(
    name="things_total", kind="counter", unit="things", labels=("tier", "model", "pool"), meaning=""
)
GAUGE = Entry(name="level", kind="gauge", unit="things", labels=("pool",), meaning="")
HISTOGRAM = Entry(name="wait", kind="histogram", unit="seconds", labels=("pool",), meaning="")

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=6)


def samples_of(page: Exposition, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's samples by the values of their labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in page.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


@given(st.lists(st.tuples(st.sampled_from(TIERS), names, names, st.integers(0, 10)), max_size=60))
def test_counter__is_bounded_and_loses_nothing(
    values: list[tuple[str, str, str, int]],
) -> None:
    """The sums by what is bounded are right, with as many sets as there may be, and folds count."""
    page = Exposition(sets_max=SETS_MAX)
    counter = page.counter(COUNTER)
    for tier, model, pool, count in values:
        counter.labels(tier, model, pool).inc(count)
    found = samples_of(page, "things_total")
    assert len(found) <= 2 * SETS_MAX + len(TIERS)
    for tier in TIERS:
        total = sum(value for labels, value in found.items() if labels[0] == tier)
        assert total == sum(count for each, _, _, count in values if each == tier)
    named = {key for key in found if OTHER not in key}
    folded = sum((tier, model, pool) not in named for tier, model, pool, _ in values)
    assert samples_of(page, "tokenworks_series_truncated_total").get(("things_total",), 0) == folded


def test_counter__folds_the_model_before_the_pool() -> None:
    """What is one too many keeps the name of its pool as long as there is room."""
    page = Exposition(sets_max=1)
    counter = page.counter(COUNTER)
    for model in ("a", "b", "c"):
        counter.labels("free", model, "p").inc()
    counter.labels("free", "d", "q").inc()
    assert samples_of(page, "things_total") == {
        ("free", "a", "p"): 1,
        ("free", OTHER, "p"): 2,
        ("free", OTHER, OTHER): 1,
    }


def test_gauge__leaves_out_what_is_too_many() -> None:
    """No gauge stands for others: one that has no room is not shown, and that is counted."""
    page = Exposition(sets_max=1)
    gauge = page.gauge(GAUGE)
    for value, pool in enumerate(("a", "b", "b")):
        gauge.labels(pool).set(value)
    assert samples_of(page, "level") == {("a",): 0}
    assert samples_of(page, "tokenworks_series_truncated_total") == {("level",): 2}


def test_gauge__makes_room() -> None:
    """What is no longer wanted is taken away, and another may have its place."""
    page = Exposition(sets_max=1)
    gauge = page.gauge(GAUGE)
    gauge.labels("a").set(1)
    gauge.keep({("b",)})
    gauge.labels("b").set(2)
    assert samples_of(page, "level") == {("b",): 2}
    gauge.remove("b")
    gauge.remove("b")
    assert samples_of(page, "level") == {}


@given(st.lists(st.tuples(names, st.floats(0, 100), st.integers(1, 5)), max_size=40))
def test_histogram__is_bounded_and_loses_nothing(values: list[tuple[str, float, int]]) -> None:
    """Buckets are cumulative, the highest has all, and labels are bounded."""
    page = Exposition(sets_max=SETS_MAX)
    histogram = page.counted_histogram(HISTOGRAM, buckets=[1.0, 10.0])
    for pool, value, count in values:
        histogram.observe(pool, value, count=count)
    buckets = samples_of(page, "wait_bucket")
    assert len(buckets) <= 3 * (SETS_MAX + 1)
    for edge, below in (("1.0", 1.0), ("10.0", 10.0), ("+Inf", float("inf"))):
        found = sum(value for labels, value in buckets.items() if labels[1] == edge)
        assert found == sum(count for _, value, count in values if value <= below)


def test_histogram__is_written_as_others_are() -> None:
    """Prometheus reads it: the page has its help, its type and its three kinds of samples."""
    page = Exposition()
    page.counted_histogram(HISTOGRAM, buckets=[1.0]).observe("a", 0.5, count=3)
    (family,) = [
        each
        for each in text_string_to_metric_families(generate_latest(page.registry).decode())
        if each.name == "wait"
    ]
    assert family.type == "histogram"
    assert {sample.name for sample in family.samples} == {"wait_bucket", "wait_count", "wait_sum"}


def test_catalogue__what_is_unbounded_is_folded() -> None:
    """Each label of the catalogue is bounded by the product, or among those that are folded."""
    bounded = {
        "account", "basis", "bound", "boundary", "certificate", "currency", "factory_version",
        "fault", "finish", "form", "hardware", "kind", "method", "metric", "outcome", "producer",
        "reason", "result", "software", "source", "state", "tier", "token_class", "version",
        "window",
    }  # fmt: skip
    labels = {label for entry in (*CATALOGUE, *BILLING) for label in entry.labels}
    assert labels == bounded | set(UNBOUNDED)


def test_catalogue__series_of_an_installation() -> None:
    """Five tiers, four models and four pools, all of them mixed, stay under 1,000 series."""
    metrics = Metrics()
    billing = BillingMetrics(metrics.page)
    energy = metrics.energy
    classes = (TokenClass.INPUT, TokenClass.CACHE_READ, TokenClass.OUTPUT)
    for tier in ("free", "medium", "high", "premium", "ultra"):
        energy.request_joules.observe(tier, 1.0)
        for model in ("a", "b", "c", "d"):
            for pool in ("h100", "h200", "b200", "rubin"):
                metrics.report_lag.observe(pool, 1.0)
                energy.attributed.labels(pool, tier, model, "board", "active").inc()
                billing.earned(1, currency="USD", tier=tier, pool=pool)  # type: ignore[arg-type]
                metrics.requests.labels(tier, model, pool, FinishClass.DELIVERED).inc()
                for token_class in classes:
                    metrics.tokens.labels(tier, model, pool, token_class.name).inc()
    # The chart leaves out when each counter began.
    count = sum(
        not sample.name.endswith("_created")
        for family in metrics.registry.collect()
        for sample in family.samples
    )
    assert count < 1_000, count
