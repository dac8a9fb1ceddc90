"""The real service, scraped by a real Prometheus that evaluates the chart's rules."""

import math
import shutil
from collections.abc import Iterator

import pytest

from tests.acceptance.counted import wait_until
from tests.postgres import Cluster
from tests.running_meter import running_meter_on
from tests.stacks.chart import Engine
from tests.stacks.prometheus import Prometheus, running_prometheus
from tests.stacks.queries import WINDOWS, dashboard_queries, rule_queries, write_rules
from tests.wire.session import Session, event
from tokenworks.meter.v1.usage_pb2 import TOKEN_CLASS_INPUT, TOKEN_CLASS_OUTPUT

pytestmark = [
    pytest.mark.stacks,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]
DATA_SECONDS_MAX = 60
# What cannot be without a sample once tokens were reported.
MUST_HAVE_DATA = [
    name.replace("5m", window)
    for window in WINDOWS
    for name in [
        "pool_tier:tokenworks_output_tokens:rate5m",
        "tier:tokenworks_output_tokens:rate5m",
    ]
]


@pytest.fixture(scope="module")
def prometheus(
    engine: Engine, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus beside a meter that is reported to, until all that must have data has some."""
    folder = tmp_path_factory.mktemp("prometheus")
    rules = folder / "rules.json"
    write_rules(engine, rules)
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder) as meter,
        running_prometheus(folder=folder, target=meter.http, rules=rules) as running,
    ):
        session = Session(meter)
        account = session.create_account("acme")

        def has_data() -> bool:
            tokens = {TOKEN_CLASS_INPUT: 500, TOKEN_CLASS_OUTPUT: 100}
            session.record(event(account, tier="high", pool="hall-1", tokens=tokens))
            samples = [running.query(expression) for expression in MUST_HAVE_DATA]
            return all(found and found[0][1] > 0 for found in samples)

        wait_until(has_data, seconds_max=DATA_SECONDS_MAX, what="all that must have data has some")
        yield running


def test_rules__are_evaluated(prometheus: Prometheus) -> None:
    """Every rule, alerts included, was evaluated without a fault."""
    assert {(rule["health"], rule.get("lastError")) for rule in prometheus.rules()} == {
        ("ok", None)
    }


@pytest.mark.parametrize("expression", list(dashboard_queries()))
def test_panel__is_answered(prometheus: Prometheus, expression: str) -> None:
    """Prometheus understands what a panel asks, and no answer is infinite or no number."""
    assert all(math.isfinite(value) for _, value in prometheus.query(expression))


def test_rules__are_answered(prometheus: Prometheus, engine: Engine) -> None:
    """So it does with each rule's expression and what it recorded, asked by hand."""
    for expression in rule_queries(engine):
        assert all(math.isfinite(value) for _, value in prometheus.query(expression)), expression
