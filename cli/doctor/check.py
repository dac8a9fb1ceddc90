"""One line of doctor's page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Mark(StrEnum):
    """How well something is; only a fail makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the page: what was looked at, how it is, and what to do unless it is well.

    `do` counts where it is not well. `facts` has the same in values, for programs.
    """

    name: str
    mark: Mark
    says: str
    do: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


def format_age(seconds: float) -> str:
    """Return a span of time in the unit that fits it: 12 s, 5 min, 3 h, 2 days."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < limit:
            return f"{int(seconds // size):,} {unit}"
    return f"{int(seconds // 86_400):,} days"
