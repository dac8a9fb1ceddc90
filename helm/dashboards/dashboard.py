"""A dashboard: rows of panels, laid out on Grafana's grid, and what its reader may choose."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from helm.dashboards.panels import Panel
from helm.dashboards.questions import Json

# The version of Grafana's schema that these are written for.
SCHEMA_VERSION: Final = 41
COLUMN_COUNT: Final = 24
ROW_TITLE_HEIGHT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under a title, side by side: each line of them is 24 columns wide.

    `heights` are those of its lines, in Grafana's units.
    """

    title: str
    heights: tuple[int, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """What a file holds; `uid` stays, for links go to it. `begin` is how far it looks back."""

    uid: str
    title: str
    description: str
    begin: str
    refresh: str
    variables: tuple[Json, ...]
    rows: tuple[Row, ...]


def to_json(dashboard: Dashboard) -> Json:
    """Return a dashboard as Grafana reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["tokenworks"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": dashboard.refresh,
        "time": {"from": dashboard.begin, "to": "now"},
        "annotations": {"list": []},
        "links": [_link_to_others()],
        "templating": {"list": list(dashboard.variables)},
        "panels": list(_laid_out(dashboard.rows)),
    }


def _laid_out(rows: Sequence[Row]) -> Iterator[Json]:
    """Number the panels from 1 and give each its place."""
    number, y = 0, 0
    for row in rows:
        number += 1
        place = {"x": 0, "y": y, "w": COLUMN_COUNT, "h": ROW_TITLE_HEIGHT}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        y += ROW_TITLE_HEIGHT
        x, heights = 0, iter(row.heights)
        height = next(heights)
        for panel in row.panels:
            if x == COLUMN_COUNT:
                x, y = 0, y + height
                height = next(heights)
            number += 1
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            yield {"id": number, **panel.json, "gridPos": place}
            x += panel.width
        assert x == COLUMN_COUNT, f"{row.title}: the last line is {x} columns wide"
        assert next(heights, None) is None, f"{row.title}: there are more heights than lines"
        y += height


def _link_to_others() -> Json:
    return {
        "type": "dashboards",
        "title": "Tokenworks",
        "tags": ["tokenworks"],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": False,
        "keepTime": False,
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }
