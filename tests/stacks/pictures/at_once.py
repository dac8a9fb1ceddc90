"""Panels of one moment, as HTML: numbers, bars, groups of bars, and tables."""

from collections.abc import Iterator, Sequence
from html import escape

from tests.stacks.pictures.answers import Cell, Table
from tests.stacks.pictures.look import FAINT, GRID, TEXT, UNFILLED, Look
from tests.stacks.pictures.units import choose_ticks
from tests.stacks.queries import Json

ROW_PIXELS = 36
_NAME_WIDTH = 92
_LEGEND_HEIGHT = 28


def draw_numbers(
    values: Sequence[tuple[str, float]], *, look: Look, width: float, height: float, mode: str
) -> str:
    """Draw one great number, or several below each other with names before them, or a name."""
    texts = [name if mode == "name" else look.write(value) for name, value in values]
    room = height / len(values)
    names = [name if mode == "value_and_name" else "" for name, _ in values]
    longest = max(map(len, texts))
    share = 0.56 if any(names) else 1
    size = min(room * 0.6, 56, width * share / (longest * 0.6))
    rows = [
        f'<div class="number" style="height:{room:.0f}px"><span class="named">{escape(name)}'
        f'</span><span style="font-size:{size:.0f}px;color:{look.threshold_color(value)}">'
        f"{escape(text)}</span></div>"
        for name, text, (_, value) in zip(names, texts, values, strict=True)
    ]
    return f'<div class="{"numbers" if any(names) else "numbers alone"}">{"".join(rows)}</div>'


def draw_bar_gauge(
    values: Sequence[tuple[str, float]], *, look: Look, width: float, height: float
) -> str:
    """Draw a bar for each value, beside its name and its number."""
    colors = look.colors([name for name, _ in values])
    if look.is_by_threshold:
        colors = [look.threshold_color(value) for _, value in values]
    greatest = look.setting("max", "") or max((value for _, value in values), default=1) or 1
    room = min(height / len(values), 52)
    names = max(len(name) for name, _ in values) * 7.5 + 14
    texts = max(len(look.write(value)) for _, value in values) * 10 + 16
    inside = width - names - texts
    drawn = []
    for place, ((name, value), color) in enumerate(zip(values, colors, strict=True)):
        y = place * room + room * 0.12
        thick = room * 0.76
        long = inside * min(max(value / greatest, 0), 1)
        middle = y + thick / 2 + 5
        drawn.append(
            f'<text x="0" y="{middle:.0f}" fill="{TEXT}" font-size="14">{escape(name)}</text>'
            f'<rect x="{names:.0f}" y="{y:.0f}" width="{inside:.0f}" height="{thick:.0f}"'
            f' fill="{UNFILLED}" rx="2"/>'
            f'<rect x="{names:.0f}" y="{y:.0f}" width="{long:.1f}" height="{thick:.0f}"'
            f' fill="{color}" rx="2"/>'
            f'<text x="{width - 4:.0f}" y="{middle + 1:.0f}" text-anchor="end" fill="{color}"'
            f' font-size="17">{escape(look.write(value))}</text>'
        )
    return f'<svg width="{width:.0f}" height="{height:.0f}">{"".join(drawn)}</svg>'


def draw_bar_chart(table: Table, *, panel: Json, look: Look, width: float, height: float) -> str:
    """Draw a group of bars for each row: along the page, or upright."""
    upright = panel["options"]["orientation"] == "vertical"
    names = list(table.columns[1:])
    colors = look.colors(names)
    highest = max(value for row in table.rows for value in _numbers(row))
    ticks = choose_ticks(0, highest, count=4)
    legend = "".join(
        f'<span class="key"><i style="background:{color}"></i>{escape(name)}</span>'
        for name, color in zip(names, colors, strict=True)
    )
    draw = _upright if upright else _along
    drawn = draw(
        table, colors=colors, ticks=ticks, look=look, width=width, height=height - _LEGEND_HEIGHT
    )
    return (
        f'<svg width="{width:.0f}" height="{height - _LEGEND_HEIGHT:.0f}">{"".join(drawn)}</svg>'
        f'<div class="keys">{legend}</div>'
    )


def _numbers(row: Sequence[Cell]) -> Iterator[float]:
    return (value for value in row[1:] if isinstance(value, float))


def _along(
    table: Table,
    *,
    colors: Sequence[str],
    ticks: Sequence[float],
    look: Look,
    width: float,
    height: float,
) -> Iterator[str]:
    inside, bottom = width - _NAME_WIDTH - 60, height - 22
    for tick in ticks:
        x = _NAME_WIDTH + inside * tick / ticks[-1]
        yield f'<path d="M{x:.1f} 0V{bottom:.0f}" stroke="{GRID}"/>'
        yield _text(x, height - 4, look.write(float(tick)), anchor="middle", color=FAINT)
    room = bottom / len(table.rows)
    thick = room * 0.72 / len(colors)
    for place, row in enumerate(table.rows):
        top = place * room + room * 0.14
        yield _text(_NAME_WIDTH - 10, top + room * 0.36 + 5, str(row[0]), anchor="end")
        for index, (value, color) in enumerate(zip(row[1:], colors, strict=True)):
            y = top + index * thick
            long = inside * value / ticks[-1] if isinstance(value, float) else 0
            yield (
                f'<rect x="{_NAME_WIDTH}" y="{y:.1f}" width="{long:.1f}"'
                f' height="{thick * 0.92:.1f}" fill="{color}" fill-opacity="0.85"/>'
            )
            yield _text(
                _NAME_WIDTH + long + 6, y + thick / 2 + 4, look.write(value), anchor="start"
            )


def _upright(
    table: Table,
    *,
    colors: Sequence[str],
    ticks: Sequence[float],
    look: Look,
    width: float,
    height: float,
) -> Iterator[str]:
    left, bottom, top = 74, height - 24, 22
    for tick in ticks:
        y = bottom - (bottom - top) * tick / ticks[-1]
        yield f'<path d="M{left} {y:.1f}H{width:.0f}" stroke="{GRID}"/>'
        yield _text(left - 8, y + 4, look.write(float(tick)), anchor="end", color=FAINT)
    room = (width - left) / len(table.rows)
    wide = min(room * 0.6, 120) / len(colors)
    for place, row in enumerate(table.rows):
        middle = left + (place + 0.5) * room
        yield _text(middle, height - 6, str(row[0]), anchor="middle", color=FAINT)
        for index, (value, color) in enumerate(zip(row[1:], colors, strict=True)):
            if isinstance(value, float):
                x = middle + (index - len(colors) / 2) * wide
                high = (bottom - top) * value / ticks[-1]
                yield (
                    f'<rect x="{x:.1f}" y="{bottom - high:.1f}" width="{wide * 0.94:.1f}"'
                    f' height="{high:.1f}" fill="{color}" fill-opacity="0.85"/>'
                )
                yield _text(x + wide * 0.47, bottom - high - 6, look.write(value), anchor="middle")


def draw_table(table: Table, *, look: Look, height: float) -> str:
    """Draw a table, as many rows as there is room for."""
    greatest = [
        max((cell for cell in cells if isinstance(cell, float)), default=0.0)
        for cells in zip(*table.rows, strict=True)
    ]
    shown = table.rows[: int(height // ROW_PIXELS) - 1]
    head = "".join(
        f'<th class="{_align(look, name)}">{escape(name)}</th>' for name in table.columns
    )
    body = "".join(
        "<tr>"
        + "".join(
            _cell(value, name=name, greatest=most, look=look)
            for value, name, most in zip(row, table.columns, greatest, strict=True)
        )
        + "</tr>"
        for row in shown
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Cell, *, name: str, greatest: float, look: Look) -> str:
    text = escape(look.write(value, name))
    options = look.setting("custom.cellOptions", name)
    if options["type"] == "gauge" and isinstance(value, float):
        share = 100 * max(value, 0) / greatest if greatest else 0
        return (
            f'<td class="barred"><div><i><b style="width:{share:.1f}%"></b></i>'
            f"<span>{text}</span></div></td>"
        )
    return f'<td class="{_align(look, name)}">{text}</td>'


def _align(look: Look, name: str) -> str:
    return "left" if look.setting("unit", name) == "string" else "right"


def _text(x: float, y: float, text: str, *, anchor: str, color: str = TEXT) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"'
        f' font-size="12">{escape(text)}</text>'
    )
