"""Makes the tables of docs/reference/performance.md of what lies in benchmarks/measured.

`python -m benchmarks.page` writes them anew; a test holds that they are fresh.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.__main__ import ROWS
from benchmarks.growth import MEASURED, SWEEPS

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "performance.md"
_TITLES: Final = {
    "batch": "Batches",
    "dimensions": "Dimensions",
    "producers": "Producers",
    "workers": "Workers",
    "journal": "The journal",
}
assert _TITLES.keys() == SWEEPS.keys()


def made(text: str, *, measured: Path = MEASURED) -> str:
    """Return the page with its tables made anew."""
    for name, block in (("rows", _rows_table(measured)), ("growth", _growth(measured))):
        place = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        text, count = place.subn(lambda found, block=block: found[1] + block + found[2], text)  # type: ignore[misc]
        assert count == 1, name
    return text


def _rows_table(measured: Path) -> str:
    path = measured / "bench.json"
    taken: Mapping[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    lines = [
        "| row | in | goal | measured | bound | reached | taken |",
        "| --- | --- | --- | ---: | ---: | --- | --- |",
    ]
    for name, (_, unit, goal) in ROWS.items():
        row = taken.get(name)
        cells = ["–", "–", "–", "–"] if row is None else _cells(row)
        lines.append(f"| `{name}` | {unit} | {goal.words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    reached = "yes" if row["ok"] else "; ".join(["no", *row["unmet"]])
    machine = row["machine"]
    return [
        _short(row["value"]),
        _short(row["bound"]),
        reached,
        f"{machine['date']}, `{machine['commit']}`",
    ]


def _short(value: float) -> str:
    """Return a number with three digits that count."""
    return f"{float(f'{value:.3g}'):,.10g}"


def _growth(measured: Path) -> str:
    parts = []
    for name, title in _TITLES.items():
        path = measured / f"growth-{name}.json"
        if not path.exists():
            parts.append(
                f"### {title}\n\nNot taken yet: `python -m benchmarks.growth --only {name}`."
            )
            continue
        workload = json.loads(path.read_text("utf-8"))["workload"]
        parts.append(f"### {title}\n\n![{title}: {workload}](../images/growth-{name}.png)")
    return "\n\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text("utf-8")), "utf-8")
