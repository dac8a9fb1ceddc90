"""A plan as a picture: the power of each tier and what it earns, now and at best.

Drawn with matplotlib, which comes with the extra `demo`; nothing else here needs it.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from billing.factory.figures import per_year
from billing.factory.plan import Mix, Plan
from cli.drawing import DPI, FAINT, INK, PAPER, TIER_COLORS, demand_matplotlib
from cli.factory.amounts import write_percent, write_power, write_usd
from cli.factory.plan_screen import findings, ranked

# After the tiers of the keynote those of others.
_OTHERS: Final = ("#6a994e", "#9d6b9e", "#c9a227", "#3c8d93", "#b5654a", "#5b5f97")
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.facecolor": PAPER,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "figure.facecolor": PAPER,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "ytick.left": False,
    "xtick.bottom": False,
    "svg.hashsalt": "tokenworks",
    "svg.fonttype": "path",
}
_SIZE_INCHES: Final = (12.8, 5.2)
# A part that is narrower than this, of the whole bar, has no room for its words.
_LABELLED_MIN: Final = 0.08
_HEIGHT: Final = 0.62
_LINE: Final = 0.038
_SPARE: Final = "spare"


def draw(path: Path, plan: Plan) -> None:
    """Draw a plan into an SVG or a PNG; raises PictureImpossible without matplotlib."""
    demand_matplotlib()
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to load
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, dpi=DPI)
        power, money = figure.subplots(2, 1)
        figure.subplots_adjust(left=0.09, right=0.97, top=0.71, bottom=0.09, hspace=0.55)
        _write(figure, 0.92, plan.inputs.name or "A plan", fontsize=17, weight="bold")
        for place, line in enumerate(findings(plan)):
            _write(figure, 0.875 - place * _LINE, line, fontsize=10, color=FAINT)
        _draw_power(power, plan)
        _draw_money(money, plan)
        _legend(figure, plan)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, metadata=metadata)


def _write(figure: Any, y: float, text: str, **style: Any) -> None:  # noqa: ANN401
    # A dollar is a dollar, and begins no formula.
    figure.text(0.09, y, text, parse_math=False, **style)


def colors_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each tier: its own, or the next of the others."""
    others = [name for name in names if name not in TIER_COLORS]
    own = {name: TIER_COLORS[name] for name in names if name in TIER_COLORS}
    return own | {name: _OTHERS[place % len(_OTHERS)] for place, name in enumerate(others)}


def _mixes(plan: Plan) -> list[tuple[str, Mix]]:
    """Return the mixes from the bottom up."""
    best = [("best", plan.best)]
    return best if plan.actual is None else [*best, ("now", plan.actual)]


def _draw_power(panel: Any, plan: Plan) -> None:  # noqa: ANN401
    is_small = plan.inputs.power_mw < 1
    whole = max([plan.inputs.it_mw, *(mix.total_mw for _, mix in _mixes(plan))])
    for row, (_, mix) in enumerate(_mixes(plan)):
        texts = {
            name: f"{write_power(mw, is_small=is_small)}\n{write_percent(mw, mix.total_mw)}"
            for name, mw in mix.mw.items()
        }
        end = _stack(panel, row, mix.mw, plan=plan, texts=texts, whole=whole)
        spare = plan.inputs.it_mw - mix.total_mw
        if spare > 0:
            panel.barh(
                row,
                float(spare),
                left=end,
                height=_HEIGHT,
                color="#efece4",
                linewidth=0,
            )
            if spare >= whole * Fraction(_LABELLED_MIN):
                text = f"{_SPARE}\n{write_power(spare, is_small=is_small)}"
                _label(panel, end + float(spare) / 2, row, text, color=INK)
    totals = [write_power(mix.total_mw, is_small=is_small) for _, mix in _mixes(plan)]
    _finish(panel, plan, title="IT power", totals=totals, whole=whole)


def _draw_money(panel: Any, plan: Plan) -> None:  # noqa: ANN401
    yearly = [
        {name: per_year(usd) for name, usd in mix.usd_per_second.items()} for _, mix in _mixes(plan)
    ]
    whole = max(sum(it.values(), Fraction(0)) for it in yearly) or Fraction(1)
    for row, earned in enumerate(yearly):
        texts = {name: write_usd(usd) for name, usd in earned.items()}
        _stack(panel, row, earned, plan=plan, texts=texts, whole=whole)
    totals = [write_usd(sum(it.values(), Fraction(0))) for it in yearly]
    _finish(panel, plan, title="Revenue a year", totals=totals, whole=whole)


def _stack(
    panel: Any,  # noqa: ANN401
    row: int,
    parts: Mapping[str, Fraction],
    *,
    plan: Plan,
    texts: Mapping[str, str],
    whole: Fraction,
) -> float:
    """Draw a bar of the tiers' parts, and return where it ends."""
    names = [tier.tier for tier in ranked(plan)]
    colors = colors_of([tier.tier for tier in plan.inputs.tiers])
    end = 0.0
    for name in names:
        size = float(parts[name])
        panel.barh(row, size, left=end, height=_HEIGHT, color=colors[name], linewidth=0)
        if parts[name] >= whole * Fraction(_LABELLED_MIN):
            is_dark = name in {"high", "ultra"}
            _label(panel, end + size / 2, row, texts[name], color="white" if is_dark else INK)
        end += size
    return end


def _label(panel: Any, x: float, row: int, text: str, *, color: str) -> None:  # noqa: ANN401
    panel.text(x, row, text, ha="center", va="center", fontsize=9.5, color=color, parse_math=False)


def _finish(
    panel: Any,  # noqa: ANN401
    plan: Plan,
    *,
    title: str,
    totals: Sequence[str],
    whole: Fraction,
) -> None:
    names = [f"{name}\n{it}" for (name, _), it in zip(_mixes(plan), totals, strict=True)]
    panel.set_title(title, loc="left", fontsize=12, weight="bold")
    panel.set_yticks(range(len(names)), names, parse_math=False)
    panel.set_xticks([])
    panel.set_xlim(0, float(whole))


def _legend(figure: Any, plan: Plan) -> None:  # noqa: ANN401
    from matplotlib.patches import Patch  # noqa: PLC0415 - as above

    colors = colors_of([tier.tier for tier in plan.inputs.tiers])
    figure.legend(
        handles=[Patch(label=it.tier, facecolor=colors[it.tier]) for it in ranked(plan)],
        loc="lower left",
        bbox_to_anchor=(0.083, 0.0),
        borderpad=0.4,
        ncols=len(colors),
        frameon=False,
        handlelength=1.1,
    )
