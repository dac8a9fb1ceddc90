"""A whole dashboard as a page of HTML, on Grafana's grid and in its dark colours."""

from collections.abc import Mapping, Sequence
from html import escape

from tests.stacks.grafana import Choices
from tests.stacks.pictures import at_once, over_time
from tests.stacks.pictures.answers import Answer, Line
from tests.stacks.pictures.look import Look
from tests.stacks.queries import Json

WIDTH = 1680
_MARGIN = 16
_HEAD = 104
# Of Grafana: the height of a cell of the grid, and what lies between two.
_CELL, _GAP = 30, 8
_COLUMNS = 24
_PADDING = 10
_TITLE = 36
_LEGEND_WIDTH = 200
_KEYS_HEIGHT = 19
_KEY_WIDTH, _DIGIT_WIDTH = 36, 6.9
_LINE_HEIGHT = 23

_STYLE = """
* { box-sizing: border-box; margin: 0; }
body { background: #111217; color: #ccccdc; font: 14px 'Liberation Sans', sans-serif; }
.place { position: absolute; overflow: hidden; }
.panel { background: #181b1f; border: 1px solid #2a2d33; border-radius: 3px; }
.panel h2 { font-size: 14px; font-weight: 600; padding: 10px 10px 0; height: 36px; }
.panel small { font-size: 12px; font-weight: 400; color: #8e8e99; margin-left: 8px; }
.inside { padding: 0 10px; display: flex; }
.row { font-size: 17px; font-weight: 600; color: #e6e6f0; padding-top: 4px; }
.head { left: 16px; top: 14px; }
.head h1 { font-size: 22px; display: inline; }
.head p { color: #8e8e99; display: inline; margin-left: 14px; }
.chosen { margin-top: 16px; display: flex; gap: 8px; }
.chosen span { border: 1px solid #2a2d33; border-radius: 3px; background: #181b1f;
  padding: 6px 10px; }
.chosen b { font-weight: 400; color: #6e9fff; margin-right: 8px; }
.numbers { width: 100%; }
.number { display: flex; align-items: center; justify-content: space-between; }
.alone .number { justify-content: center; }
.named { font-size: 15px; }
.legend { width: 200px; padding-left: 12px; overflow: hidden; font-size: 12.5px; }
.legend div { display: flex; height: 23px; align-items: center; white-space: nowrap; }
.legend div span { overflow: hidden; text-overflow: ellipsis; flex: 1; padding-right: 6px; }
.keys { display: flex; flex-wrap: wrap; font-size: 12.5px; gap: 2px 14px; padding-left: 8px;
  overflow: hidden; align-items: center; padding-top: 4px; }
i { font-style: normal; }
.legend i, .key i { width: 14px; height: 4px; border-radius: 2px; margin-right: 7px;
  display: inline-block; vertical-align: middle; flex: none; }
.key { white-space: nowrap; }
.panel .inside.tall { display: block; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { font-weight: 600; color: #6e9fff; height: 36px; border-bottom: 1px solid #2a2d33; }
td { height: 36px; border-bottom: 1px solid #22252b; white-space: nowrap; }
th, td { padding: 0 8px; }
.left { text-align: left; } .right { text-align: right; }
td.barred { min-width: 150px; } th { white-space: nowrap; }
td.barred div { display: flex; align-items: center; }
td.barred i { flex: 1; height: 16px; background: #24272d; }
td.barred b { display: block; height: 16px; background: #73bf69; }
td.barred span { width: 84px; text-align: right; color: #73bf69; }
"""


def draw(
    dashboard: Json, *, answers: Mapping[int, Answer], choices: Choices, shown: Mapping[str, str]
) -> str:
    """Draw a dashboard with the answers by panels' ids; `shown` stands in its head."""
    places = [_draw_panel(it, answers=answers, choices=choices) for it in dashboard["panels"]]
    chosen = "".join(f"<span><b>{escape(k)}</b>{escape(v)}</span>" for k, v in shown.items())
    head = (
        f'<div class="place head"><h1>{escape(dashboard["title"])}</h1>'
        f'<p>{escape(dashboard["description"])}</p><div class="chosen">{chosen}</div></div>'
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(dashboard['title'])}</title><style>{_STYLE}</style></head>"
        f"<body>{head}{''.join(places)}</body></html>"
    )


def height_of(dashboard: Json) -> int:
    """How many pixels a page is high."""
    last = max(it["gridPos"]["y"] + it["gridPos"]["h"] for it in dashboard["panels"])
    return int(_HEAD + last * (_CELL + _GAP) + _MARGIN)


def _draw_panel(panel: Json, *, answers: Mapping[int, Answer], choices: Choices) -> str:
    place = panel["gridPos"]
    column = (WIDTH - 2 * _MARGIN + _GAP) / _COLUMNS
    width = place["w"] * column - _GAP
    height = place["h"] * (_CELL + _GAP) - _GAP
    left = _MARGIN + place["x"] * column
    top = _HEAD + place["y"] * (_CELL + _GAP)
    where = f"left:{left:.0f}px;top:{top:.0f}px;width:{width:.0f}px;height:{height:.0f}px"
    title = escape(panel["title"])
    if "timeFrom" in panel:
        title += f" <small>last {panel['timeFrom']}</small>"
    if panel["type"] == "row":
        return f'<div class="place row" style="{where}">{title}</div>'
    inside = _draw_inside(
        panel,
        answer=answers[panel["id"]],
        choices=choices.of(panel),
        width=width - 2 * _PADDING,
        height=height - _TITLE - _PADDING,
    )
    tall = " tall" if panel["type"] in {"barchart", "table"} else ""
    return (
        f'<div class="place panel" style="{where}"><h2>{title}</h2>'
        f'<div class="inside{tall}">{inside}</div></div>'
    )


def _draw_inside(
    panel: Json, *, answer: Answer, choices: Choices, width: float, height: float
) -> str:
    look = Look(panel)
    if answer.is_empty:
        return "No data"
    match panel["type"]:
        case "stat":
            return at_once.draw_numbers(
                answer.values,
                look=look,
                width=width,
                height=height,
                mode=panel["options"]["textMode"],
            )
        case "bargauge":
            return at_once.draw_bar_gauge(answer.values, look=look, width=width, height=height)
        case "barchart":
            assert answer.table is not None
            return at_once.draw_bar_chart(
                answer.table, panel=panel, look=look, width=width, height=height
            )
        case "table":
            assert answer.table is not None
            return at_once.draw_table(answer.table, look=look, height=height)
    return _draw_over_time(
        panel, answer=answer, look=look, choices=choices, width=width, height=height
    )


def _draw_over_time(
    panel: Json, *, answer: Answer, look: Look, choices: Choices, width: float, height: float
) -> str:
    is_beside = panel["options"]["legend"]["placement"] == "right"
    keys_height = _KEYS_HEIGHT * _count_rows([line.name for line in answer.lines], width=width) + 8
    drawn = over_time.draw(
        answer.lines,
        look=look,
        width=width - (_LEGEND_WIDTH if is_beside else 0),
        height=height - (0 if is_beside else keys_height),
        begin=choices.begin,
        end=choices.end,
    )
    colors = look.colors([line.name for line in answer.lines])
    if is_beside:
        room = int(height // _LINE_HEIGHT)
        rows = "".join(
            f'<div><i style="background:{color}"></i><span>{escape(line.name)}</span>'
            f"{escape(_last(line, look=look))}</div>"
            for line, color in list(zip(answer.lines, colors, strict=True))[:room]
        )
        return f'{drawn}<div class="legend">{rows}</div>'
    keys = "".join(
        f'<span class="key"><i style="background:{color}"></i>{escape(line.name)}</span>'
        for line, color in zip(answer.lines, colors, strict=True)
    )
    return f'<div>{drawn}<div class="keys">{keys}</div></div>'


def _count_rows(names: Sequence[str], *, width: float) -> int:
    """How many rows the names take below each other."""
    rows, x = 1, 0.0
    for name in names:
        own = _KEY_WIDTH + len(name) * _DIGIT_WIDTH
        if x + own > width:
            rows, x = rows + 1, 0.0
        x += own
    return rows


def _last(line: Line, *, look: Look) -> str:
    points: Sequence[tuple[float, float]] = sorted(line.points.items())
    return look.write(points[-1][1], line.name)
