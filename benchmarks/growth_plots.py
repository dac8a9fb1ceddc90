"""Draws the sweeps of `growth.py`: how fast, what it took of a core, bytes, and how fresh."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.goals import BEHIND_SECONDS_MAX
from cli.drawing import DPI, INK, PAPER

_FAINT: Final = "#6b7783"
_BLUE: Final = "#2f6ea5"
_LIGHT_BLUE: Final = "#5fa3cc"
_ORANGE: Final = "#e08a3c"
_GREY: Final = "#9aa4b1"
_RED: Final = "#d1495b"
_SIZE_INCHES: Final = (12.8, 8.2)
_LINE_INCHES: Final = 0.165
# More points than these are named at powers of ten alone.
_NAMED_MAX: Final = 7
# Axes of less than this factor have ticks between powers of ten.
_FINE_MAX: Final = 300
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "grid.color": "#e3e1da",
    "text.color": INK,
    "xtick.color": _FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": INK,
}
# By sweep: its title, what grows, and where a point has that.
_SWEEPS: Final = {
    "batch": ("Throughput by the size of batches", "events in a batch", "events_a_batch"),
    "dimensions": (
        "Throughput by dimensions",
        "dimensions: accounts × models × tiers",
        "dimensions",
    ),
    "producers": ("Throughput by producers", "producers, a stream each", "producers"),
    "workers": ("Throughput by workers", "workers of one meter", "workers"),
    "journal": ("Throughput as the journal grows", "events in the journal", "events_in_journal"),
}
_PER_MILLION: Final = "processor_seconds_per_million_"
Point = Mapping[str, float]


def draw_all(measured: Path, images: Path) -> list[Path]:
    """Draw each sweep that lies in a folder, and return the pictures."""
    drawn = []
    for path in sorted(measured.glob("growth-*.json")):
        sweep = json.loads(path.read_text("utf-8"))
        drawn.append(images / f"{path.stem}.png")
        draw(drawn[-1], sweep)
    return drawn


def draw(path: Path, sweep: Mapping[str, Any]) -> None:
    """Draw one sweep into a PNG."""
    title, grows, key = _SWEEPS[sweep["sweep"]]
    points: Sequence[Point] = sweep["points"]
    across = [point[key] for point in points]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, dpi=DPI)
        panels = figure.subplots(2, 2, sharex=True)
        figure.subplots_adjust(
            left=0.06, right=0.885, top=0.85, bottom=0.085, hspace=0.26, wspace=0.4
        )
        _head(figure, title, sweep)
        for panel in panels.flat:
            _scale_across(panel, across)
        for panel in panels[1]:
            panel.set_xlabel(grows, labelpad=6)
        _draw_throughput(panels[0][0], across, points)
        _draw_processor(panels[0][1], across, points)
        _draw_bytes(panels[1][0], across, points)
        _draw_behind(panels[1][1], across, points)
        # Without its version the bytes are the same wherever it is drawn anew.
        figure.savefig(path, metadata={"Software": None})


def _head(figure: Any, title: str, sweep: Mapping[str, Any]) -> None:  # noqa: ANN401
    machine = sweep["machine"]
    figure.text(0.06, 0.952, title, fontsize=18, weight="bold")
    figure.text(
        0.06,
        0.922,
        f"{machine['cores']} cores ({machine['processor']}, {machine['memory_gib']} GiB) that also"
        f" run Postgres and the load. {machine['date']}, commit {machine['commit']},"
        f" Python {machine['python']}.",
        color=_FAINT,
        fontsize=9.5,
    )
    figure.text(0.06, 0.9, sweep["workload"], color=_FAINT, fontsize=8)


def _draw_throughput(panel: Any, across: Sequence[float], points: Sequence[Point]) -> None:  # noqa: ANN401
    rates = [point["events_per_second"] for point in points]
    bounds = [point["bound"] for point in points]
    panel.plot(across, bounds, color=_FAINT, linewidth=1.4, linestyle=(0, (4, 3)))
    _line(panel, across, rates, color=_BLUE)
    _scale_up(panel, [*rates, *bounds])
    _title(panel, "Events a second", "recorded, on disk, counted; the totals checked")
    _label_ends(
        panel,
        [
            (rates[-1], f"Tokenworks\n{short(rates[-1])}", _BLUE),
            (bounds[-1], f"bare COPY of\nthe same bytes\n{short(bounds[-1])}", _FAINT),
        ],
    )


def _draw_processor(panel: Any, across: Sequence[float], points: Sequence[Point]) -> None:  # noqa: ANN401
    def of(name: str) -> list[float]:
        return [point.get(f"{_PER_MILLION}{name}", 0.0) for point in points]

    threads = [whole - loop for whole, loop in zip(of("meter"), of("meter_loop"), strict=True)]
    parts = [
        ("meter:\nevent loop", _BLUE, of("meter_loop")),
        ("meter: commit\nand count", _LIGHT_BLUE, threads),
        ("Postgres", _ORANGE, of("postgres")),
        ("load", _GREY, of("load")),
    ]
    parts = [part for part in parts if any(part[2])]
    for _, color, values in parts:
        _line(panel, across, values, color=color)
    _scale_up(panel, [value for _, _, values in parts for value in values])
    _title(panel, "Microseconds of a core an event", "by who had the core")
    _label_ends(
        panel, [(values[-1], f"{name} {values[-1]:.2g}", color) for name, color, values in parts]
    )


def _draw_bytes(panel: Any, across: Sequence[float], points: Sequence[Point]) -> None:  # noqa: ANN401
    kinds = [
        ("write-ahead log", _ORANGE, "wal_bytes_per_event"),
        ("journal", _BLUE, "stored_bytes_per_event"),
        ("on the wire", _GREY, "sent_bytes_per_event"),
    ]
    ends, seen = [], []
    for name, color, key in kinds:
        if any(key in point for point in points):
            values = [point[key] for point in points]
            _line(panel, across, values, color=color)
            ends.append((values[-1], f"{name}\n{values[-1]:.3g}", color))
            seen += values
    _scale_up(panel, seen)
    _title(panel, "Bytes an event", "journal with its index; usage is in the log as well")
    _label_ends(panel, ends)


def _draw_behind(panel: Any, across: Sequence[float], points: Sequence[Point]) -> None:  # noqa: ANN401
    behind = [point["counted_behind_seconds_max"] for point in points]
    panel.axhline(BEHIND_SECONDS_MAX, color=_RED, linewidth=1.2, linestyle=(0, (4, 3)))
    _line(panel, across, behind, color=_BLUE)
    panel.set_ylim(0, max(*behind, BEHIND_SECONDS_MAX) * 1.2)
    _title(panel, "Seconds that counting was behind", "the most of each second")
    _label_ends(
        panel,
        [(BEHIND_SECONDS_MAX, "allowed", _RED), (behind[-1], f"{behind[-1]:.1f}", _BLUE)],
    )


def _line(panel: Any, across: Sequence[float], values: Sequence[float], *, color: str) -> None:  # noqa: ANN401
    panel.plot(across, values, color=color, linewidth=2.2, marker="o", markersize=4.5)


def _scale_across(panel: Any, across: Sequence[float]) -> None:  # noqa: ANN401
    """Have equal factors at equal distances, and each point named that has room."""
    panel.set_xscale("log")
    margin = (across[-1] / across[0]) ** 0.04 if len(across) > 1 else 2.0
    panel.set_xlim(across[0] / margin, across[-1] * margin)
    named = (
        across if len(across) <= _NAMED_MAX else _powers(across[0] / margin, across[-1] * margin)
    )
    panel.set_xticks(named, [short(value) for value in named])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.tick_params(labelbottom=True)


def _scale_up(panel: Any, values: Sequence[float]) -> None:  # noqa: ANN401
    """Have equal factors at equal distances, and ticks enough to read a value."""
    low, high = min(values) / 1.5, max(values) * 1.5
    steps = (1, 2, 5) if high / low < _FINE_MAX else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [step * 10.0**power for power in powers for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    panel.set_yscale("log")
    panel.set_ylim(low, high)
    panel.set_yticks(ticks, [short(tick) for tick in ticks])
    panel.yaxis.set_minor_locator(NullLocator())


def _powers(low: float, high: float) -> list[float]:
    """Return the powers of ten from one number to another."""
    return [10.0**it for it in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def _title(panel: Any, title: str, detail: str) -> None:  # noqa: ANN401
    text = panel.set_title(title, loc="left", fontsize=11.5, weight="bold", pad=8)
    panel.annotate(
        detail,
        (1, 0),
        xycoords=text,
        xytext=(8, 0),
        textcoords="offset points",
        va="bottom",
        color=_FAINT,
        fontsize=8.5,
    )


def _label_ends(panel: Any, ends: Sequence[tuple[float, str, str]]) -> None:  # noqa: ANN401
    """Name lines at the right edge, each at its end or above the name below it."""
    height_inches = panel.get_position().height * _SIZE_INCHES[1]
    free = 0.0
    for value, text, color in sorted(ends):
        half = _LINE_INCHES / 2 * (text.count("\n") + 1) / height_inches
        end = panel.transAxes.inverted().transform(panel.transData.transform((1, value)))[1]
        place = max(end, free + half)
        free = place + half + _LINE_INCHES / 4 / height_inches
        panel.annotate(
            text,
            (1.0, place),
            xycoords="axes fraction",
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=color,
            weight="bold",
            fontsize=9,
        )


def short(value: float) -> str:
    """Return a number with three digits that count: 300, 1 k, 3.46 M, 1,000 M."""
    factor, unit = (1e6, " M") if value >= 1e6 else (1e3, " k") if value >= 1e3 else (1, "")
    return f"{float(f'{value / factor:.3g}'):,g}{unit}"
