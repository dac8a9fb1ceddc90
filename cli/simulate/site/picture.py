"""A run as a picture: requests, acks, power, tokens per joule, money, and what tiers take and earn.

Drawn with matplotlib, which comes with the extra `demo`; nothing else here needs it.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final

from cli.drawing import (
    DPI,
    FAINT,
    INK,
    RANKING_PLACE,
    SIZE_INCHES,
    STYLE,
    TIER_COLORS,
    draw_ranking,
    label_ends,
    write_title,
)
from cli.simulate.site.closing import Result
from cli.simulate.site.history import (
    MJ_OF_MWH,
    History,
    Moment,
    Rates,
    percentile,
    rates_between,
)
from cli.simulate.site.orders import Orders
from cli.simulate.site.size import TIERS

_HEIGHTS: Final = (1.0, 0.6, 1.0, 0.8)
_MINUTE_MS: Final = 60_000
_SECOND_MS: Final = 1_000
_MILLION: Final = 1_000_000


def draw(path: Path, *, history: History, result: Result, orders: Orders) -> None:
    """Draw a run into a PNG, as the meter had it from moment to moment."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to load
    from matplotlib.figure import Figure  # noqa: PLC0415

    begin_ms, moments = history.latest.begin_ms, history.moments
    # What lies behind the end, waiting and a last look, belongs to the sums alone.
    end_ms = begin_ms + orders.seconds * _SECOND_MS
    during = [moment for moment in moments if moment.asked_ms <= end_ms]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE_INCHES, dpi=DPI)
        panels = figure.subplots(4, 1, sharex=True, height_ratios=_HEIGHTS)
        _head(figure, history=history, result=result, orders=orders)
        _draw_requests(panels[0], during, begin_ms=begin_ms)
        _draw_acks(panels[1], during, begin_ms=begin_ms)
        _draw_power(panels[2], during, begin_ms=begin_ms, watts=orders.size.watts)
        _draw_money(panels[3], moments, begin_ms=begin_ms)
        panels[3].set_xlim(0, orders.seconds / 60)
        panels[3].xaxis.set_major_formatter(lambda minutes, _: f"{minutes:g} min")
        _draw_ranking(figure.add_axes(RANKING_PLACE), result)
        figure.savefig(path)


def _head(figure: Any, *, history: History, result: Result, orders: Orders) -> None:  # noqa: ANN401
    tokens, events = result.counted.total(), result.counted_events.total()
    money = sum(result.previewed.values())
    energy_mwh = result.energy.facility_mj / MJ_OF_MWH
    closes = "Every token, joule and cent closes." if not result.faults else "IT DOES NOT CLOSE."
    figure.subplots_adjust(left=0.07, right=0.885, top=0.89, bottom=0.175, hspace=0.27)
    minutes = orders.seconds / 60
    time = "a minute" if minutes == 1 else f"{minutes:g} minutes"
    title = f"{orders.size.label} of tokens: {time} of a factory’s load"
    figure.text(0.07, 0.967, title, fontsize=20, weight="bold")
    figure.text(
        0.07,
        0.947,
        f"{events:,} requests of {orders.size.server_count:,} servers, {tokens / 1e9:,.1f} billion"
        f" tokens, {energy_mwh:,.4g} MWh, ${money:,.0f}; 99 of 100 acknowledged within"
        f" {percentile(history.ack_ms, 0.99) or 0:,} ms.",
        color=FAINT,
        fontsize=10.5,
    )
    figure.text(
        0.07,
        0.931,
        "Servers, counters and prices are simulated; counted, measured and billed by Tokenworks."
        f" {closes}",
        color=FAINT,
        fontsize=10.5,
    )


def _draw_requests(panel: Any, moments: Sequence[Moment], *, begin_ms: int) -> None:  # noqa: ANN401
    spans = list(pairwise(moments))
    times = [_minutes(after.asked_ms, begin_ms) for _, after in spans]
    rates = [
        [_rate(rates_between(before, after, tier)) for before, after in spans] for tier in TIERS
    ]
    panel.stackplot(times, rates, colors=[TIER_COLORS[tier.name] for tier in TIERS], linewidth=0)
    recorded = [
        (after.acknowledged_events - before.acknowledged_events)
        * _SECOND_MS
        / max(after.asked_ms - before.asked_ms, 1)
        for before, after in spans
    ]
    panel.plot(times, recorded, color=INK, linewidth=1.2)
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    write_title(
        panel, "Requests per second", "counted, by tier; the line: on disk and acknowledged"
    )
    _label_middles(panel, {tier.name: series for tier, series in zip(TIERS, rates, strict=True)})


def _draw_acks(panel: Any, moments: Sequence[Moment], *, begin_ms: int) -> None:  # noqa: ANN401
    heard = [moment for moment in moments if moment.ack_ms]
    times = [_minutes(moment.asked_ms, begin_ms) for moment in heard]
    ends = []
    for name, part, color in (
        ("p99", 0.99, TIER_COLORS["ultra"]),
        ("p50", 0.5, TIER_COLORS["high"]),
    ):
        series = [percentile(moment.ack_ms, part) or 0 for moment in heard]
        panel.plot(times, series, color=color, linewidth=1.8)
        if series:
            ends.append((float(series[-1]), f"{name} {series[-1]:,} ms", color))
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f} ms")
    write_title(panel, "Acknowledged after", "from the sealing of a batch to its being on disk")
    label_ends(panel, ends)


def _draw_power(panel: Any, moments: Sequence[Moment], *, begin_ms: int, watts: int) -> None:  # noqa: ANN401
    spans = list(pairwise(moments))
    times = [_minutes(after.read_ms, begin_ms) for _, after in spans]
    series = {
        tier.name: [rates_between(before, after, tier).megawatts for before, after in spans]
        for tier in TIERS
    }
    colors = [TIER_COLORS[name] for name in series]
    panel.stackplot(times, series.values(), colors=colors, linewidth=0)
    site = [rates_between(before, after).megawatts for before, after in spans]
    panel.plot(times, site, color=INK, linewidth=1.2)
    panel.axhline(watts / _MILLION, color=FAINT, linewidth=0.9, linestyle=(0, (2, 2)))
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g} MW")
    write_title(
        panel,
        "Power",
        "boards by pool; the line: the site’s meters, losses included"
        f"{_efficiency(moments)}; dotted: the contract",
    )
    _label_middles(panel, series)


def _efficiency(moments: Sequence[Moment]) -> str:
    if len(moments) < 2:  # noqa: PLR2004 - a rate is of two
        return ""
    rates = rates_between(moments[0], moments[-1])
    return f", {rates.tokens_per_joule:.3f} generated tokens a joule"


def _draw_money(panel: Any, moments: Sequence[Moment], *, begin_ms: int) -> None:  # noqa: ANN401
    times = [_minutes(moment.asked_ms, begin_ms) for moment in moments]
    series = {
        tier.name: [
            tier.price * moment.counted.token_count(tier.name) / _MILLION for moment in moments
        ]
        for tier in TIERS
    }
    panel.stackplot(
        times, series.values(), colors=[TIER_COLORS[name] for name in series], linewidth=0
    )
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(lambda value, _: f"${value:,.0f}")
    write_title(panel, "Dollars, added up", "by tier, at the prices of the contracts")
    named = {name: f"{name} {_short(values[-1])}" for name, values in series.items() if values}
    _label_middles(panel, series, names=named)


def _short(dollars: float) -> str:
    """Return an amount in as few characters as there is room for beside a panel."""
    return f"${dollars / _MILLION:,.2f} M" if dollars >= _MILLION else f"${dollars:,.0f}"


def _draw_ranking(panel: Any, result: Result) -> None:  # noqa: ANN401
    draw_ranking(
        panel,
        energy_mj={tier.name: result.energy.pools_mj.get(tier.pool, 0) for tier in TIERS},
        money={name: float(amount) for name, amount in result.previewed.items()},
        mj_of_mwh=MJ_OF_MWH,
        detail="of boards",
    )


def _label_middles(
    panel: Any,  # noqa: ANN401
    series: Mapping[str, Sequence[float]],
    *,
    names: Mapping[str, str] | None = None,
) -> None:
    """Name stacked series at the right edge, where they end."""
    last = {name: values[-1] for name, values in series.items() if values}
    tops = accumulate(last.values())
    label_ends(
        panel,
        [
            (top - value / 2, (names or {}).get(name, name), TIER_COLORS[name])
            for (name, value), top in zip(last.items(), tops, strict=True)
            if value
        ],
    )


def _minutes(time_ms: int, begin_ms: int) -> float:
    return (time_ms - begin_ms) / _MINUTE_MS


def _rate(rates: Rates) -> float:
    return rates.events / rates.seconds
