"""What was scraped is put into Prometheus's own store, and the rules are evaluated over it."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tests.stacks.prometheus import Prometheus, reading_prometheus
from tests.stacks.queries import RECORDED, Json

COMMAND_SECONDS_MAX = 300


@contextmanager
def remembering_prometheus(
    scraped: Sequence[str], *, groups: Sequence[Json], folder: Path, begin: datetime, end: datetime
) -> Iterator[Prometheus]:
    """A Prometheus that remembers what was scraped, each minute, and what the rules made of it."""
    store = folder / "prometheus"
    (folder / "scraped.txt").write_text("\n".join([*scraped, "# EOF\n"]), "utf-8")
    _promtool("tsdb", "create-blocks-from", "openmetrics", "scraped.txt", str(store), folder=folder)
    # Rules of a level ask for what those of lower levels recorded, and for nothing else recorded.
    for level in _levels(groups):
        # Prometheus evaluates a group at seconds that follow from its name and file: let all
        # levels have one, or each would see the one before as it was a moment ago.
        path = folder / "rules-of-a-level.json"
        path.write_text(json.dumps({"groups": [{"name": "level", "rules": level}]}), "utf-8")
        with reading_prometheus(folder=folder) as prometheus:
            _promtool(
                *("tsdb", "create-blocks-from", "rules"),
                *("--url", prometheus.url),
                *("--start", f"{begin.timestamp():.0f}", "--end", f"{end.timestamp():.0f}"),
                *("--eval-interval", "60s", "--output-dir", str(store), path.name),
                folder=folder,
            )
    with reading_prometheus(folder=folder) as prometheus:
        yield prometheus


def _levels(groups: Sequence[Json]) -> list[list[Json]]:
    """The rules that record, in levels; those of a level ask for nothing of the same one."""
    level_of: dict[str, int] = {}
    levels: list[list[Json]] = []
    for group in groups:
        for rule in group["rules"]:
            if "record" in rule:
                # One that asks for itself asks for what it was before.
                asked = set(re.findall(RECORDED, rule["expr"])) - {rule["record"]}
                level = 1 + max((level_of[name] for name in asked), default=-1)
                level_of[rule["record"]] = level
                if level == len(levels):
                    levels.append([])
                levels[level].append(rule)
    return levels


def _promtool(*arguments: str, folder: Path) -> None:
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
