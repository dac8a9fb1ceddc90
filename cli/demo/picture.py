"""The month as a picture: tokens, power, tokens per joule, money, and what tiers take and bring in.

Drawn with matplotlib, which comes with the extra `demo`; nothing else here needs it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from cli.demo.month import Outage
from cli.demo.power import MJ_OF_MWH, Day, Step
from cli.demo.teams import LATENCY, THROUGHPUT, TIERS
from cli.demo.world import BEGIN, BOARDS, CLOCK_CHANGE, END, MOVE, PRICE_CHANGE

_COLORS: Final = {
    "free": "#aeb6c2",
    "medium": "#7fb4d6",
    "high": "#2f6ea5",
    "premium": "#f0a35e",
    "ultra": "#d1495b",
    THROUGHPUT: "#2f6ea5",
    LATENCY: "#f0a35e",
}
# On these colours writing is light.
_DARK: Final = frozenset({"high", "ultra"})
_INK: Final = "#22303f"
_FAINT: Final = "#8a96a3"
_PAPER: Final = "#fbfaf7"
_SIZE_INCHES: Final = (12.8, 13.8)
_DPI: Final = 150
_HEIGHTS: Final = (1.0, 1.0, 0.75, 0.8)
# The ranking lies below the month: left, bottom, width and height of the figure.
_RANKING_PLACE: Final = (0.07, 0.02, 0.815, 0.088)
# Narrower parts of a bar have no name in them.
_NAMED_SHARE_MIN: Final = 0.045
_LABEL_INCHES: Final = 0.19
_DAY: Final = timedelta(days=1)
_SATURDAY: Final = 5
# How energy looks that belongs to no tokens.
_UNATTRIBUTED: Final[dict[str, Any]] = {
    "facecolor": "#f4ead9",
    "edgecolor": "#b08a57",
    "hatch": "//////",
    "linewidth": 0.0,
}
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": _PAPER,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": _INK,
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": _PAPER,
    "grid.color": "#e3e1da",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
    "xtick.bottom": False,
    "ytick.left": False,
}


class PictureImpossible(Exception):
    """There is nothing to draw with; the message says what to install."""


def draw(
    path: Path, *, steps: Sequence[Step], days: Sequence[Day], outages: Sequence[Outage]
) -> None:
    """Draw the month into a PNG; raises PictureImpossible without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to load
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise PictureImpossible(
            "matplotlib is not installed; it comes with `pip install 'tokenworks[demo]'`"
        ) from error
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI)
        panels = figure.subplots(4, 1, sharex=True, height_ratios=_HEIGHTS)
        _head(figure, steps=steps, days=days)
        _draw_tokens(panels[0], steps)
        _draw_power(panels[1], steps)
        _draw_efficiency(panels[2], steps)
        _draw_money(panels[3], days)
        for panel in panels:
            _mark(panel, outages, is_named=panel is panels[0])
        _date(panels[-1])
        _draw_ranking(figure.add_axes(_RANKING_PLACE), steps, days)
        figure.savefig(path)


def _head(figure: Any, *, steps: Sequence[Step], days: Sequence[Day]) -> None:  # noqa: ANN401
    tokens = sum(sum(step.output_tokens.values()) for step in steps)
    energy_mwh = sum(sum(step.measured_mj.values()) for step in steps) / MJ_OF_MWH
    money = sum(sum(day.revenue.values()) for day in days)
    figure.subplots_adjust(left=0.07, right=0.885, top=0.89, bottom=0.175, hspace=0.27)
    figure.text(0.07, 0.967, "October 2026 in a token factory", fontsize=20, weight="bold")
    figure.text(
        0.07,
        0.947,
        f"{tokens / 1e9:,.2f} billion output tokens, {energy_mwh:,.2f} MWh, ${money:,.0f}."
        "  Traffic, boards and prices are simulated; counted, attributed and billed by Tokenworks."
        "  Days in UTC.",
        color=_FAINT,
        fontsize=10.5,
    )


def _draw_tokens(panel: Any, steps: Sequence[Step]) -> None:  # noqa: ANN401
    rates = [[step.output_tokens.get(tier, 0) / _seconds(step) for step in steps] for tier in TIERS]
    colors = [_COLORS[tier] for tier in TIERS]
    panel.stackplot(_begins(steps), rates, colors=colors, step="post", linewidth=0)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _title(panel, "Output tokens per second", "by tier", pad=24)
    _legend(panel, [(tier, _COLORS[tier]) for tier in TIERS], lift=0.1)


def _draw_power(panel: Any, steps: Sequence[Step]) -> None:  # noqa: ANN401
    watts = {
        pool: [step.measured_mj.get(pool, 0) / _seconds(step) / 1e6 for step in steps]
        for pool in BOARDS
    }
    attributed = [sum(step.attributed_mj.values()) / _seconds(step) / 1e6 for step in steps]
    total = [sum(each) for each in zip(*watts.values(), strict=True)]
    colors = [_COLORS[pool] for pool in watts]
    panel.stackplot(_begins(steps), watts.values(), colors=colors, step="post", linewidth=0)
    panel.fill_between(_begins(steps), attributed, total, step="post", **_UNATTRIBUTED)
    _title(panel, "Power in kW", "measured at the boards, by pool")
    entries = [(pool, _COLORS[pool]) for pool in BOARDS]
    _legend(panel, [*entries, ("idle or without tokens: nobody’s", None)])


def _draw_efficiency(panel: Any, steps: Sequence[Step]) -> None:  # noqa: ANN401
    ends = []
    for tier in TIERS:
        points = list(_daily_efficiency(steps, tier))
        noons, values = [noon for noon, _ in points], [value for _, value in points]
        panel.plot(noons, values, color=_COLORS[tier], linewidth=2.2, marker="o", markersize=3.2)
        if values:
            ends.append((values[-1], f"{tier} {_efficiency(steps, tier):.2f}", _COLORS[tier]))
    panel.set_ylim(bottom=0)
    _title(panel, "Output tokens per joule", "by tier and day, of the energy attributed to it")
    _label_ends(panel, ends)


def _draw_money(panel: Any, days: Sequence[Day]) -> None:  # noqa: ANN401
    times = [BEGIN, *(day.end for day in days)]
    sums = {
        tier: list(accumulate((float(day.revenue.get(tier, 0)) for day in days), initial=0.0))
        for tier in reversed(TIERS)
    }
    colors = [_COLORS[tier] for tier in sums]
    panel.stackplot(times, sums.values(), colors=colors, linewidth=0)
    panel.yaxis.set_major_formatter(lambda value, _: f"${value / 1000:,.0f}k")
    panel.set_ylim(bottom=0)
    _title(panel, "Dollars, added up", "by tier, at the prices of the contracts")
    base, ends = 0.0, []
    for tier, values in sums.items():
        if values[-1]:
            ends.append((base + values[-1] / 2, f"{tier} ${values[-1]:,.0f}", _COLORS[tier]))
        base += values[-1]
    _label_ends(panel, ends)


def _draw_ranking(panel: Any, steps: Sequence[Step], days: Sequence[Day]) -> None:  # noqa: ANN401
    energy = {it: sum(step.attributed_mj.get(it, 0) for step in steps) for it in TIERS}
    money = {it: float(sum(day.revenue.get(it, 0) for day in days)) for it in TIERS}
    per_mwh = {it: money[it] * MJ_OF_MWH / energy[it] for it in TIERS if energy[it]}
    ranking = sorted(per_mwh, key=lambda it: per_mwh[it], reverse=True)
    _draw_shares(panel, 1, {it: energy[it] for it in ranking})
    _draw_shares(panel, 0, {it: money[it] for it in ranking})
    panel.set_yticks([1, 0], ["power", "revenue"])
    panel.set_ylim(-0.5, 1.5)
    panel.set_xlim(0, 1)
    panel.set_xticks([])
    panel.grid(visible=False)
    panel.spines["bottom"].set_visible(False)
    _title(panel, "Dollars per megawatt-hour", "ranks the tiers")
    _write_row(panel, [(f"{it} ${per_mwh[it]:,.0f}", _COLORS[it]) for it in ranking])


def _write_row(panel: Any, texts: Sequence[tuple[str, str]]) -> None:  # noqa: ANN401
    """Write words in their colours beside each other, above the panel, up to its right edge."""
    after: Any = None
    for text, color in reversed(texts):
        after = panel.annotate(
            text,
            (1.0, 1.0) if after is None else (0.0, 0.0),
            xycoords="axes fraction" if after is None else after,
            xytext=(0, 8) if after is None else (-14, 0),
            textcoords="offset points",
            va="bottom",
            ha="right",
            color=color,
            weight="bold",
            fontsize=9.5,
        )


def _draw_shares(panel: Any, row: int, parts: Mapping[str, float]) -> None:  # noqa: ANN401
    """Draw a bar of the whole width, divided as the parts are."""
    whole = sum(parts.values())
    left = 0.0
    for tier, part in parts.items():
        share = part / whole if whole else 0.0
        panel.barh(row, share, left=left, height=0.72, color=_COLORS[tier], linewidth=0)
        if share >= _NAMED_SHARE_MIN:
            panel.text(
                left + share / 2,
                row,
                f"{tier} {share:.0%}",
                ha="center",
                va="center",
                color=_PAPER if tier in _DARK else _INK,
                fontsize=9,
            )
        left += share


def _label_ends(panel: Any, ends: Sequence[tuple[float, str, str]]) -> None:  # noqa: ANN401
    """Write names at the right edge, each at its value or a line above the one below."""
    low, high = panel.get_ylim()
    line = _LABEL_INCHES * (high - low) / _height_inches(panel)
    place = low
    for value, text, color in sorted(ends):
        place = max(place, value)
        panel.annotate(
            text,
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=color,
            weight="bold",
            fontsize=9,
        )
        place += line


def _height_inches(panel: Any) -> float:  # noqa: ANN401
    return float(panel.get_position().height * _SIZE_INCHES[1])


def _daily_efficiency(steps: Sequence[Step], tier: str) -> Iterator[tuple[datetime, float]]:
    """Yield noon and tokens per joule of each day in UTC in which the tier had any energy."""
    tokens: Counter[datetime] = Counter()
    energy_mj: Counter[datetime] = Counter()
    for step in steps:
        noon = step.begin.replace(hour=12)
        tokens[noon] += step.output_tokens.get(tier, 0)
        energy_mj[noon] += step.attributed_mj.get(tier, 0)
    for noon, used_mj in energy_mj.items():
        # The first and the last are no whole days.
        if used_mj and BEGIN + _DAY < noon < END:
            yield noon, tokens[noon] * 1_000 / used_mj


def _efficiency(steps: Sequence[Step], tier: str) -> float:
    """Return the month's tokens per joule of a tier with energy."""
    tokens = sum(step.output_tokens.get(tier, 0) for step in steps)
    return tokens * 1_000 / sum(step.attributed_mj.get(tier, 0) for step in steps)


def _mark(panel: Any, outages: Sequence[Outage], *, is_named: bool) -> None:  # noqa: ANN401
    """Draw what happened as lines across the panel, and weekends as a shade."""
    marks = [
        (PRICE_CHANGE, "new prices"),
        *((outage.time, "meter killed") for outage in outages),
        (MOVE.time, "a team moves"),
        (CLOCK_CHANGE, "Berlin’s clocks go back"),
    ]
    for time, _ in marks:
        panel.axvline(time, color=_INK, linewidth=0.9, linestyle=(0, (2, 2)), alpha=0.65)
    for day in _midnights():
        if day.weekday() == _SATURDAY:
            panel.axvspan(day, min(day + 2 * _DAY, END), color="#f1efe8", linewidth=0, zorder=0)
    for place, (time, name) in enumerate(marks if is_named else ()):
        panel.annotate(
            name,
            (time, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 4) if place == 0 else (3, 4) if place == 1 else (0, 4),
            textcoords="offset points",
            ha="right" if place == 0 else "left",
            fontsize=9,
            style="italic",
        )


def _date(panel: Any) -> None:  # noqa: ANN401
    panel.set_xlim(BEGIN, END)
    noons = [day + _DAY / 2 for day in _midnights()][:-1]
    panel.set_xticks(noons, [f"{noon.day}" for noon in noons])


def _midnights() -> list[datetime]:
    return [BEGIN + day * _DAY for day in range((END - BEGIN) // _DAY + 1)]


def _title(panel: Any, title: str, detail: str, *, pad: float = 8) -> None:  # noqa: ANN401
    text = panel.set_title(title, loc="left", fontsize=12, weight="bold", pad=pad)
    panel.annotate(
        detail,
        (1, 0),
        xycoords=text,
        xytext=(8, 0),
        textcoords="offset points",
        va="bottom",
        color=_FAINT,
    )


def _legend(panel: Any, entries: Sequence[tuple[str, str | None]], *, lift: float = 0.0) -> None:  # noqa: ANN401
    from matplotlib.patches import Patch  # noqa: PLC0415 - as above

    panel.legend(
        handles=[
            Patch(label=name, **(_UNATTRIBUTED if color is None else {"facecolor": color}))
            for name, color in entries
        ],
        loc="lower right",
        bbox_to_anchor=(1.0, 0.98 + lift),
        borderpad=0,
        ncols=len(entries),
        frameon=False,
        handlelength=1.1,
        columnspacing=1.2,
    )


def _begins(steps: Sequence[Step]) -> list[datetime]:
    return [step.begin for step in steps]


def _seconds(step: Step) -> float:
    return (step.end - step.begin).total_seconds()
