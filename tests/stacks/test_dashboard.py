"""The dashboard and the rules: that they ask for what there is, and that a person can read them."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

import billing.metrics
import meter.metrics
from meter.domain.tokens import OUTPUT_CLASSES, TokenClass
from tests.stacks.chart import CHART
from tests.stacks.queries import DASHBOARD, RECORDED, SCRAPED, WINDOWS, dashboard_queries

CATALOGUE = {entry.name for entry in (*meter.metrics.CATALOGUE, *billing.metrics.CATALOGUE)}
RULES = (CHART / "rules/recording.yaml").read_text("utf-8")
ALERTS = (CHART / "rules/alerts.yaml").read_text("utf-8")
COLUMNS = 24
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
# What shows one moment must not show an old one where there is none now.
OF_A_MOMENT = {"stat", "bargauge"}


@pytest.mark.parametrize("text", [RULES, ALERTS, *dashboard_queries()])
def test_query__names_metrics_that_exist(text: str) -> None:
    """Every metric that is asked for is in a catalogue."""
    assert {match[0] for match in SCRAPED.finditer(text)} <= CATALOGUE


@pytest.mark.parametrize("window", WINDOWS)
def test_query__names_rules_that_exist(window: str) -> None:
    """Every recorded series that is asked for is recorded."""
    asked = "\n".join([RULES.replace("5m", window), ALERTS, *dashboard_queries()])
    recorded = {
        name.replace("5m", each)
        for name in re.findall(r"- record: (\S+)", RULES)
        for each in WINDOWS
    }
    assert {match[0] for match in RECORDED.finditer(asked)} <= recorded


def test_rules__output_is_the_same_as_the_meter_s() -> None:
    """The rules add up the token classes that the meter calls output."""
    patterns = set(re.findall(r'token_class=~"([^"]+)"', RULES))
    (pattern,) = patterns
    assert {each for each in TokenClass if re.fullmatch(pattern, each.name)} == OUTPUT_CLASSES


def test_dashboard__has_a_name_that_stays() -> None:
    """Links to it go on working, and it says which schema it was written for."""
    assert (DASHBOARD["uid"], DASHBOARD["title"]) == ("tokenworks-factory", "Factory")
    assert DASHBOARD["schemaVersion"] == 41
    assert "id" not in DASHBOARD


def test_dashboard__offers_the_windows_of_the_rules() -> None:
    """The reader chooses among the windows that are recorded, and one is chosen already."""
    (variable,) = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "custom"]
    assert variable["query"].split(",") == WINDOWS
    assert [each["value"] for each in variable["options"]] == WINDOWS
    assert variable["current"] in variable["options"]


def test_panel__ids_are_unique() -> None:
    """No two panels have one id, no two queries of a panel one letter."""
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_panel__lies_on_no_other() -> None:
    """Panels fill whole rows of the grid, side by side."""
    cells = [cell for panel in PANELS for cell in _cells(panel["gridPos"])]
    assert len(set(cells)) == len(cells)
    rows = {y for _, y in cells}
    assert len(cells) == COLUMNS * len(rows)
    assert rows == set(range(len(rows)))


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_panel__says_what_it_shows(panel: dict[str, Any]) -> None:
    """Each panel has a title, a sentence, a unit, and a name for each of its series."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_panel__asks_the_source_and_window_that_were_chosen(panel: dict[str, Any]) -> None:
    """No panel is bound to one Prometheus, or to one window."""
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert "datasource" not in target
        assert not re.search(r"rate\d|\[\d", target["expr"])


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_panel__shows_no_old_number_as_new(panel: dict[str, Any]) -> None:
    """A panel of one moment asks for this moment: a ratio that is withheld is not there."""
    for target in panel["targets"]:
        is_of_a_moment = panel["type"] in OF_A_MOMENT
        assert (target["instant"], target["range"]) == (is_of_a_moment, not is_of_a_moment)


def _cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y
