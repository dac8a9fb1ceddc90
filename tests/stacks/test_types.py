"""What the chart renders, held by a compiler to the types of Grafana and of the operator."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stacks.chart import Engine
from tests.stacks.queries import DASHBOARDS, Json, panels

PROJECT = Path(__file__).parent / "manifests"
RENDERED = PROJECT / "build" / "rendered.ts"
COMMAND_SECONDS_MAX = 120
MISSPELT = [
    ("Dashboard", "schemaVersion", "schemaversion"),
    ("Dashboard", "gridPos", "gridpos"),
    ("Dashboard", "palette-classic-by-name", "palette-by-name"),
    ("Dashboard", "decimals", "decimal"),
    ("Options", "graphMode", "graphmode"),
    ("Options", "showHeader", "showHead"),
    ("Options", "groupWidth", "groupwidth"),
    ("Custom", "cellOptions", "cellOption"),
    ("Custom", "never", "nowhere"),
    ("IServiceMonitor", "interval", "intervall"),
    ("IServiceMonitor", "matchLabels", "matchlabels"),
    ("IPrometheusRule", "record", "recorded"),
    ("IPrometheusRule", "annotations", "annotation"),
    ("ICertificate", "dnsNames", "dnsnames"),
    ("ICertificate", "rotationPolicy", "rotation"),
    ("ICertificate", "server auth", "serving"),
]
pytestmark = [
    pytest.mark.stacks,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]


@pytest.fixture(scope="module")
def compiler() -> Path:
    """The compiler, installed with the types."""
    done = _run(
        "npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    RENDERED.parent.mkdir(exist_ok=True)
    return PROJECT / "node_modules" / ".bin" / "tsc"


def test_rendered__is_of_those_types(engine: Engine, compiler: Path) -> None:
    """Dashboards, their panels' options and the operator's objects are what their readers know."""
    done = _compile(compiler, list(_typed(engine)))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("of", "right", "wrong"), MISSPELT)
def test_rendered__misspelt(
    engine: Engine, compiler: Path, of: str, right: str, wrong: str
) -> None:
    """A key or a value that its reader does not know is found."""
    typed = [
        (name, json.loads(json.dumps(value).replace(f'"{right}"', f'"{wrong}"')))
        for name, value in _typed(engine)
        if name.startswith(of)
    ]
    done = _compile(compiler, typed)
    assert done.returncode != 0
    assert wrong in done.stdout


def _typed(engine: Engine) -> Iterator[tuple[str, Any]]:
    """Values, each with the name of its type in `types.ts`."""
    yield "IServiceMonitor", engine.get("ServiceMonitor")
    yield "IPrometheusRule", engine.get("PrometheusRule")
    yield "ICertificate", engine.get("Certificate")
    for dashboard in DASHBOARDS.values():
        yield "Dashboard", dashboard
        for panel in panels(dashboard):
            yield f'Options["{panel["type"]}"]', panel["options"]
            if "custom" in panel["fieldConfig"]["defaults"]:
                yield f'Custom["{panel["type"]}"]', panel["fieldConfig"]["defaults"]["custom"]
            yield from _typed_overrides(panel)


def _typed_overrides(panel: Json) -> Iterator[tuple[str, Any]]:
    """What is set for single fields, under the names of the settings of all fields."""
    for override in panel["fieldConfig"]["overrides"]:
        custom = {
            each["id"].removeprefix("custom."): each["value"]
            for each in override["properties"]
            if each["id"].startswith("custom.")
        }
        if custom:
            yield f'Custom["{panel["type"]}"]', custom


def _compile(compiler: Path, typed: list[tuple[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Compile a module that says of each value that it is of its type."""
    lines = [
        f"export const value{index}: types.{name} = {json.dumps(value)};"
        for index, (name, value) in enumerate(typed)
    ]
    text = "\n".join(['import type * as types from "../types.js";', *lines])
    RENDERED.write_text(text, "utf-8")
    return _run(compiler, "--project", ".")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=PROJECT,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
