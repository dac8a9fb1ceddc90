"""What pictures have in common: colours, style, titles, names at the right edge, and a ranking.

Drawn with matplotlib, which comes with the extra `demo`; nothing else here needs it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

INK: Final = "#22303f"
FAINT: Final = "#8a96a3"
PAPER: Final = "#fbfaf7"
TIER_COLORS: Final = {
    "free": "#aeb6c2",
    "medium": "#7fb4d6",
    "high": "#2f6ea5",
    "premium": "#f0a35e",
    "ultra": "#d1495b",
}
# On these colours writing is light.
_DARK: Final = frozenset({"high", "ultra"})
DPI: Final = 150
# Of a figure of four panels on a common time, and below it a ranking of the tiers.
SIZE_INCHES: Final = (12.8, 13.8)
RANKING_PLACE: Final = (0.07, 0.02, 0.815, 0.088)
# Narrower parts of a bar have no name in them.
_NAMED_SHARE_MIN: Final = 0.045
_LABEL_INCHES: Final = 0.19
STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "grid.color": "#e3e1da",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "xtick.bottom": False,
    "ytick.left": False,
}


class PictureImpossible(Exception):
    """There is nothing to draw with; the message says what to install."""


def demand_matplotlib() -> None:
    """Raise PictureImpossible without matplotlib: before the work, where it is long."""
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra, and slow to load
    except ImportError as error:
        raise PictureImpossible(
            "matplotlib is not installed; it comes with `pip install 'tokenworks[demo]'`"
        ) from error


def write_title(panel: Any, title: str, detail: str, *, pad: float = 8) -> None:  # noqa: ANN401
    """Write a panel's title, and what it is of beside it."""
    text = panel.set_title(title, loc="left", fontsize=12, weight="bold", pad=pad)
    panel.annotate(
        detail,
        (1, 0),
        xycoords=text,
        xytext=(8, 0),
        textcoords="offset points",
        va="bottom",
        color=FAINT,
    )


def label_ends(panel: Any, ends: Sequence[tuple[float, str, str]]) -> None:  # noqa: ANN401
    """Write names at the right edge, each at its value or a line above the one below.

    `ends` are values, names and colours.
    """
    low, high = panel.get_ylim()
    height_inches = float(panel.get_position().height * SIZE_INCHES[1])
    line = _LABEL_INCHES * (high - low) / height_inches
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


def draw_ranking(
    panel: Any,  # noqa: ANN401
    *,
    energy_mj: Mapping[str, int],
    money: Mapping[str, float],
    mj_of_mwh: int,
    detail: str,
) -> None:
    """Draw what part of the energy and of the money each tier has, by dollars per megawatt-hour.

    Tiers without energy are left out.
    """
    per_mwh = {it: money[it] * mj_of_mwh / energy_mj[it] for it in energy_mj if energy_mj[it]}
    ranking = sorted(per_mwh, key=lambda it: per_mwh[it], reverse=True)
    _draw_shares(panel, 1, {it: energy_mj[it] for it in ranking})
    _draw_shares(panel, 0, {it: money[it] for it in ranking})
    panel.set_yticks([1, 0], ["power", "revenue"])
    panel.set_ylim(-0.5, 1.5)
    panel.set_xlim(0, 1)
    panel.set_xticks([])
    panel.grid(visible=False)
    panel.spines["bottom"].set_visible(False)
    write_title(panel, "Dollars per megawatt-hour", detail)
    _write_row(panel, [(f"{it} ${per_mwh[it]:,.0f}", TIER_COLORS[it]) for it in ranking])


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
        panel.barh(row, share, left=left, height=0.72, color=TIER_COLORS[tier], linewidth=0)
        if share >= _NAMED_SHARE_MIN:
            panel.text(
                left + share / 2,
                row,
                f"{tier} {share:.0%}",
                ha="center",
                va="center",
                color=PAPER if tier in _DARK else INK,
                fontsize=9,
            )
        left += share
