"""Panels as Grafana reads them, each from what it asks and how it is to look."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from helm.dashboards.questions import (
    LETTERS,
    Column,
    Json,
    Query,
    has_names,
    to_source,
    to_target,
    to_transformations,
)

# The tiers that an installation begins with look the same on each panel.
_TIER_COLORS: Final = {
    "free": "#9fa7b3",
    "medium": "#5794f2",
    "high": "#73bf69",
    "premium": "#ff9830",
    "ultra": "#e0457b",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel without a place: `width` is in columns of 24, `json` lacks `id` and `gridPos`."""

    width: int
    json: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The colour of values that are at least `value`; None is for all below the next step."""

    value: float | None
    color: str


GOOD: Final = (Step(value=None, color="green"),)
BAD_ABOVE_ZERO: Final = (Step(value=None, color="green"), Step(value=0.000001, color="red"))
GOOD_AT_ONE: Final = (Step(value=None, color="red"), Step(value=1, color="green"))


def stat(
    title: str,
    *,
    says: str,
    asks: Sequence[Query],
    unit: str,
    width: int = 4,
    steps: Sequence[Step] = GOOD,
    decimals: int | None = None,
    only_names: bool = False,
) -> Panel:
    """One number of this moment, or a few that have names; or the names alone."""
    has_many = len(asks) > 1 or has_names(asks)
    return _panel(
        "stat",
        title=title,
        says=says,
        asks=asks,
        width=width,
        moment=True,
        field=_field(unit, steps=steps, decimals=decimals, color={"mode": "thresholds"}),
        options={
            "graphMode": "none",
            "colorMode": "value",
            "textMode": "name" if only_names else "value_and_name" if has_many else "auto",
            "justifyMode": "auto",
            "orientation": "horizontal",
            "wideLayout": True,
            "reduceOptions": _last_values(),
            "percentChangeColorMode": "standard",
            "showPercentChange": False,
        },
    )


def bar_gauge(
    title: str,
    *,
    says: str,
    asks: Sequence[Query],
    unit: str,
    width: int = 8,
    steps: Sequence[Step] = (),
    greatest: float | None = None,
    decimals: int | None = None,
) -> Panel:
    """A bar for each series of this moment; without steps each has the colour of its name."""
    color = {"mode": "thresholds" if steps else "palette-classic-by-name"}
    field = _field(unit, steps=steps or GOOD, decimals=decimals, color=color)
    field["defaults"]["min"] = 0
    if greatest is not None:
        field["defaults"]["max"] = greatest
    if not steps:
        field["overrides"] = _tier_overrides()
    return _panel(
        "bargauge",
        title=title,
        says=says,
        asks=asks,
        width=width,
        moment=True,
        field=field,
        options={
            "displayMode": "basic",
            "orientation": "horizontal",
            "valueMode": "color",
            "namePlacement": "left",
            "showUnfilled": True,
            "sizing": "auto",
            "minVizWidth": 8,
            "minVizHeight": 16,
            "maxVizHeight": 48,
            "reduceOptions": _last_values(),
            "legend": {
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": False,
                "calcs": [],
            },
        },
    )


def series(
    title: str,
    *,
    says: str,
    asks: Sequence[Query],
    unit: str,
    width: int = 12,
    stacked: bool = False,
    bars: bool = False,
    from_zero: bool = True,
    dashed: str | None = None,
    legend: str = "right",
    decimals: int | None = None,
    last: str | None = None,
) -> Panel:
    """Lines over time, or areas or bars upon each other; series that `dashed` fits are limits.

    `last` is how far back it looks whatever time is chosen: 3h.
    """
    field = _field(unit, steps=None, decimals=decimals, color={"mode": "palette-classic-by-name"})
    if from_zero:
        field["defaults"]["min"] = 0
    field["defaults"]["custom"] = {
        "drawStyle": "bars" if bars else "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 70 if bars else (30 if stacked else 8),
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    field["overrides"] = _tier_overrides()
    if dashed is not None:
        field["overrides"].append(_dashed(dashed))
    return _panel(
        "timeseries",
        title=title,
        last=last,
        says=says,
        asks=asks,
        width=width,
        moment=False,
        field=field,
        options={
            "legend": {
                "displayMode": "table" if legend == "right" else "list",
                "placement": legend,
                "showLegend": True,
                "calcs": ["lastNotNull"] if legend == "right" else [],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def bar_chart(
    title: str,
    *,
    says: str,
    asks: Sequence[Query],
    columns: Sequence[Column],
    unit: str,
    width: int = 8,
    upright: bool = False,
    decimals: int | None = None,
) -> Panel:
    """Groups of bars: the first column names the groups, each other one is a bar in each."""
    field = _field(unit, steps=None, decimals=decimals, color={"mode": "palette-classic"})
    field["defaults"]["min"] = 0
    field["defaults"]["custom"] = {"fillOpacity": 80, "lineWidth": 1}
    return _panel(
        "barchart",
        title=title,
        says=says,
        asks=asks,
        width=width,
        moment=True,
        is_table=True,
        field=field,
        transformations=to_transformations(asks, columns=columns),
        options={
            "xField": columns[0].title,
            "orientation": "vertical" if upright else "horizontal",
            "barWidth": 0.9,
            "groupWidth": 0.75,
            "barRadius": 0,
            "showValue": "auto",
            "stacking": "none",
            "fullHighlight": False,
            "xTickLabelMaxLength": 24,
            "xTickLabelRotation": 0,
            "legend": {
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
                "calcs": [],
            },
            "tooltip": {"mode": "multi", "sort": "none"},
        },
    )


def table(
    title: str,
    *,
    says: str,
    asks: Sequence[Query],
    columns: Sequence[Column],
    width: int = 12,
    by: str | None = None,
) -> Panel:
    """A table of this moment, of the columns given; by falling values of the column titled `by`."""
    field = _field("none", steps=GOOD, decimals=None, color={"mode": "thresholds"})
    field["defaults"]["custom"] = {
        "align": "auto",
        "cellOptions": {"type": "auto"},
        "inspect": False,
        "filterable": False,
    }
    field["overrides"] = [_of_column(column) for column in columns]
    return _panel(
        "table",
        title=title,
        says=says,
        asks=asks,
        width=width,
        moment=True,
        is_table=True,
        field=field,
        transformations=to_transformations(asks, columns=columns),
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "frameIndex": 0,
            "sortBy": [] if by is None else [{"displayName": by, "desc": True}],
        },
    )


def _panel(
    kind: str,
    *,
    title: str,
    says: str,
    asks: Sequence[Query],
    width: int,
    moment: bool,
    field: Json,
    options: Json,
    is_table: bool = False,
    transformations: Sequence[Json] = (),
    last: str | None = None,
) -> Panel:
    json: Json = {
        "type": kind,
        "title": title,
        "description": says,
        "datasource": to_source(asks),
        "targets": [
            to_target(query, letter=letter, moment=moment, is_table=is_table)
            for letter, query in zip(LETTERS, asks, strict=False)
        ],
        "fieldConfig": field,
        "options": options,
    }
    if last is not None:
        json["timeFrom"] = last
    if transformations:
        json["transformations"] = list(transformations)
    return Panel(width=width, json=json)


def _field(unit: str, *, steps: Sequence[Step] | None, decimals: int | None, color: Json) -> Json:
    defaults: Json = {"unit": unit, "noValue": "–", "color": color}
    if decimals is not None:
        defaults["decimals"] = decimals
    if steps is not None:
        written = [{"color": it.color, "value": it.value} for it in steps]
        defaults["thresholds"] = {"mode": "absolute", "steps": written}
    return {"defaults": defaults, "overrides": []}


def _of_column(column: Column) -> Json:
    properties: list[Json] = [{"id": "unit", "value": column.unit}]
    if column.decimals is not None:
        properties.append({"id": "decimals", "value": column.decimals})
    if column.width is not None:
        properties.append({"id": "custom.width", "value": column.width})
    if column.bar:
        gauge = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
        properties += [{"id": "custom.cellOptions", "value": gauge}, {"id": "min", "value": 0}]
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def _tier_overrides() -> list[Json]:
    return [
        _override("byName", name, [{"id": "color", "value": _fixed(color)}])
        for name, color in _TIER_COLORS.items()
    ]


def _dashed(pattern: str) -> Json:
    line = {"fill": "dash", "dash": [8, 6]}
    return _override(
        "byRegexp",
        f"/{pattern}/",
        [
            {"id": "custom.lineStyle", "value": line},
            {"id": "custom.lineWidth", "value": 2},
            {"id": "custom.fillOpacity", "value": 0},
            {"id": "custom.stacking", "value": {"mode": "none", "group": "A"}},
        ],
    )


def _override(matcher: str, options: str, properties: Iterable[Json]) -> Json:
    return {"matcher": {"id": matcher, "options": options}, "properties": list(properties)}


def _fixed(color: str) -> Json:
    return {"mode": "fixed", "fixedColor": color}


def _last_values() -> Json:
    return {"calcs": ["lastNotNull"], "fields": "", "values": False}
