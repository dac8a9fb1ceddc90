"""The dashboards and the rules: they ask for what there is, and a person can read them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import billing.metrics
import meter.metrics
from helm.dashboards.questions import POSTGRES_TYPE
from meter.domain.tokens import OUTPUT_CLASSES, TokenClass
from tests.stacks.chart import CHART
from tests.stacks.queries import (
    DASHBOARDS,
    HISTOGRAM_PARTS,
    RECORDED,
    SCRAPED,
    SLO_WINDOWS,
    WINDOWS,
    Json,
    dashboard_queries,
    panels,
    sql_panels,
)

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = {
    entry.name: entry.kind for entry in (*meter.metrics.CATALOGUE, *billing.metrics.CATALOGUE)
}
RULES = (CHART / "rules/recording.yaml").read_text("utf-8")
PROMISES = (CHART / "rules/slo.yaml").read_text("utf-8")
ALERTS = (CHART / "rules/alerts.yaml").read_text("utf-8")
COLUMNS = 24
PANELS = [
    pytest.param(dashboard, panel, id=f"{name}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
]
SOURCES = [
    {"type": "prometheus", "uid": "${datasource}"},
    {"type": POSTGRES_TYPE, "uid": "${database}"},
]
# What shows one moment must not show an old one where there is none now.
OVER_TIME = {"timeseries"}
# A window in a question, and the name of a rule over one.
FIXED_WINDOW = re.compile(r"\[\d|(?:rate|min)\d")
VIEWS = {"usage_daily", "invoices", "invoice_lines", "efficiency_hourly"}
READ = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)")
NAMED_IN_PLACE = re.compile(r"\b(\w+) AS \(")

each_dashboard = pytest.mark.parametrize("name", DASHBOARDS)
each_panel = pytest.mark.parametrize(("dashboard", "panel"), PANELS)


def test_files__are_those_of_the_code() -> None:
    """The chart carries what the code makes, and nothing that was changed by hand."""
    made = subprocess.run(
        [sys.executable, "-m", "helm.dashboards", "--check"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (made.returncode, made.stderr) == (0, "")


@pytest.mark.parametrize("text", [RULES, PROMISES, ALERTS, *dashboard_queries()])
def test_query__names_metrics_that_exist(text: str) -> None:
    """Every metric that is asked for is in a catalogue, and a part only of a histogram."""
    for name in {match[0] for match in SCRAPED.finditer(text)}:
        base = HISTOGRAM_PARTS.sub("", name)
        if base in CATALOGUE and base != name:
            assert CATALOGUE[base] == "histogram"
        else:
            assert name in CATALOGUE


@pytest.mark.parametrize("window", WINDOWS)
def test_query__names_rules_that_exist(window: str) -> None:
    """Every recorded series that is asked for is recorded."""
    asked = "\n".join([RULES.replace("5m", window), ALERTS, *dashboard_queries()])
    recorded = {
        name.replace("5m", each)
        for name in re.findall(r"- record: (\S+)", RULES)
        for each in WINDOWS
    }
    recorded |= {
        name.replace("5m", each)
        for name in re.findall(r"- record: (\S+)", PROMISES)
        for each in SLO_WINDOWS
    }
    assert {match[0] for match in RECORDED.finditer(asked)} <= recorded


def test_rules__output_is_the_same_as_the_meter_s() -> None:
    """The rules add up the token classes that the meter calls output."""
    patterns = set(re.findall(r'token_class=~"([^"]+)"', RULES))
    (pattern,) = patterns
    assert {each for each in TokenClass if re.fullmatch(pattern, each.name)} == OUTPUT_CLASSES


def test_dashboard__has_a_name_that_stays() -> None:
    """Links to them go on working, and each says which schema it was written for."""
    assert {(each["uid"], each["title"]) for each in DASHBOARDS.values()} == {
        ("tokenworks-factory", "Factory"),
        ("tokenworks-customers", "Customers and billing"),
        ("tokenworks-health", "Metering health"),
    }
    for name, dashboard in DASHBOARDS.items():
        assert dashboard["uid"] == f"tokenworks-{name}"
        assert dashboard["schemaVersion"] == 41
        assert "id" not in dashboard


@each_dashboard
def test_dashboard__offers_what_its_panels_ask_for(name: str) -> None:
    """Each variable is used, each that is used is offered, and a value is chosen already."""
    dashboard = DASHBOARDS[name]
    offered = {each["name"]: each for each in dashboard["templating"]["list"]}
    texts = [str(panel) for panel in panels(dashboard)]
    texts += [str(each["datasource"]) for each in offered.values() if "datasource" in each]
    used = {it for text in texts for it in re.findall(r"\$\{?([a-z]\w+)", text)}
    assert used == set(offered)
    for variable in offered.values():
        assert variable["label"]
        assert not variable["options"] or variable["current"] in variable["options"]


@pytest.mark.parametrize("name", ["factory", "customers"])
def test_dashboard__offers_the_windows_of_the_rules(name: str) -> None:
    """The reader chooses among the windows that are recorded."""
    (window,) = [
        each for each in DASHBOARDS[name]["templating"]["list"] if each["name"] == "window"
    ]
    assert [each["value"] for each in window["options"]] == WINDOWS


@each_dashboard
def test_panel__ids_are_unique(name: str) -> None:
    """No two panels have one id, no two queries of a panel one letter."""
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(DASHBOARDS[name]):
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(set(letters)) == len(letters)


@each_dashboard
def test_panel__lies_on_no_other(name: str) -> None:
    """Panels fill whole rows of the grid, side by side, each with a title of its own."""
    all_panels = DASHBOARDS[name]["panels"]
    cells = [cell for panel in all_panels for cell in _cells(panel["gridPos"])]
    assert len(set(cells)) == len(cells)
    rows = {y for _, y in cells}
    assert len(cells) == COLUMNS * len(rows)
    assert rows == set(range(len(rows)))
    titles = [panel["title"] for panel in all_panels]
    assert len(set(titles)) == len(titles)


@each_panel
def test_panel__says_what_it_shows(dashboard: Json, panel: Json) -> None:
    """Each panel has a title, sentences, a unit, and a name for each of its series."""
    assert dashboard["description"].endswith(".")
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(target["legendFormat"] for target in panel["targets"] if "expr" in target)
    if panel["type"] in {"timeseries", "barchart"}:
        assert panel["options"]["legend"]["showLegend"]


@each_panel
def test_panel__asks_the_source_and_window_that_were_chosen(dashboard: Json, panel: Json) -> None:
    """No panel is bound to one data source, or to one window."""
    assert dashboard["uid"]
    assert panel["datasource"] in SOURCES
    for target in panel["targets"]:
        assert "datasource" not in target
        assert not FIXED_WINDOW.search(target.get("expr", ""))


@each_panel
def test_panel__shows_no_old_number_as_new(dashboard: Json, panel: Json) -> None:
    """A panel of one moment asks for this moment: a ratio that is withheld is not there."""
    assert dashboard["uid"]
    is_over_time = panel["type"] in OVER_TIME
    for target in panel["targets"]:
        if "expr" in target:
            assert (target["instant"], target["range"]) == (not is_over_time, is_over_time)
        else:
            assert target["format"] == ("time_series" if is_over_time else "table")


@each_panel
def test_panel__shows_columns_that_there_are(dashboard: Json, panel: Json) -> None:
    """What a table or a chart of bars takes from its answers is asked for, and is told apart."""
    assert dashboard["uid"]
    renamed = _renamed(panel)
    letters = {target["refId"] for target in panel["targets"]}
    for field in renamed:
        if field.startswith("Value"):
            assert (
                field == "Value" if len(letters) == 1 else field.removeprefix("Value #") in letters
            )
        else:
            assert all(field in _labels(target["expr"]) for target in panel["targets"][:1])
    assert len(set(renamed.values())) == len(renamed)
    if panel["type"] == "table":
        shown = [each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]]
        assert shown == list(renamed.values()) or shown == _columns(panel)


@pytest.mark.parametrize(("name", "panel"), list(sql_panels()))
def test_panel__reads_the_views_that_are_an_interface(name: str, panel: Json) -> None:
    """A question to Postgres reads views that others may rely on, and no table."""
    assert name == "customers"
    for target in panel["targets"]:
        own = set(NAMED_IN_PLACE.findall(target["rawSql"]))
        assert set(READ.findall(target["rawSql"])) <= VIEWS | own
        assert "$__timeFilter(" in target["rawSql"]


def _renamed(panel: Json) -> dict[str, str]:
    for each in panel.get("transformations", []):
        if each["id"] == "organize":
            renamed: dict[str, str] = each["options"]["renameByName"]
            return renamed
    return {}


def _labels(expression: str) -> set[str]:
    """The labels that an aggregation keeps."""
    found = re.search(r"by \(([^)]*)\)", expression)
    return set() if found is None else set(re.split(r",\s*", found[1]))


def _columns(panel: Json) -> list[str]:
    """The columns that a question in SQL names."""
    (target,) = panel["targets"]
    found: list[str] = re.findall(r' AS "([^"]+)"', target["rawSql"])
    return found


def _cells(place: dict[str, Any]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y
