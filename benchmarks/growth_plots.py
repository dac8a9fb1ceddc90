"""Draws the sweeps of `growth.py`: how fast, what it took of a core, bytes, and how fresh."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

_INK: Final = "#22303f"
_FAINT: Final = "#6b7783"
_PAPER: Final = "#fbfaf7"
_BLUE: Final = "#2f6ea5"
_LIGHT_BLUE: Final = "#7fb4d6"
_ORANGE: Final = "#f0a35e"
_GREY: Final = "#aeb6c2"
_RED: Final = "#d1495b"
_SIZE_INCHES: Final = (12.8, 8.2)
_DPI: Final = 150
_BEHIND_SECONDS_MAX: Final = 5.0
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": _PAPER,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": _PAPER,
    "grid.color": "#e3e1da",
    "text.color": _INK,
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
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
    "journal": ("Throughput as the journal grows", "events in the journal", "events_in_journal"),
}
# Parts of the time on a core, from below: a name, its colour, and the notes that it adds up.
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
        figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI)
        panels = figure.subplots(2, 2, sharex=True)
        figure.subplots_adjust(
            left=0.065, right=0.91, top=0.85, bottom=0.085, hspace=0.24, wspace=0.36
        )
        _head(figure, title, sweep)
        _draw_throughput(panels[0][0], across, points)
        _draw_processor(panels[0][1], across, points)
        _draw_bytes(panels[1][0], across, points)
        _draw_behind(panels[1][1], across, points)
        for panel in panels.flat:
            _scale(panel, across)
        for panel in panels[1]:
            panel.set_xlabel(grows, labelpad=6)
        # Without its version the bytes are the same wherever it is drawn anew.
        figure.savefig(path, metadata={"Software": None})


def _head(figure: Any, title: str, sweep: Mapping[str, Any]) -> None:  # noqa: ANN401
    machine = sweep["machine"]
    figure.text(0.065, 0.952, title, fontsize=18, weight="bold")
    figure.text(
        0.065,
        0.922,
        f"{machine['cores']} cores ({machine['processor']}, {machine['memory_gib']} GiB) that also"
        f" run Postgres and the load. {machine['date']}, commit {machine['commit']},"
        f" Python {machine['python']}.",
        color=_FAINT,
        fontsize=9.5,
    )
    figure.text(0.065, 0.9, sweep["workload"], color=_FAINT, fontsize=8)


def _draw_throughput(panel: Any, across: Sequence[float], points: Sequence[Point]) -> None:  # noqa: ANN401
    rates = [point["events_per_second"] for point in points]
    bounds = [point["bound"] for point in points]
    panel.set_yscale("log")
    panel.plot(across, bounds, color=_FAINT, linewidth=1.4, linestyle=(0, (4, 3)))
    _line(panel, across, rates, color=_BLUE)
    panel.set_ylim(min(rates) / 1.8, max(*bounds, *rates) * 1.8)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    panel.yaxis.set_minor_locator(NullLocator())
    _title(panel, "Events a second", "recorded, on disk, counted; the totals checked")
    _label_end(panel, across, rates, text=short(rates[-1]), color=_BLUE)
    _label_end(panel, across, bounds, text="bare COPY\nof the same\nbytes", color=_FAINT)


def _draw_processor(panel: Any, across: Sequence[float], points: Sequence[Point]) -> None:  # noqa: ANN401
    def of(name: str) -> list[float]:
        return [point.get(f"{_PER_MILLION}{name}", 0.0) for point in points]

    threads = [whole - loop for whole, loop in zip(of("meter"), of("meter_loop"), strict=True)]
    parts = [
        ("meter: event loop", _BLUE, of("meter_loop")),
        ("meter: commit\nand count", _LIGHT_BLUE, threads),
        ("Postgres", _ORANGE, of("postgres")),
        ("load", _GREY, of("load")),
    ]
    parts = [part for part in parts if any(part[2])]
    panel.set_yscale("log")
    for _, color, values in parts:
        _line(panel, across, values, color=color)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    _title(panel, "Microseconds of a core an event", "by who had the core")
    _label_ends(panel, [(values[-1], name, color) for name, color, values in parts])


def _draw_bytes(panel: Any, across: Sequence[float], points: Sequence[Point]) -> None:  # noqa: ANN401
    kinds = [
        ("write-ahead log", _ORANGE, "wal_bytes_per_event"),
        ("journal,\nwith index", _BLUE, "stored_bytes_per_event"),
        ("on the wire", _GREY, "sent_bytes_per_event"),
    ]
    panel.set_yscale("log")
    ends = []
    for name, color, key in kinds:
        if any(key in point for point in points):
            values = [point[key] for point in points]
            _line(panel, across, values, color=color)
            ends.append((values[-1], name, color))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    _title(panel, "Bytes an event", "usage’s rows are in the log as well")
    _label_ends(panel, ends)


def _draw_behind(panel: Any, across: Sequence[float], points: Sequence[Point]) -> None:  # noqa: ANN401
    behind = [point["counted_behind_seconds_max"] for point in points]
    panel.axhline(_BEHIND_SECONDS_MAX, color=_RED, linewidth=1.2, linestyle=(0, (4, 3)))
    _line(panel, across, behind, color=_BLUE)
    panel.set_ylim(0, max(*behind, _BEHIND_SECONDS_MAX) * 1.2)
    _title(panel, "Seconds that counting was behind", "at most, while the load went on and after")
    _label_end(panel, across, [_BEHIND_SECONDS_MAX], text="allowed", color=_RED)


def _line(panel: Any, across: Sequence[float], values: Sequence[float], *, color: str) -> None:  # noqa: ANN401
    panel.plot(across, values, color=color, linewidth=2.2, marker="o", markersize=4.5)


def _scale(panel: Any, across: Sequence[float]) -> None:  # noqa: ANN401
    """Have equal factors at equal distances, and each point named that has room."""
    panel.set_xscale("log")
    margin = (across[-1] / across[0]) ** 0.04 if len(across) > 1 else 2.0
    panel.set_xlim(across[0] / margin, across[-1] * margin)
    tens = [value for value in across if f"{value:.0e}".startswith("1")]
    named = across if len(across) <= 7 else tens
    panel.set_xticks(named, [short(value) for value in named])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.tick_params(labelbottom=True)


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


def _label_end(
    panel: Any,  # noqa: ANN401
    across: Sequence[float],
    values: Sequence[float],
    *,
    text: str,
    color: str,
) -> None:
    del across
    _write(panel, values[-1], text, color=color)


def _label_ends(panel: Any, ends: Sequence[tuple[float, str, str]]) -> None:  # noqa: ANN401
    """Name lines at the right edge, each at its end or above the name below it."""
    height_inches = panel.get_position().height * _SIZE_INCHES[1]
    to_axes = panel.transData + panel.transAxes.inverted()
    free = 0.0
    for value, text, color in sorted(ends):
        lines = text.count("\n") + 1
        half = 0.09 * lines / height_inches
        place = max(to_axes.transform((1, value))[1], free + half)
        free = place + half
        _write(panel, place, text, color=color, coordinates="axes fraction")


def _write(panel: Any, place: float, text: str, *, color: str, coordinates: str = "data") -> None:  # noqa: ANN401
    panel.annotate(
        text,
        (1.0, place),
        xycoords=("axes fraction", coordinates),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        color=color,
        weight="bold",
        fontsize=9,
    )


def short(value: float) -> str:
    """Return a number in few characters: 300, 1 k, 3.46 M, 1 G."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"
