"""The real service, scraped by a real Prometheus that evaluates the chart's rules."""

import math
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.counted import wait_until
from tests.postgres import Cluster
from tests.stacks.chart import Engine
from tests.stacks.factory import POOL, USD_PER_OUTPUT_TOKEN, Factory, running_factory
from tests.stacks.prometheus import Prometheus, running_prometheus
from tests.stacks.queries import (
    asked_panels,
    rule_groups,
    rule_queries,
    write_rules,
)
from tests.wire.talk import read_metric

pytestmark = [
    pytest.mark.stacks,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]
DATA_SECONDS_MAX = 90


@pytest.fixture(scope="module")
def factory(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    """A factory at work, whose power is valid: ratios want it so all the while."""
    with (
        cluster.database() as url,
        running_factory(url, folder=tmp_path_factory.mktemp("factory")) as running,
    ):

        def is_valid() -> bool:
            running.serve_requests()
            return read_metric(running.meter, "tokenworks_power_valid", pool=POOL) == 1

        wait_until(is_valid, seconds_max=DATA_SECONDS_MAX, what="the power is valid")
        yield running


@pytest.fixture(scope="module")
def prometheus(
    factory: Factory, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus beside it, once each recorded series is more than 0 and each panel has data.

    How a promise was broken is 0 where none is: it only has to be there.
    """
    folder = tmp_path_factory.mktemp("prometheus")
    rules = folder / "rules.json"
    write_rules(engine, rules)
    rules_that_record = [
        rule for group in rule_groups(engine) for rule in group["rules"] if "record" in rule
    ]
    recorded = [rule["record"] for rule in rules_that_record]
    empty = dict(asked_panels())
    with running_prometheus(folder=folder, target=factory.meter.http, rules=rules) as running:

        def has_data() -> bool:
            factory.serve_requests()
            recorded[:] = [
                name
                for name in recorded
                if not any(value > 0 or name.startswith("slo:") for _, value in running.query(name))
            ]
            for panel, queries in list(empty.items()):
                if any(running.query(each) for each in queries):
                    del empty[panel]
            return not recorded and not empty

        try:
            wait_until(has_data, seconds_max=DATA_SECONDS_MAX, what="there is data")
        except AssertionError as error:
            raise AssertionError(f"no data: {recorded}, {list(empty)}") from error
        yield running


def test_rules__are_evaluated(prometheus: Prometheus) -> None:
    """Every rule, alerts included, is evaluated without a fault."""
    found = {(rule["health"], rule.get("lastError")) for rule in prometheus.rules()}
    assert found == {("ok", None)}


@pytest.mark.parametrize("panel", dict(asked_panels()))
def test_panel__is_answered(prometheus: Prometheus, factory: Factory, panel: str) -> None:
    """Prometheus understands what a panel asks, and answers some of it with finite numbers."""
    queries = dict(asked_panels())[panel]

    def is_answered() -> bool:
        values = [value for each in queries for _, value in prometheus.query(each)]
        return bool(values) and all(map(math.isfinite, values))

    _serve_until(factory, is_answered)


def test_rules__are_answered(prometheus: Prometheus, factory: Factory, engine: Engine) -> None:
    """So it does when each rule's expression, and what it recorded, is asked by hand."""
    for expression in rule_queries(engine):

        def is_answered(expression: str = expression) -> bool:
            return all(math.isfinite(value) for _, value in prometheus.query(expression))

        _serve_until(factory, is_answered)


def _serve_until(factory: Factory, holds: Callable[[], bool]) -> None:
    """Look again beside more requests: a factory that has none is idle, and has no quantiles."""

    def is_well() -> bool:
        if holds():
            return True
        factory.serve_requests()
        return False

    wait_until(is_well, seconds_max=DATA_SECONDS_MAX, what="it is so while requests come")


def test_ratios__are_in_the_units_of_their_names(prometheus: Prometheus) -> None:
    """Dollars per megawatt-hour are tokens per joule, times what a token brings, times 3.6e9."""
    found = prometheus.query(
        "factory:tokenworks_usd_per_megawatt_hour:ratio_rate5m"
        " / factory:tokenworks_tokens_per_joule:ratio_rate5m"
    )
    assert {labels["boundary"] for labels, _ in found} == {"board", "host", "facility"}
    # Loose, for a scrape may come between the tokens of a request and its money.
    usd_per_joule = pytest.approx(USD_PER_OUTPUT_TOKEN * 3.6e9, rel=0.2)
    assert [value for _, value in found] == [usd_per_joule] * len(found)


def test_alerts__tell_of_tokens_without_a_price(prometheus: Prometheus, factory: Factory) -> None:
    """No alert fires while all is well; one does when a model without a price is served."""
    _serve_until(factory, lambda: prometheus.alerts() == set())
    factory.serve_requests(model="unknown")
    _serve_until(factory, lambda: prometheus.alerts() == {"TokenworksTokensUnpriced"})
