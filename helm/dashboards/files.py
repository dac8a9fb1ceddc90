"""The files of the dashboards: which there are, and whether they say what the code says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from helm.dashboards import customers, factory, health
from helm.dashboards.dashboard import Dashboard, to_json

FOLDER: Final = Path(__file__).resolve().parents[1] / "tokenworks" / "dashboards"
DASHBOARDS: Final[dict[str, Dashboard]] = {
    "factory.json": factory.DASHBOARD,
    "customers.json": customers.DASHBOARD,
    "health.json": health.DASHBOARD,
}


def make_files() -> Iterator[tuple[str, str]]:
    """Each file's name and text."""
    for name, dashboard in DASHBOARDS.items():
        yield name, json.dumps(to_json(dashboard), indent=1, ensure_ascii=False) + "\n"


def is_fresh(name: str, *, text: str) -> bool:
    """Tell whether the file in the tree is this text."""
    path = FOLDER / name
    return path.exists() and path.read_text("utf-8") == text


def write() -> None:
    """Write all files."""
    for name, text in make_files():
        (FOLDER / name).write_text(text, "utf-8")
