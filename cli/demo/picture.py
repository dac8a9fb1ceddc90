"""The month as a picture: tokens, power, tokens per joule, money, and what tiers take and bring in.

Drawn with matplotlib, which comes with the extra `demo`; nothing else here needs it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from cli.demo.month import Outage
from cli.demo.power import MJ_OF_MWH, Day, Step
from cli.demo.teams import LATENCY, THROUGHPUT, TIERS
from cli.demo.world import BEGIN, BOARDS, CLOCK_CHANGE, END, MOVE, PRICE_CHANGE
from cli.drawing import (
    DPI,
    FAINT,
    INK,
    RANKING_PLACE,
    SIZE_INCHES,
    STYLE,
    TIER_COLORS,
    demand_matplotlib,
    draw_ranking,
    label_ends,
    write_title,
)

_COLORS: Final = {
    **TIER_COLORS,
    THROUGHPUT: TIER_COLORS["high"],
    LATENCY: TIER_COLORS["premium"],
}
_HEIGHTS: Final = (1.0, 1.0, 0.75, 0.8)
_DAY: Final = timedelta(days=1)
_SATURDAY: Final = 5
# How energy looks that belongs to no tokens.
_UNATTRIBUTED: Final[dict[str, Any]] = {
    "facecolor": "#f4ead9",
    "edgecolor": "#b08a57",
    "hatch": "//////",
    "linewidth": 0.0,
}


def draw(
    path: Path, *, steps: Sequence[Step], days: Sequence[Day], outages: Sequence[Outage]
) -> None:
    """Draw the month into a PNG; raises PictureImpossible without matplotlib."""
    demand_matplotlib()
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to load
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE_INCHES, dpi=DPI)
        panels = figure.subplots(4, 1, sharex=True, height_ratios=_HEIGHTS)
        _head(figure, steps=steps, days=days)
        _draw_tokens(panels[0], steps)
        _draw_power(panels[1], steps)
        _draw_efficiency(panels[2], steps)
        _draw_money(panels[3], days)
        for panel in panels:
            _mark(panel, outages, is_named=panel is panels[0])
        _date(panels[-1])
        _draw_ranking(figure.add_axes(RANKING_PLACE), steps, days)
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
        color=FAINT,
        fontsize=10.5,
    )


def _draw_tokens(panel: Any, steps: Sequence[Step]) -> None:  # noqa: ANN401
    rates = [[step.output_tokens.get(tier, 0) / _seconds(step) for step in steps] for tier in TIERS]
    colors = [_COLORS[tier] for tier in TIERS]
    panel.stackplot(_begins(steps), rates, colors=colors, step="post", linewidth=0)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    write_title(panel, "Output tokens per second", "by tier", pad=24)
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
    write_title(panel, "Power in kW", "measured at the boards, by pool")
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
    write_title(panel, "Output tokens per joule", "by tier and day, of the energy attributed to it")
    label_ends(panel, ends)


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
    write_title(panel, "Dollars, added up", "by tier, at the prices of the contracts")
    base, ends = 0.0, []
    for tier, values in sums.items():
        if values[-1]:
            ends.append((base + values[-1] / 2, f"{tier} ${values[-1]:,.0f}", _COLORS[tier]))
        base += values[-1]
    label_ends(panel, ends)


def _draw_ranking(panel: Any, steps: Sequence[Step], days: Sequence[Day]) -> None:  # noqa: ANN401
    draw_ranking(
        panel,
        energy_mj={it: sum(step.attributed_mj.get(it, 0) for step in steps) for it in TIERS},
        money={it: float(sum(day.revenue.get(it, 0) for day in days)) for it in TIERS},
        mj_of_mwh=MJ_OF_MWH,
        detail="ranks the tiers",
    )


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
        panel.axvline(time, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), alpha=0.65)
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
