"""The tables by tier and by pool, whose columns stand below each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cli.top.counters import PoolRates, Rates, Report, Sample
from cli.top.numbers import NOTHING, draw_bar, draw_curve, write_number, write_percent
from cli.top.window import to_history

DOLLAR: Final = "USD"
_PERCENT_COLUMNS: Final = 5
# Of a currency, a blank and a number.
_OTHER_COLUMNS: Final = 10
# What is said of a pool's power fits in.
_LAST_COLUMNS_MIN: Final = 9
_NAME_COLUMNS_MIN: Final = 8
_DRAWN_COLUMNS_MAX: Final = 32
_BAR_COLUMNS_MIN: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Widths of the columns that both tables have; `bar` is 0 where there is no room for one.

    `others` is how many columns other currencies than dollars have: 0 to 2.
    """

    name: int
    number: int
    bar: int
    others: int
    last: int
    gap: int

    @property
    def is_wide(self) -> bool:
        """Whether there is room for whole words."""
        return self.gap > 1


def lay_out(report: Report, *, columns: int, is_terminal: bool) -> Layout:
    """Return a layout for so many columns: what names and numbers leave is for what is drawn.

    Beyond a terminal no name is cut, and what is wider than `columns` is as wide as it is.
    """
    longest = max((len(printable(name)) for name in (*report.tiers, *report.pools)), default=0)
    name = max(longest, _NAME_COLUMNS_MIN)
    if is_terminal:
        name = min(name, columns // 8)
    has_others = any(currency != DOLLAR for currency in report.total.revenue_per_hour)
    wide = _fill(columns, name=name, number=8, gap=2, others=2 * has_others)
    return wide if wide.bar else _fill(columns, name=name, number=6, gap=1, others=int(has_others))


def _fill(columns: int, *, name: int, number: int, gap: int, others: int) -> Layout:
    """Return the layout with these columns, its bar and its last one as wide as they can be."""
    texts = name + 6 * number + _PERCENT_COLUMNS + others * _OTHER_COLUMNS + _LAST_COLUMNS_MIN
    # Nine columns, their gaps, and a blank on either side.
    room = columns - 2 - texts - gap * (8 + others)
    bar = min(_DRAWN_COLUMNS_MAX, room - 1 if gap == 1 else room // 2)
    if bar < _BAR_COLUMNS_MIN:
        bar = 0
    last = _LAST_COLUMNS_MIN + max(0, room - bar - bool(bar))
    return Layout(
        name=name,
        number=number,
        bar=bar,
        others=others,
        last=min(last, _DRAWN_COLUMNS_MAX),
        gap=gap,
    )


def tier_table(
    report: Report,
    *,
    layout: Layout,
    rows: int,
    samples: Sequence[Sample],
    curve_seconds: float | None,
) -> RenderableType:
    """Return the busiest tiers, one a row; with curves over the last seconds unless None."""
    table = _make_table("tier", layout=layout, share="share", last="trend" if curve_seconds else "")
    ordered = sorted(report.tiers.items(), key=lambda item: (-item[1].tokens_per_second, item[0]))
    for tier, rates in ordered[:rows]:
        share = None
        if report.total.tokens_per_second:
            share = rates.tokens_per_second / report.total.tokens_per_second
        points: list[float | None] = []
        if curve_seconds:
            points = to_history(samples, tier=tier, points=layout.last, seconds=curve_seconds)
        cells = _to_cells(tier, rates, layout=layout, ratio=share, style="cyan")
        table.add_row(*cells, Text(draw_curve(points), "cyan"))
    return _finish(table, left_out=len(ordered) - rows)


def pool_table(report: Report, *, layout: Layout, rows: int) -> RenderableType:
    """Return the pools by name, one a row, and whether their power can be trusted."""
    table = _make_table("pool", layout=layout, share="attributed", last="power")
    ordered = sorted(report.pools.items())
    for pool, each in ordered[:rows]:
        cells = _to_cells(
            pool, each.rates, layout=layout, ratio=each.attributed_ratio, style="yellow"
        )
        table.add_row(*cells, _power_state(each))
    return _finish(table, left_out=len(ordered) - rows)


def printable(text: str) -> str:
    """Return a label so that no sequence in it steers a terminal, and an empty one visibly."""
    if not text:
        return "(none)"
    return text if text.isprintable() else repr(text)


def _make_table(name: str, *, layout: Layout, share: str, last: str) -> Table:
    padding = (0, layout.gap - 1, 0, 0)
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=padding,
        header_style="dim",
        border_style="bright_black",
    )
    titles = ("tokens/s", "output/s") if layout.is_wide else ("tok/s", "out/s")
    tokens_per_joule = "tokens/J" if layout.is_wide else "tok/J"
    table.add_column(name, width=layout.name, no_wrap=True)
    for title in titles:
        _add_number(table, title, width=layout.number)
    share_width = layout.bar + bool(layout.bar) + _PERCENT_COLUMNS
    _add_number(table, share if len(share) <= share_width else "attr.", width=share_width)
    for title in ("watts", tokens_per_joule, "$/h", "$/MWh"):
        _add_number(table, title, width=layout.number)
    for title in ("other/h", "other/MWh")[: layout.others]:
        _add_number(table, title, width=_OTHER_COLUMNS)
    table.add_column(last, width=layout.last, no_wrap=True)
    return table


def _add_number(table: Table, title: str, *, width: int) -> None:
    table.add_column(title, width=width, justify="right", no_wrap=True)


def _to_cells(
    name: str, rates: Rates, *, layout: Layout, ratio: float | None, style: str
) -> list[Text]:
    """Return all cells of a row but the last."""
    percent = write_percent(ratio).rjust(_PERCENT_COLUMNS)
    bar = draw_bar(ratio or 0.0, columns=layout.bar) + " " if layout.bar else ""
    others = (_write_others(rates.revenue_per_hour), _write_others(rates.revenue_per_mwh))
    return [
        Text(printable(name), "bold", overflow="ellipsis"),
        _number(rates.tokens_per_second),
        _number(rates.output_tokens_per_second),
        Text.assemble((bar, style), percent),
        _number(rates.watts, style="yellow"),
        _number(rates.tokens_per_joule, style="green"),
        _number(rates.revenue_per_hour.get(DOLLAR)),
        _number(rates.revenue_per_mwh.get(DOLLAR), style="magenta"),
        *(Text(text) for text in others[: layout.others]),
    ]


def _number(number: float | None, *, style: str = "") -> Text:
    return Text(write_number(number), "dim" if number is None else style)


def _write_others(amounts: Mapping[str, float]) -> str:
    """Return the amounts in other currencies than dollars, one a line."""
    others = sorted(item for item in amounts.items() if item[0] != DOLLAR)
    return "\n".join(f"{printable(name)} {write_number(each)}" for name, each in others) or NOTHING


def _power_state(pool: PoolRates) -> Text:
    if pool.is_valid is None:
        return Text("○ none", "dim")
    if not pool.is_valid:
        return Text("● invalid", "red")
    if pool.rates.watts is None:
        return Text("○ not yet", "yellow")
    return Text("● valid", "green")


def _finish(table: Table, *, left_out: int) -> RenderableType:
    if left_out > 0:
        table.add_row(Text(f"{left_out} more", "dim", overflow="ellipsis"))
    return Padding(table, (0, 1), expand=False)
