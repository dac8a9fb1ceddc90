"""Which of the things said of a long request is the one that has to count.

Of a process that was killed the last thing said before its last promise, or any later one, may
count, but only one, whole. Nothing of the product.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance import checker


@dataclass(kw_only=True)
class Resolved:
    """One event for each request, to compare with the journal."""

    events: list[Mapping[str, Any]] = field(default_factory=list)
    unpromised_count: int = 0
    """Requests of which nothing was promised, and nothing counted."""
    older_count: int = 0
    """Requests counted with less than what was promised."""


def resolve(truth: Path, *, counted: Mapping[str, checker.Row]) -> Resolved:
    """Choose for each request what counted, where that was ever said; else what should have."""
    promised_lines = int(truth.with_suffix(".promised").read_text("ascii") or "0")
    said: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for index, line in enumerate(truth.read_text("utf-8").splitlines()):
        event = json.loads(line)
        said.setdefault(event["request_id"], []).append((index, event))
    resolved = Resolved()
    for request_id, versions in said.items():
        promised = [event for index, event in versions if index < promised_lines]
        row = counted.get(request_id)
        if row is None:
            if promised:
                # It should have counted: the checker will say that it is lost.
                resolved.events.append(promised[-1])
            else:
                resolved.unpromised_count += 1
            continue
        wanted = {name: count for name, count in row.counts.items() if count}
        matching = [event for _, event in versions if _counts(event) == wanted]
        if not matching:
            # Counts that nobody ever said: the checker will name the difference.
            resolved.events.append(versions[-1][1])
            continue
        if promised and _output(promised[-1]) > _output(matching[-1]):
            resolved.older_count += 1
        resolved.events.append(matching[-1] | {"end_time_ms": row.end_ms})
    return resolved


def _counts(event: Mapping[str, Any]) -> dict[str, int]:
    return {name: count for name, count in event["classes"].items() if count}


def _output(event: Mapping[str, Any]) -> int:
    return int(event["classes"]["output"])
