"""What the chart asks of Prometheus and Postgres: the questions of its rules and dashboards."""

import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helm.dashboards.questions import POSTGRES_TYPE
from tests.stacks.chart import CHART, Engine
from tests.stacks.grafana import Choices, fill

Json = dict[str, Any]
DASHBOARDS: dict[str, Json] = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in sorted((CHART / "dashboards").glob("*.json"))
}
WINDOWS = ["5m", "1h"]
# Those over which the promises are judged.
SLO_WINDOWS = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"]
RECORDED = re.compile(r"\b\w+:tokenworks_\w+:\w+")
SCRAPED = re.compile(r"(?<![:\w])tokenworks_\w+(?![:\w])")
# What Grafana finds in the database, where it is not written down.
CHOSEN = {"currency": "USD", "customer": "acme"}
# What a histogram's name has behind it where it is asked for.
HISTOGRAM_PARTS = re.compile(r"_(bucket|sum|count)$")


def rule_groups(engine: Engine) -> list[Json]:
    """What the PrometheusRule holds."""
    groups: list[Json] = engine.get("PrometheusRule")["spec"]["groups"]
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


def panels(dashboard: Json) -> list[Json]:
    """The panels of a dashboard that ask for something: all but the titles of its rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def offered(dashboard: Json) -> Iterator[dict[str, str]]:
    """Each set of values that a dashboard's reader may choose, of those that it writes down."""
    listed = [each for each in dashboard["templating"]["list"] if each["options"]]
    names = [each["name"] for each in listed]
    values = [[option["value"] for option in each["options"]] for each in listed]
    for combination in itertools.product(*values):
        yield dict(zip(names, combination, strict=True))


def dashboard_queries() -> list[str]:
    """Each expression of each panel as Grafana sends it, for each set of values once."""
    return sorted({query for _, queries in asked_panels() for query in queries})


def asked_panels() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each panel that asks Prometheus, with its expressions for each set of values."""
    moment = datetime(2026, 10, 1, tzinfo=UTC)
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            seen: set[tuple[str, ...]] = set()
            for values in offered(dashboard):
                choices = Choices(begin=moment, end=moment, values=CHOSEN | values)
                queries = tuple(
                    fill(target["expr"], choices=choices)
                    for target in panel["targets"]
                    if "expr" in target
                )
                if queries and queries not in seen:
                    seen.add(queries)
                    yield f"{name}: {panel['title']} {values}", queries


def sql_panels() -> Iterator[tuple[str, Json]]:
    """Each panel that asks Postgres, with the name of its dashboard."""
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            if panel["datasource"]["type"] == POSTGRES_TYPE:
                yield name, panel
