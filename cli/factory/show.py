"""`tokenworks factory show`: the sites, what they draw, what is left, and which tiers it is for."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import click
from google.protobuf.timestamp_pb2 import Timestamp

from cli.accounts import format_time, print_table
from cli.connection import Client, client_command, find_now_ms
from cli.factory.power import NOBODY, PoolDraw, SiteDraw, find_draws, find_site_draws
from cli.factory.versions import version_to_json
from cli.usage.span import Span
from meter.domain.interval import INTERVAL_MS, interval_start_ms
from tokenworks.meter.v1 import energy_service_pb2 as pb

_ABSENT: Final = "-"
_IDLE: Final = {
    pb.IDLE_POLICY_UNATTRIBUTED: "unattributed",
    pb.IDLE_POLICY_PROPORTIONAL: "proportional",
}


@click.command("show", short_help="What sites draw, what is left, and for which tiers.")
@click.option("--toml", "as_toml", is_flag=True, help="Print the description's file instead.")
@client_command
def show(client: Client, *, as_toml: bool) -> None:
    """Show each site's contract, what it draws, its headroom and the share of each tier.

    What it draws is of the last interval whose energy is attributed.
    """
    stored = client.energy.GetFactory(pb.GetFactoryRequest())
    if as_toml:
        click.echo(stored.toml, nl=not stored.toml.endswith("\n"))
        return
    version = stored.version
    span, draws, sites = _find_power(client)
    site_draws = find_site_draws(version, draws, sites)
    marks = client.energy.ListSoftwareMarks(pb.ListSoftwareMarksRequest()).marks
    software = _software(marks, now_ms=find_now_ms(client))
    if client.as_json:
        told = _to_json(stored, span=span, draws=draws, site_draws=site_draws, software=software)
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(
        f"version {version.version}, in force from {format_time(version.start_time)},"
        f" set {format_time(stored.set_time)}"
    )
    click.echo(
        "no interval is attributed yet: what is drawn is not known"
        if span is None
        else f"drawn on the average of {span}"
    )
    print_power(version, draws=draws, site_draws=site_draws, software=software)


def print_power(
    version: pb.FactoryVersion,
    *,
    draws: Sequence[PoolDraw],
    site_draws: Sequence[SiteDraw],
    software: Mapping[str, str],
) -> None:
    """Print tables of sites, tiers and pools, and what they lack."""
    _print_sites(site_draws)
    _print_tiers(site_draws)
    _print_pools(version, draws=draws, software=software)
    _print_doubts(site_draws, draws=draws)


def _print_doubts(sites: Sequence[SiteDraw], *, draws: Sequence[PoolDraw]) -> None:
    """Say what the figures lack: too little energy looks like headroom."""
    for site in sites:
        if site.silent_pools:
            click.echo(
                f"{site.site}: no energy is known of {', '.join(site.silent_pools)}: what they"
                " draw is not in it. See tokenworks energy sources"
            )
    doubtful = [it.pool for it in draws if not it.is_valid]
    if doubtful:
        click.echo(
            f"not valid: {', '.join(doubtful)}: not all of that time, or not all devices, were"
            " measured; they may draw more"
        )


def _find_power(
    client: Client,
) -> tuple[Span | None, Sequence[PoolDraw], Sequence[pb.SiteEnergy]]:
    """Return the last attributed interval, what pools drew in it, and the sites' energy."""
    end_ms = interval_start_ms(find_now_ms(client))
    request = _to_request(end_ms - INTERVAL_MS, end_ms, boundary=pb.ENERGY_BOUNDARY_BOARD)
    answer = client.energy.QueryEfficiency(request)
    if not answer.HasField("attributed_until"):
        return None, (), answer.sites
    until_ms = min(end_ms, answer.attributed_until.ToMilliseconds())
    span = Span(start_ms=until_ms - INTERVAL_MS, end_ms=until_ms)
    boards, hosts = (
        client.energy.QueryEfficiency(_to_request(span.start_ms, span.end_ms, boundary=boundary))
        for boundary in (pb.ENERGY_BOUNDARY_BOARD, pb.ENERGY_BOUNDARY_HOST)
    )
    return span, find_draws(boards, hosts, seconds=INTERVAL_MS // 1_000), boards.sites


def _to_request(
    start_ms: int, end_ms: int, *, boundary: "pb.EnergyBoundary.ValueType"
) -> pb.QueryEfficiencyRequest:
    request = pb.QueryEfficiencyRequest(
        group_by=[pb.EFFICIENCY_GROUP_BY_POOL, pb.EFFICIENCY_GROUP_BY_TIER], boundary=boundary
    )
    request.start_time.FromMilliseconds(start_ms)
    request.end_time.FromMilliseconds(end_ms)
    return request


def _software(marks: Sequence[pb.SoftwareMark], *, now_ms: int) -> dict[str, str]:
    """Return which software serves each pool now; marks come in the order of their times."""
    return {it.pool: it.software for it in marks if it.time.ToMilliseconds() <= now_ms}


def _print_sites(sites: Sequence[SiteDraw]) -> None:
    print_table(
        ["site", "contract (kW)", "machines (kW)", "PUE", "site (kW)", "headroom (kW)", "used"],
        (
            [
                it.site,
                _kilowatts(Decimal(it.contracted_watts)),
                _kilowatts(it.machines_watts),
                _pue(it),
                _kilowatts(it.facility_watts),
                _kilowatts(it.headroom_watts),
                _ABSENT
                if it.headroom_watts is None
                else _percent(1 - it.headroom_watts / it.contracted_watts),
            ]
            for it in sites
        ),
    )


def _print_tiers(sites: Sequence[SiteDraw]) -> None:
    rows = [
        [
            site.site,
            tier or "(nobody's)",
            _kilowatts(watts),
            _percent(watts / site.machines_watts),
            _kilowatts(Decimal(site.reserved_watts[tier]))
            if tier in site.reserved_watts
            else _ABSENT,
        ]
        for site in sites
        for tier, watts in _by_watts(site)
        if site.machines_watts
    ]
    if rows:
        print_table(["site", "tier", "machines (kW)", "share", "reserved (kW)"], rows)


def _by_watts(site: SiteDraw) -> list[tuple[str, Decimal]]:
    """Return tiers by what they draw, those that only have something reserved too, nobody last."""
    watts = {tier: Decimal(0) for tier in site.reserved_watts} | dict(site.watts_by_tier)
    return sorted(watts.items(), key=lambda it: (it[0] == NOBODY, -it[1], it[0]))


def _print_pools(
    version: pb.FactoryVersion, *, draws: Sequence[PoolDraw], software: Mapping[str, str]
) -> None:
    known = {it.pool: it for it in draws}
    described = {it.pool: it for it in version.pools}
    rows = []
    for name in sorted({*known, *described}):
        draw, pool = known.get(name), described.get(name, pb.FactoryPool())
        rows.append(
            [
                name,
                pool.site or "(not described)",
                pool.hardware or _ABSENT,
                str(pool.device_count) if pool.device_count else _ABSENT,
                software.get(name, _ABSENT),
                f"{pool.idle_mw / 1_000:g} W, {_IDLE[pool.idle]}" if pool.idle_mw else _ABSENT,
                _ABSENT if draw is None else f"{_kilowatts(draw.watts)} ({draw.boundary})",
                _ABSENT if draw is None else "valid" if draw.is_valid else "not valid",
            ]
        )
    print_table(
        ["pool", "site", "hardware", "devices", "software", "idling", "drawn (kW)", "power"], rows
    )


def _kilowatts(watts: Decimal | None) -> str:
    return _ABSENT if watts is None else f"{watts / 1_000:,.3f}"


def _percent(share: Decimal) -> str:
    return f"{share * 100:.1f} %"


def _pue(site: SiteDraw) -> str:
    if site.pue is None:
        return _ABSENT
    return f"{site.pue:f} {'measured' if site.is_measured else 'configured'}"


def _to_json(
    stored: pb.GetFactoryResponse,
    *,
    span: Span | None,
    draws: Sequence[PoolDraw],
    site_draws: Sequence[SiteDraw],
    software: Mapping[str, str],
) -> dict[str, object]:
    return {
        **version_to_json(stored.version),
        "set_time": stored.set_time.ToJsonString(),
        "start_time": None if span is None else _to_iso(span.start_ms),
        "end_time": None if span is None else _to_iso(span.end_ms),
        "site_power": [
            {
                "site": it.site,
                "contracted_watts": it.contracted_watts,
                "reserved_watts": it.reserved_watts,
                "machines_watts": _number(it.machines_watts),
                "pue": None if it.pue is None else f"{it.pue:f}",
                "pue_basis": None
                if it.pue is None
                else "measured"
                if it.is_measured
                else "configured",
                "facility_watts": _number(it.facility_watts),
                "headroom_watts": _number(it.headroom_watts),
                "tier_watts": {
                    tier: _number(watts) for tier, watts in it.watts_by_tier.items() if tier
                },
                "unattributed_watts": None
                if it.machines_watts is None
                else _number(it.watts_by_tier.get(NOBODY, Decimal(0))),
                "silent_pools": list(it.silent_pools),
            }
            for it in site_draws
        ],
        "pool_power": [
            {
                "pool": it.pool,
                "boundary": it.boundary,
                "watts": _number(it.watts),
                "valid": it.is_valid,
                "software": software.get(it.pool),
            }
            for it in draws
        ],
    }


def _number(watts: Decimal | None) -> float | None:
    return None if watts is None else float(round(watts, 3))


def _to_iso(at_ms: int) -> str:
    message = Timestamp()
    message.FromMilliseconds(at_ms)
    return message.ToJsonString()
