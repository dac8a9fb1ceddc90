"""What `tokenworks top` looks like, from 72 columns on: headline numbers, tiers, pools, quality.

Labels come from a page that anybody may have written: they are shown as text, never as orders to
the terminal.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rich.box import ROUNDED
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from cli.top.counters import Rates, Report
from cli.top.numbers import write_number, write_percent
from cli.top.reports import write_reports
from cli.top.tables import DOLLAR, lay_out, pool_table, printable, tier_table
from cli.top.watch import Frame, Silence

_TILES: Final = 4
_TILE_COLUMNS_WIDE: Final = 25
# Rows of one table: whoever has more tiers or pools reads --json.
_ROWS_MAX: Final = 50
_TIERS_MIN: Final = 3
_POOLS_MIN: Final = 2
# A blank, the titles and the line below them.
_POOL_TABLE_LINES: Final = 3
_BEHIND_SECONDS_FINE: Final = 5
_BEHIND_SECONDS_LATE: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it is shown: laid out in `columns`, and in `lines` where there are only so many.

    `address` is the server's; the curves reach back `curve_seconds`, None for no curves.
    """

    address: str
    is_terminal: bool
    columns: int
    lines: int | None
    curve_seconds: float | None


def render(frame: Frame, *, place: Place, console: Console) -> RenderableType:
    """Return the whole of a refresh; `console` is only measured with."""
    if frame.report is None:
        text = Text("\n measuring: rates come with the second answer", "dim")
        return Group(*_head(frame, place=place), text)
    report = frame.report
    rows = _fit_rows(frame, report, place=place, console=console)
    return _page(frame, report, place=place, rows=rows)


def write_silence(silence: Silence, *, address: str) -> str:
    """Return the sentence about a server that does not answer."""
    since = _write_time(silence.since_ms)
    return f"no answer from {address} since {since}, trying again: {silence.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """How many rows the tables have; without `pools` there is none of pools."""

    tiers: int
    pools: int | None


def _fit_rows(frame: Frame, report: Report, *, place: Place, console: Console) -> _Rows:
    """Return how many rows there are lines for, of tiers first; at least one."""
    all_tiers, all_pools = len(report.tiers), len(report.pools)
    tiers, pools = min(all_tiers, _ROWS_MAX), min(all_pools, _ROWS_MAX)
    everything = _Rows(tiers=tiers, pools=pools)
    if place.lines is None:
        return everything
    empty = _page(frame, report, place=place, rows=_Rows(tiers=0, pools=None))
    # An empty table says how many it leaves out.
    room = place.lines - len(console.render_lines(empty)) + (all_tiers > 0)
    row_lines = max(1, len(report.total.revenue_per_hour.keys() - {DOLLAR}))

    def is_fitting(rows: _Rows) -> bool:
        lines = rows.tiers * row_lines + (rows.tiers < all_tiers)
        if rows.pools is not None:
            lines += _POOL_TABLE_LINES + rows.pools * row_lines + (rows.pools < all_pools)
        return lines <= room

    candidates = [
        everything,
        *(_Rows(tiers=tiers, pools=count) for count in range(pools - 1, _POOLS_MIN - 1, -1)),
        *(
            _Rows(tiers=count, pools=min(pools, _POOLS_MIN))
            for count in range(tiers - 1, _TIERS_MIN - 1, -1)
        ),
        *(_Rows(tiers=count, pools=None) for count in range(tiers, 0, -1)),
    ]
    return next(filter(is_fitting, candidates), _Rows(tiers=1, pools=None))


def _page(frame: Frame, report: Report, *, place: Place, rows: _Rows) -> Group:
    layout = lay_out(report, columns=place.columns, is_terminal=place.is_terminal)
    tiers = tier_table(
        report,
        layout=layout,
        rows=rows.tiers,
        samples=frame.samples,
        curve_seconds=place.curve_seconds,
    )
    parts: list[RenderableType] = [
        _tiles(report, columns=place.columns),
        *_beside_dollars(report.total),
        Text(""),
        tiers,
    ]
    if rows.pools is not None:
        parts += [Text(""), pool_table(report, layout=layout, rows=rows.pools)]
    below = [_quality(frame, report), *_reports(frame)]
    parts += [Text(""), *(Padding(line, (0, 1), expand=False) for line in below)]
    body = Group(*parts)
    shown = body if frame.silence is None else Styled(body, "dim")
    return Group(*_head(frame, place=place), Text(""), shown)


def _head(frame: Frame, *, place: Place) -> list[RenderableType]:
    over = f"over {frame.report.seconds:.3g} s   " if frame.report is not None else ""
    line = Table.grid(expand=place.is_terminal, padding=(0, 3, 0, 0))
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(
        Text.assemble(("tokenworks top", "bold"), "   ", (printable(place.address), "cyan")),
        Text.assemble((over, "dim"), _write_time(frame.time_ms)),
    )
    parts: list[RenderableType] = [Padding(line, (0, 1), expand=False)]
    if frame.samples[-1].is_sandbox:
        parts.append(
            _line(
                (" SANDBOX ", "bold white on magenta"),
                ("  its clock is driven, the rates are of real seconds", "bold magenta"),
            )
        )
    if frame.silence is not None:
        sentence = write_silence(frame.silence, address=printable(place.address))
        parts.append(_line((f" {sentence}", "bold white on red")))
    return parts


def _tiles(report: Report, *, columns: int) -> Table:
    total = report.total
    width = columns // _TILES
    efficiency = "output tokens/J" if width >= _TILE_COLUMNS_WIDE else "tokens/J"
    each = f"{write_number(1 / total.tokens_per_joule)} J each" if total.tokens_per_joule else ""
    attributed = "no power known"
    if report.attributed_ratio is not None:
        attributed = f"{write_percent(report.attributed_ratio)} attributed"
    per_hour, per_mwh = total.revenue_per_hour.get(DOLLAR), total.revenue_per_mwh.get(DOLLAR)
    hourly = "no price known" if per_hour is None else f"${write_number(per_hour)}/h"
    tiles = [
        (
            "tokens/s",
            "cyan",
            total.tokens_per_second,
            f"{write_number(total.output_tokens_per_second)} output",
        ),
        ("watts", "yellow", total.watts, attributed),
        (efficiency, "green", total.tokens_per_joule, each),
        ("$/MWh", "magenta", per_mwh, hourly),
    ]
    grid = Table.grid(padding=0)
    grid.add_row(
        *(
            Panel(
                _line((write_number(number), f"bold {style}"), ("\n", ""), (below, "dim")),
                title=Text(title, style),
                title_align="left",
                border_style="bright_black",
                box=ROUNDED,
                width=width,
            )
            for title, style, number, below in tiles
        )
    )
    return grid


def _beside_dollars(total: Rates) -> list[Text]:
    """Return a line of what is earned in other currencies, if anything: no dollar sum has it."""
    others = [
        f"{printable(name)} {write_number(amount)}/h,"
        f" {write_number(total.revenue_per_mwh.get(name))}/MWh"
        for name, amount in sorted(total.revenue_per_hour.items())
        if name != DOLLAR
    ]
    if not others:
        return []
    return [_line((" beside dollars: ", "dim"), (" · ".join(others), "magenta"))]


def _quality(frame: Frame, report: Report) -> Text:
    latest = frame.samples[-1]
    valid = sum(latest.power_valid.values())
    count = len(latest.power_valid)
    power = f"power valid in {valid} of {count} pools" if count else "no pool reports power"
    power += ", ratios are of these" if 0 < valid < count else ""
    parts = [(power, "green" if count and valid == count else "yellow")]
    behind = latest.behind_seconds
    if behind is not None:
        style = "green" if behind < _BEHIND_SECONDS_FINE else "yellow"
        late = behind >= _BEHIND_SECONDS_LATE
        parts.append((f"counting {behind:,.0f} s behind", "bold red" if late else style))
    held = latest.quarantine_held
    if held is not None:
        parts.append((f"{held:,} held in quarantine", "yellow" if held else "green"))
    if report.unpriced_tokens_per_second:
        unpriced = write_number(report.unpriced_tokens_per_second)
        parts.append((f"{unpriced} tokens/s without a price", "bold yellow"))
    return Text(" · ", style="dim").join([Text(text, style) for text, style in parts])


def _reports(frame: Frame) -> list[Text]:
    """Return the line about engines and sources, if there are any; what is worst comes first."""
    parts = write_reports(frame.samples[-1], now_ms=frame.time_ms)
    if not parts:
        return []
    line = Text(" · ", style="dim", no_wrap=True, overflow="ellipsis")
    return [line.join([Text(printable(it), style) for it, style in parts])]


def _line(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _write_time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%H:%M:%SZ")
