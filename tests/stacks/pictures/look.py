"""How panels look: the colours of series and of thresholds, as the panel's JSON has them."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.stacks.pictures.units import write
from tests.stacks.queries import Json

TEXT = "#ccccdc"
FAINT = "#8e8e99"
GRID = "#2a2d33"
UNFILLED = "#24272d"
_NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
_PALETTE = (
    "#73bf69",
    "#f2cc0c",
    "#8ab8ff",
    "#ff780a",
    "#f2495c",
    "#5794f2",
    "#b877d9",
    "#96d98d",
    "#ffa6b0",
    "#37872d",
    "#e0b400",
    "#1f60c4",
    "#a352cc",
)


class Look:
    """The settings of a panel's fields, with what is set for single ones."""

    def __init__(self, panel: Json) -> None:
        """Take a panel."""
        self._defaults: Json = panel["fieldConfig"]["defaults"]
        self._overrides: Sequence[Json] = panel["fieldConfig"]["overrides"]

    def setting(self, name: str, field: str) -> Any:  # noqa: ANN401 - it is JSON
        """A setting of a field by its id (`custom.lineWidth`); None where nothing is set."""
        for override in self._overrides:
            if _fits(override["matcher"], field):
                for each in override["properties"]:
                    if each["id"] == name:
                        return each["value"]
        found: Any = self._defaults
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def write(self, value: object, field: str = "") -> str:
        """A value of a field as text."""
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        return write(
            value, unit=self.setting("unit", field), decimals=self.setting("decimals", field)
        )

    def colors(self, fields: Sequence[str]) -> list[str]:
        """A colour for each of the fields that a panel shows together."""
        free = self._free_colors(fields)
        return [self._fixed_color(field) or next(free) for field in fields]

    def threshold_color(self, value: float) -> str:
        """The colour of a value by the panel's steps."""
        steps = self._defaults["thresholds"]["steps"]
        fitting = [it["color"] for it in steps if it["value"] is None or value >= it["value"]]
        return _NAMED[fitting[-1]]

    @property
    def is_by_threshold(self) -> bool:
        """Whether values have the colours of their steps."""
        is_threshold: bool = self._defaults["color"]["mode"] == "thresholds"
        return is_threshold

    def _fixed_color(self, field: str) -> str | None:
        color = self.setting("color", field)
        fixed: str | None = color.get("fixedColor")
        return fixed

    def _free_colors(self, fields: Sequence[str]) -> Iterator[str]:
        taken = {self._fixed_color(field) for field in fields}
        while True:
            yield from (color for color in _PALETTE if color not in taken)


def _fits(matcher: Json, field: str) -> bool:
    if matcher["id"] == "byName":
        return bool(matcher["options"] == field)
    assert matcher["id"] == "byRegexp"
    return re.search(matcher["options"].strip("/"), field) is not None
