"""`tokenworks energy show`: what the tokens took, and what they earned by that."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.accounts import format_time
from cli.connection import Client, client_command, find_now_ms
from cli.energy.money import MJ_PER_MEGAWATT_HOUR, find_revenue, per_megawatt_hour
from cli.energy.sources import time_to_json
from cli.usage.query import make_group_splitter
from cli.usage.span import Span, check_order, check_time, to_span
from tokenworks.meter.v1 import energy_service_pb2 as pb

GROUPS: Final = {
    name.removeprefix("EFFICIENCY_GROUP_BY_").lower(): number
    for name, number in pb.EfficiencyGroupBy.items()
    if number
}
_TIMES: Final = ("interval", "hour", "day")
_REASONS: Final = {
    number: name.removeprefix("UNATTRIBUTED_REASON_").lower()
    for name, number in pb.UnattributedReason.items()
    if number
}
_MJ_PER_JOULE: Final = 1_000
# The largest unit that the largest number fills: its millijoules.
_UNITS_MJ: Final = {
    "MWh": MJ_PER_MEGAWATT_HOUR,
    "kWh": 3_600_000_000,
    "kJ": 1_000_000,
    "J": _MJ_PER_JOULE,
}
_ABSENT: Final = "-"
# Wide enough for any table: what is piped into another program is neither cut nor wrapped.
_PIPED_COLUMNS: Final = 100_000


split_groups: Final = make_group_splitter(
    GROUPS, times=_TIMES, clash="one of interval, hour and day."
)


@click.command("show", short_help="Tokens, energy, and tokens per joule.")
@click.option(
    "--by",
    callback=split_groups,
    default="tier",
    show_default=True,
    metavar="NAME,…",
    help="What the rows are split by: pool, tier, model, interval, hour, day.",
)
@click.option(
    "--since",
    callback=check_time,
    default="1d",
    show_default=True,
    metavar="TIME",
    help="Begin of the time.",
)
@click.option(
    "--until", callback=check_time, metavar="TIME", help="End of the time; without it, now."
)
@click.option("--pool", default="", metavar="NAME", help="Only this pool.")
@client_command
def show(client: Client, *, by: tuple[str, ...], since: str, until: str | None, pool: str) -> None:
    """Show tokens, the energy that was attributed to them, and output tokens per joule.

    Tokens whose events name no pool are not in it. Where no energy is known there is no ratio. What
    is measured and not attributed is told apart, to the millijoule. Split by tier alone it also
    shows what the tier's usage comes to at contract prices, in dollars a megawatt-hour.
    """
    check_order(since, until)
    span = to_span(since, until, now_ms=find_now_ms(client))
    request = to_request(span, by=by, pool=pool)
    answer = client.energy.QueryEfficiency(request)
    # What usage comes to is known by tier, and not by pool: its prices do not depend on pools.
    revenue = find_revenue(client, request) if by == ("tier",) and not pool else {}
    if client.as_json:
        told = _to_json(answer, request=request, by=by, revenue=revenue)
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"energy of {pool or 'all pools'}, {span}")
    if answer.rows:
        columns = [*_key_columns(by), *_sum_columns(answer.rows)]
        print_rows(answer.rows, columns=[*columns, *_money_columns(revenue, answer.rows)])
    else:
        click.echo("\nNo tokens of a pool were counted in this time.\n")
    for each in answer.pools:
        _print_pool(each)
    if not answer.pools:
        click.echo("No energy was measured. See where it is read:\n  tokenworks energy sources")
    if answer.HasField("attributed_until"):
        click.echo(f"attributed until {format_time(answer.attributed_until)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its title, a row's cell, and what stands below it; numbers stand to the right."""

    title: str
    cell: Callable[[pb.EfficiencyRow], str]
    footer: str = ""
    is_number: bool = True


def print_rows(rows: Sequence[pb.EfficiencyRow], *, columns: Sequence[Column]) -> None:
    """Print a table of rows with these columns, as wide as it needs to be in a pipe."""
    table = Table(box=SIMPLE, pad_edge=False, show_footer=True)
    for column in columns:
        justify = "right" if column.is_number else "left"
        table.add_column(
            column.title,
            footer=column.footer,
            justify=justify,  # type: ignore[arg-type]  # one of its words
            no_wrap=column.is_number,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(column.cell(row) for column in columns))
    width = None if sys.stdout.isatty() else _PIPED_COLUMNS
    Console(file=sys.stdout, width=width, markup=False, highlight=False).print(table)


def to_request(span: Span, *, by: Sequence[str], pool: str = "") -> pb.QueryEfficiencyRequest:
    """Return the question for a span; an empty pool is all of them."""
    request = pb.QueryEfficiencyRequest(pool=pool)
    for name in by:
        request.group_by.append(pb.EfficiencyGroupBy.Name(GROUPS[name]))  # type: ignore[arg-type]
    request.start_time.FromMilliseconds(span.start_ms)
    request.end_time.FromMilliseconds(span.end_ms)
    return request


def tokens_per_joule(rows: Sequence[pb.EfficiencyRow]) -> float | None:
    """Return output tokens per joule of all of these rows; None where no energy is known."""
    energy_mj = sum(row.energy_mj for row in rows)
    if not energy_mj:
        return None
    return sum(row.attributed_output_tokens for row in rows) * _MJ_PER_JOULE / energy_mj


def _money_columns(
    revenue: Mapping[str, Decimal], rows: Sequence[pb.EfficiencyRow]
) -> list[Column]:
    if not revenue:
        return []

    def money(row: pb.EfficiencyRow) -> str:
        amount = revenue.get(row.tier)
        return _ABSENT if amount is None else f"{amount:,.2f}"

    def ratio(row: pb.EfficiencyRow) -> str:
        found = per_megawatt_hour(revenue.get(row.tier), row.energy_mj)
        return _ABSENT if found is None else f"{found:,.2f}"

    total = sum((revenue[row.tier] for row in rows if row.tier in revenue), Decimal(0))
    overall = per_megawatt_hour(total, sum(row.energy_mj for row in rows))
    return [
        Column(title="USD", cell=money, footer=f"{total:,.2f}"),
        Column(
            title="USD/MWh",
            cell=ratio,
            footer=_ABSENT if overall is None else f"{overall:,.2f}",
        ),
    ]


def _key_columns(by: Sequence[str]) -> list[Column]:
    return [
        Column(
            title=name,
            cell=_cell_of(name),
            footer="" if place else "total",
            is_number=False,
        )
        for place, name in enumerate(by)
    ]


def _cell_of(name: str) -> Callable[[pb.EfficiencyRow], str]:
    if name in _TIMES:
        form = "%Y-%m-%d" if name == "day" else "%Y-%m-%d %H:%M"
        return lambda row: row.start_time.ToDatetime().strftime(form)
    return lambda row: str(getattr(row, name)) or _ABSENT


def _sum_columns(rows: Sequence[pb.EfficiencyRow]) -> list[Column]:
    total_mj = sum(row.energy_mj for row in rows)
    unit = next((unit for unit, mj in _UNITS_MJ.items() if mj <= total_mj), "J")
    return [
        Column(
            title="output tokens",
            cell=lambda row: f"{row.output_tokens:,}",
            footer=f"{sum(row.output_tokens for row in rows):,}",
        ),
        Column(
            title="all tokens",
            cell=lambda row: f"{row.total_tokens:,}",
            footer=f"{sum(row.total_tokens for row in rows):,}",
        ),
        Column(
            title=f"energy ({unit})",
            cell=lambda row: _in_unit(row.energy_mj, unit),
            footer=_in_unit(total_mj, unit),
        ),
        Column(
            title="output tokens/J",
            cell=lambda row: _ratio([row]),
            footer=_ratio(rows),
        ),
    ]


def _in_unit(energy_mj: int, unit: str) -> str:
    return f"{energy_mj / _UNITS_MJ[unit]:,.3f}" if energy_mj else _ABSENT


def _ratio(rows: Sequence[pb.EfficiencyRow]) -> str:
    ratio = tokens_per_joule(rows)
    return _ABSENT if ratio is None else f"{ratio:.4g}"


def _joules(energy_mj: int) -> str:
    """Return millijoules as joules, exactly."""
    joules, rest = divmod(energy_mj, _MJ_PER_JOULE)
    return f"{joules:,}.{rest:03} J"


def _print_pool(pool: pb.PoolEnergy) -> None:
    parts = [
        f"{_REASONS.get(it.reason, str(it.reason)).replace('_', ' ')} {_joules(it.energy_mj)}"
        for it in pool.unattributed
    ]
    unattributed = _joules(pool.measured_mj - pool.attributed_mj)
    click.echo(
        f"{pool.pool}: measured {_joules(pool.measured_mj)}"
        f" = attributed {_joules(pool.attributed_mj)} + unattributed {unattributed}"
        + (f" ({', '.join(parts)})" if parts else "")
    )
    notes = []
    if pool.reset_count:
        notes.append(f"counters that began anew or leapt: {pool.reset_count:,}")
    if pool.gap_ms:
        notes.append(f"time without known energy, over all devices: {pool.gap_ms / 1000:,.0f} s")
    if notes:
        click.echo(f"{pool.pool}: {'; '.join(notes)}")


def _to_json(
    answer: pb.QueryEfficiencyResponse,
    *,
    request: pb.QueryEfficiencyRequest,
    by: Sequence[str],
    revenue: Mapping[str, Decimal],
) -> dict[str, object]:
    return {
        "start_time": request.start_time.ToJsonString(),
        "end_time": request.end_time.ToJsonString(),
        "attributed_until": time_to_json(
            answer.attributed_until, is_there=answer.HasField("attributed_until")
        ),
        "rows": [_row_to_json(row, by=by, revenue=revenue) for row in answer.rows],
        "pools": [
            {
                "pool": pool.pool,
                "measured_mj": pool.measured_mj,
                "attributed_mj": pool.attributed_mj,
                "unattributed_mj": {
                    _REASONS.get(it.reason, str(it.reason)): it.energy_mj
                    for it in pool.unattributed
                },
                "gap_ms": pool.gap_ms,
                "reset_count": pool.reset_count,
            }
            for pool in answer.pools
        ],
    }


def _row_to_json(
    row: pb.EfficiencyRow, *, by: Sequence[str], revenue: Mapping[str, Decimal]
) -> dict[str, object]:
    keys: dict[str, object] = {}
    for name in by:
        if name in _TIMES:
            keys["start_time"] = row.start_time.ToJsonString()
        else:
            keys[name] = getattr(row, name)
    return {
        **keys,
        "output_tokens": row.output_tokens,
        "total_tokens": row.total_tokens,
        "request_count": row.request_count,
        "energy_mj": row.energy_mj if row.HasField("energy_mj") else None,
        "attributed_output_tokens": row.attributed_output_tokens,
        "output_tokens_per_joule": tokens_per_joule([row]),
        **_money_to_json(row, revenue=revenue),
    }


def _money_to_json(row: pb.EfficiencyRow, *, revenue: Mapping[str, Decimal]) -> dict[str, object]:
    if not revenue:
        return {}
    amount = revenue.get(row.tier)
    ratio = per_megawatt_hour(amount, row.energy_mj)
    return {
        "usd": None if amount is None else f"{amount:f}",
        "usd_per_mwh": None if ratio is None else f"{ratio:.2f}",
    }
