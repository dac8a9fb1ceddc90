"""What Grafana puts into the questions of a panel before it sends them, for given choices."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1)}
_VARIABLE = re.compile(r"\$\{(\w+):sqlstring\}|\$\{(\w+)\}|\$(\w+)")
_TIME_FILTER = re.compile(r"\$__timeFilter\((\w+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the reader of a dashboard chose: its variables, and the span of time that it shows.

    `rate_interval` is what Grafana makes of the time between scrapes: four of them at least.
    """

    begin: datetime
    end: datetime
    values: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    rate_interval: str = "1m"

    def of(self, panel: Mapping[str, Any]) -> "Choices":
        """What a panel makes of it that looks back as far as it says itself."""
        if "timeFrom" not in panel:
            return self
        number, unit = panel["timeFrom"][:-1], panel["timeFrom"][-1]
        return replace(self, begin=self.end - int(number) * _UNITS[unit])


def fill(text: str, *, choices: Choices) -> str:
    """Return a question with what was chosen; fails where it names a variable that is not there."""
    span = f"BETWEEN '{choices.begin.isoformat()}' AND '{choices.end.isoformat()}'"
    text = _TIME_FILTER.sub(lambda match: f"{match[1]} {span}", text)

    def find(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[3]
        if name == "__rate_interval":
            return choices.rate_interval
        value = choices.values[name]
        if match[1]:
            values = [value] if isinstance(value, str) else value
            return ",".join("'" + each.replace("'", "''") + "'" for each in values)
        assert isinstance(value, str), name
        return value

    return _VARIABLE.sub(find, text)
