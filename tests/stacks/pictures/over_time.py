"""A panel of lines, areas or bars over time, as SVG."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from tests.stacks.pictures.answers import Line
from tests.stacks.pictures.look import FAINT, GRID, Look
from tests.stacks.pictures.units import choose_ticks

_DIGIT_WIDTH = 6.7
_BELOW = 24
_ABOVE = 8
_TICK_SECONDS = (60, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 86_400, 172_800, 604_800)
_TICK_WIDTH = 86
_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Where values and times lie in the picture, right of the labels of values."""

    left: float
    width: float
    height: float
    lowest: float
    highest: float
    begin: float
    end: float

    def x(self, at: float) -> float:
        inside = self.width - self.left
        return self.left + inside * (at - self.begin) / (self.end - self.begin)

    def y(self, value: float) -> float:
        inside = self.height - _BELOW - _ABOVE
        share = (value - self.lowest) / (self.highest - self.lowest)
        return _ABOVE + inside * (1 - share)


def draw(
    lines: Sequence[Line],
    *,
    look: Look,
    width: float,
    height: float,
    begin: datetime,
    end: datetime,
) -> str:
    """Draw the lines of a panel into so many pixels."""
    colors = look.colors([line.name for line in lines])
    stacked = look.setting("custom.stacking.mode", "") == "normal"
    bars = look.setting("custom.drawStyle", "") == "bars"
    floors = _floors(lines, look=look) if stacked else [{} for _ in lines]
    tops = [
        value + floor.get(at, 0)
        for line, floor in zip(lines, floors, strict=True)
        for at, value in _known(line)
    ]
    ticks = choose_ticks(
        0 if look.setting("min", "") == 0 else min(tops), max(tops), count=max(int(height // 42), 2)
    )
    labels = max(len(look.write(float(tick))) for tick in ticks)
    scale = _Scale(
        left=labels * _DIGIT_WIDTH + 12,
        width=width,
        height=height,
        lowest=ticks[0],
        highest=ticks[-1],
        begin=begin.timestamp(),
        end=end.timestamp(),
    )
    drawn = [*_axes(scale, ticks=ticks, look=look)]
    # What lies below is drawn last, upon what is stacked on it.
    for line, floor, color in reversed(list(zip(lines, floors, colors, strict=True))):
        if bars:
            drawn += _bars(line, floor=floor, color=color, scale=scale)
        else:
            drawn += _area(line, floor=floor, color=color, scale=scale, look=look)
    return f'<svg width="{width:.0f}" height="{height:.0f}">{"".join(drawn)}</svg>'


def _known(line: Line) -> Iterator[tuple[float, float]]:
    return ((at, value) for at, value in sorted(line.points.items()) if math.isfinite(value))


def _floors(lines: Sequence[Line], *, look: Look) -> list[dict[float, float]]:
    """On what each line stands: on the sum of those before it, unless it is none of the stack."""
    below: dict[float, float] = {}
    floors: list[dict[float, float]] = []
    for line in lines:
        own = look.setting("custom.stacking", line.name)
        if own["mode"] == "none":
            floors.append({})
            continue
        floors.append(dict(below))
        for at, value in _known(line):
            below[at] = below.get(at, 0) + value
    return floors


def _area(
    line: Line, *, floor: dict[float, float], color: str, scale: _Scale, look: Look
) -> Iterator[str]:
    opacity = look.setting("custom.fillOpacity", line.name) / 100
    thickness = look.setting("custom.lineWidth", line.name) * 1.3
    style = look.setting("custom.lineStyle", line.name)
    dash = f' stroke-dasharray="{" ".join(map(str, style["dash"]))}"' if style else ""
    for run in _runs(line):
        top = [(scale.x(at), scale.y(value + floor.get(at, 0))) for at, value in run]
        bottom = [(scale.x(at), scale.y(floor.get(at, scale.lowest))) for at, _ in run]
        if opacity:
            shape = _path([*top, *reversed(bottom)])
            yield f'<path d="{shape}Z" fill="{color}" fill-opacity="{opacity}"/>'
        yield (
            f'<path d="{_path(top)}" fill="none" stroke="{color}"'
            f' stroke-width="{thickness}"{dash}/>'
        )


def _runs(line: Line) -> Iterator[list[tuple[float, float]]]:
    """The points in runs without a hole: across a hole nothing is drawn."""
    points = list(_known(line))
    steps = [later[0] - sooner[0] for sooner, later in itertools.pairwise(points)]
    usual = min(steps, default=0)
    run: list[tuple[float, float]] = []
    for point in points:
        if run and point[0] - run[-1][0] > usual * 1.5:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _bars(line: Line, *, floor: dict[float, float], color: str, scale: _Scale) -> Iterator[str]:
    points = list(_known(line))
    times = sorted({at for at, _ in points} | set(floor))
    step = min((b - a for a, b in itertools.pairwise(times)), default=_DAY)
    wide = max((scale.x(scale.begin + step) - scale.x(scale.begin)) * 0.8, 1.5)
    for at, value in points:
        top, bottom = scale.y(value + floor.get(at, 0)), scale.y(floor.get(at, 0))
        left = max(scale.x(at) - wide / 2, scale.left)
        yield (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}"'
            f' height="{max(bottom - top, 0):.1f}" fill="{color}" fill-opacity="0.8"/>'
        )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _axes(scale: _Scale, *, ticks: Sequence[float], look: Look) -> Iterator[str]:
    for value in ticks:
        y = scale.y(value)
        yield f'<path d="M{scale.left:.0f} {y:.1f}H{scale.width:.0f}" stroke="{GRID}"/>'
        yield _text(scale.left - 8, y + 4, look.write(float(value)), anchor="end")
    for at, label in _times(scale):
        x = scale.x(at)
        yield f'<path d="M{x:.1f} {_ABOVE}V{scale.height - _BELOW:.0f}" stroke="{GRID}"/>'
        if x < scale.width - 18:
            yield _text(x, scale.height - 6, label, anchor="middle")


def _times(scale: _Scale) -> Iterator[tuple[float, str]]:
    room = max((scale.width - scale.left) / _TICK_WIDTH, 1)
    rough = (scale.end - scale.begin) / room
    step = next((it for it in _TICK_SECONDS if it >= rough), _TICK_SECONDS[-1])
    at = math.ceil(scale.begin / step) * step
    while at < scale.end:
        moment = datetime.fromtimestamp(at, UTC)
        yield at, moment.strftime("%m/%d" if step >= _DAY else "%H:%M")
        at += step


def _text(x: float, y: float, text: str, *, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{FAINT}"'
        f' font-size="12">{escape(text)}</text>'
    )
