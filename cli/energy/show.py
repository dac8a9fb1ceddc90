"""`tokenworks energy show`: what the tokens took, and what they earned by that."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.accounts import format_time
from cli.connection import Client, client_command, find_now_ms
from cli.energy.answer import to_json
from cli.energy.money import Revenue, find_revenue
from cli.energy.question import (
    BOUNDARIES,
    GROUPS,
    REASONS,
    TIMES,
    to_request,
    tokens_per_joule,
)
from cli.usage.energy import find_unit, sign_of, write_energy
from cli.usage.query import make_group_splitter
from cli.usage.span import check_order, check_time, to_span
from meter.domain.units import MJ_PER_JOULE
from tokenworks.meter.v1 import energy_service_pb2 as pb

# What adds up of a pool's times.
_SUMS: Final = (
    *("measured_mj", "attributed_mj", "estimated_mj", "gap_ms", "reset_count"),
    *("interval_count", "valid_interval_count"),
)
_ABSENT: Final = "-"
_UNMEASURED: Final = (
    "No energy of {boundary}s was measured. See where it is read:\n  tokenworks energy sources"
)
# Wide enough for any table: what is piped into another program is neither cut nor wrapped.
_PIPED_COLUMNS: Final = 100_000


split_groups: Final = make_group_splitter(
    GROUPS, times=TIMES, clash="one of interval, hour and day."
)


@click.command("show", short_help="Tokens, energy, and tokens per joule.")
@click.option(
    "--by",
    callback=split_groups,
    default="tier",
    show_default=True,
    metavar="NAME,…",
    help="What the rows are split by: pool, tier, model, account, interval, hour, day.",
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
@click.option(
    "--boundary",
    type=click.Choice(list(BOUNDARIES)),
    default="board",
    show_default=True,
    help="Energy of accelerators' boards, or of whole hosts.",
)
@client_command
def show(
    client: Client,
    *,
    by: tuple[str, ...],
    since: str,
    until: str | None,
    pool: str,
    boundary: str,
) -> None:
    """Show tokens, the energy that was attributed to them, and output tokens per joule.

    Tokens whose events name no pool are not in it. The ratio is of intervals whose power is valid;
    where there is none, there is no ratio. What is measured and not attributed is told apart, to
    the millijoule. Split by tier, by pool or by both it also shows what these tokens come to at
    contract prices, in dollars a megawatt-hour.
    """
    check_order(since, until)
    span = to_span(since, until, now_ms=find_now_ms(client))
    request = to_request(span, by=by, pool=pool, boundary=boundary)
    answer = client.energy.QueryEfficiency(request)
    revenue = find_revenue(client, request, by=by)
    if client.as_json:
        told = to_json(answer, request=request, by=by, revenue=revenue)
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"energy of {boundary}s of {pool or 'all pools'}, {span}")
    if answer.rows:
        columns = [*_key_columns(by), *_sum_columns(answer.rows)]
        print_rows(answer.rows, columns=[*columns, *_money_columns(revenue, answer.rows)])
    else:
        click.echo("\nNo tokens of a pool were counted in this time.\n")
    for each in _over_times(answer.pools):
        _print_pool(each)
    if not answer.pools:
        click.echo(_UNMEASURED.format(boundary=boundary))
    for site in answer.sites:
        _print_site(site)
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


def _money_columns(revenue: Revenue, rows: Sequence[pb.EfficiencyRow]) -> list[Column]:
    if not revenue:
        return []

    def money(row: pb.EfficiencyRow) -> str:
        amount = revenue.find(row)
        return _ABSENT if amount is None else f"{amount:,.2f}"

    def ratio(rows: Sequence[pb.EfficiencyRow]) -> str:
        found = revenue.per_megawatt_hour(rows)
        return _ABSENT if found is None else f"{found:,.2f}"

    total = sum((revenue.find(row) or Decimal(0) for row in rows), Decimal(0))
    return [
        Column(title="USD", cell=money, footer=f"{total:,.2f}"),
        Column(title="USD/MWh", cell=lambda row: ratio([row]), footer=ratio(rows)),
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
    if name in TIMES:
        form = "%Y-%m-%d" if name == "day" else "%Y-%m-%d %H:%M"
        return lambda row: row.start_time.ToDatetime().strftime(form)
    return lambda row: str(getattr(row, name)) or _ABSENT


def _sum_columns(rows: Sequence[pb.EfficiencyRow]) -> list[Column]:
    total_mj = sum(row.energy_mj for row in rows)
    unit = find_unit(total_mj)
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
            title=f"energy ({sign_of(unit)})",
            cell=lambda row: write_energy(row.energy_mj or None, unit=unit),
            footer=write_energy(total_mj or None, unit=unit),
        ),
        Column(
            title="output tokens/J",
            cell=lambda row: _ratio([row]),
            footer=_ratio(rows),
        ),
    ]


def _ratio(rows: Sequence[pb.EfficiencyRow]) -> str:
    ratio = tokens_per_joule(rows)
    return _ABSENT if ratio is None else f"{ratio:.4g}"


def _joules(energy_mj: int) -> str:
    """Return millijoules as joules, exactly."""
    joules, rest = divmod(energy_mj, MJ_PER_JOULE)
    return f"{joules:,}.{rest:03} J"


def _over_times(pools: Sequence[pb.PoolEnergy]) -> list[pb.PoolEnergy]:
    """Return a pool's times as one."""
    whole: dict[str, pb.PoolEnergy] = {}
    for each in pools:
        total = whole.setdefault(each.pool, pb.PoolEnergy(pool=each.pool))
        for name in _SUMS:
            setattr(total, name, getattr(total, name) + getattr(each, name))
        reasons = {it.reason: it for it in total.unattributed}
        for it in each.unattributed:
            if it.reason in reasons:
                reasons[it.reason].energy_mj += it.energy_mj
            else:
                total.unattributed.add(reason=it.reason, energy_mj=it.energy_mj)
    return list(whole.values())


def _print_pool(pool: pb.PoolEnergy) -> None:
    parts = [
        f"{REASONS.get(it.reason, str(it.reason)).replace('_', ' ')} {_joules(it.energy_mj)}"
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
    if pool.estimated_mj:
        notes.append(f"of it estimated, by no counter: {_joules(pool.estimated_mj)}")
    invalid_count = pool.interval_count - pool.valid_interval_count
    if invalid_count:
        notes.append(
            "intervals in no ratio, not valid or not attributed yet:"
            f" {invalid_count:,} of {pool.interval_count:,}"
        )
    if notes:
        click.echo(f"{pool.pool}: {'; '.join(notes)}")


def _print_site(site: pb.SiteEnergy) -> None:
    """Tell how much more than its machines a site takes, where that is known."""
    if site.basis == pb.PUE_BASIS_CONFIGURED:
        click.echo(f"{site.site}: PUE {site.pue}, configured")
    elif site.basis == pb.PUE_BASIS_MEASURED:
        click.echo(
            f"{site.site}: PUE {site.pue}, measured: {_joules(site.facility_mj)} by the site's"
            f" meter, of its machines {_joules(site.pools_mj)}"
        )
