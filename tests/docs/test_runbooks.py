"""Who is called finds a page: one for each alert, with commands that exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

import billing.metrics
import meter.metrics
from cli.main import tokenworks

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "helm/tokenworks/rules"
ALERTS = re.findall(r"^ +- alert: (\w+)$", (RULES / "alerts.yaml").read_text("utf-8"), re.MULTILINE)
PAGES = {path.stem: path.read_text("utf-8") for path in (ROOT / "docs/runbooks").glob("*.md")}
SECTIONS = ["What it means", "What to look at", "What to do", "When to ignore it"]
COMMAND = re.compile(r"^tokenworks .*$|`(tokenworks [a-z][^`]*)`", re.MULTILINE)
CATALOGUE = {entry.name for entry in (*meter.metrics.CATALOGUE, *billing.metrics.CATALOGUE)}
RECORDED = set(re.findall(r"- record: (\S+)", (RULES / "recording.yaml").read_text("utf-8")))
# The promises, whose series the chart makes over more windows.
PROMISED = set(re.findall(r"- record: (\S+)", (RULES / "slo.yaml").read_text("utf-8")))


def test_runbooks__one_for_each_alert() -> None:
    """Each alert has its page, no page is left over, and each alert points to its own."""
    assert len(set(ALERTS)) == len(ALERTS)
    assert PAGES.keys() == set(ALERTS)
    text = (RULES / "alerts.yaml").read_text("utf-8")
    found = re.findall(r"alert: (\w+)$.*?runbook_url: (\S+)$", text, re.MULTILINE | re.DOTALL)
    assert found == [(alert, f"docs/runbooks/{alert}.md") for alert in ALERTS]


@pytest.mark.parametrize("alert", sorted(PAGES))
def test_runbook__has_its_parts(alert: str) -> None:
    """A page is named as its alert, and says what it means, what to look at, to do, to ignore."""
    page = PAGES[alert]
    assert page.startswith(f"# {alert}\n\nFires when ")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == SECTIONS
    parts = re.split(r"^## .*$", page, flags=re.MULTILINE)[1:]
    assert all(part.strip() for part in parts)


@pytest.mark.parametrize("alert", sorted(PAGES))
def test_runbook__commands_exist(alert: str) -> None:
    """Each command that a page names is there, with the options that it is given."""
    commands = [match[1] or match[0] for match in COMMAND.finditer(PAGES[alert])]
    for line in commands:
        words = shlex.split(line)[1:]
        command: click.Command = tokenworks
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, line
            command = found
        known = {option for each in command.params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("alert", sorted(PAGES))
def test_runbook__metrics_exist(alert: str) -> None:
    """Each series that a page names is of a catalogue, or recorded."""
    asked = re.findall(r"[\w:]*\btokenworks_\w+(?::\w+)?", PAGES[alert])
    known = CATALOGUE | RECORDED | {each.replace("5m", "1h") for each in RECORDED} | PROMISED
    parts = {re.sub(r"_(bucket|count)$", "", each) for each in asked}
    assert parts <= known


def test_metrics_page__names_what_is_recorded() -> None:
    """The recorded series of the page of metrics are recorded, and what others call so is here."""
    page = (ROOT / "docs/reference/metrics.md").read_text("utf-8")
    series = re.findall(r"^\| `(\S+:tokenworks_\S+)` ", page, re.MULTILINE)
    names = {f"{level}:{name}" for each in series for level, name in levels_of(each)}
    assert names <= RECORDED
    assert {
        it for it in RECORDED if "ratio_" in it and not it.startswith("pool:tokenworks_pue")
    } <= (names)
    here = set(re.findall(r"^\| `[^`:]+` \| `(tokenworks_\w+)` \|", page, re.MULTILINE))
    assert here
    assert here <= CATALOGUE


def levels_of(series: str) -> list[tuple[str, str]]:
    """Return the levels and the name of a series whose levels are written in braces."""
    levels, _, name = series.partition(":")
    return [(level, name) for level in levels.strip("{}").split(",")]
