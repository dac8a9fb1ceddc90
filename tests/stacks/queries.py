"""What the chart asks of Prometheus: the expressions of its rules and of its dashboard."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.stacks.chart import CHART, Engine

DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards/factory.json").read_text("utf-8"))
WINDOWS = ["5m", "1h"]
RECORDED = re.compile(r"\b\w+:tokenworks_\w+:\w+")
SCRAPED = re.compile(r"(?<![:\w])tokenworks_\w+(?![:\w])")


def rule_groups(engine: Engine) -> list[dict[str, Any]]:
    """What the PrometheusRule holds."""
    groups: list[dict[str, Any]] = engine.get("PrometheusRule")["spec"]["groups"]
    return groups


def write_rules(engine: Engine, path: Path) -> None:
    """Write what the PrometheusRule holds as a file of rules."""
    path.write_text(json.dumps({"groups": rule_groups(engine)}), "utf-8")


def rule_queries(engine: Engine) -> Iterator[str]:
    """The expressions of all rules, and the name of each that records."""
    for group in rule_groups(engine):
        for rule in group["rules"]:
            yield rule["expr"]
            if "record" in rule:
                yield rule["record"]


def dashboard_queries() -> Iterator[str]:
    """The expressions of all panels, as Grafana sends them, for each window that it offers."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            for window in WINDOWS:
                yield target["expr"].replace("$window", window)
