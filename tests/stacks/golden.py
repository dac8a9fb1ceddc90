"""What the chart renders of its examples, kept in files.

`python -m tests.stacks.golden` writes them anew. Dashboards and rules are left out: they have files
and tests of their own.
"""

import importlib
from pathlib import Path
from typing import Final

from tests.stacks.chart import EXAMPLES, Engine

FOLDER: Final = Path(__file__).parent / "golden"
# Of these templates all that follows the line is left out.
_UNTIL: Final = {"dashboard.yaml": "data:", "prometheusrule.yaml": "  groups:"}


def written(engine: Engine, example: str) -> str:
    """Return what is kept of an example: its objects as they are written, a template each."""
    parts = []
    for name, text in engine.texts(engine.values(example)).items():
        lines = text.strip().splitlines()
        if name in _UNTIL:
            lines = lines[: lines.index(_UNTIL[name]) + 1]
        parts.append("\n".join([f"# {name}", *(line.rstrip() for line in lines)]))
    return "\n---\n".join(parts) + "\n"


def write_all() -> None:
    """Write the files of all examples anew."""
    engine = Engine(importlib.import_module("helm_python"))
    FOLDER.mkdir(exist_ok=True)
    for example in EXAMPLES:
        (FOLDER / f"{example}.yaml").write_text(written(engine, example), "utf-8")


if __name__ == "__main__":
    write_all()
