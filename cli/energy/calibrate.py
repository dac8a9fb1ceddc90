"""`tokenworks energy calibrate`: what tokens weigh, fitted to what a pool measured."""

import json
from collections.abc import Sequence
from typing import Final

import click

from cli.accounts import print_table
from cli.connection import Client, client_command, find_now_ms
from cli.energy.fit import KINDS, Fit, Window, fit_windows
from cli.energy.question import BOUNDARIES, to_request
from cli.process import CommandError, Exit
from cli.usage.span import Span, check_order, check_time, format_edge, to_span
from meter.domain.units import MJ_PER_JOULE
from tokenworks.meter.v1 import energy_service_pb2 as pb

# What is no part of a window that can be used: its energy is not all shared out yet.
_PENDING: Final = pb.UNATTRIBUTED_REASON_PENDING
_UNKNOWN: Final = frozenset({pb.UNATTRIBUTED_REASON_GAP, pb.UNATTRIBUTED_REASON_UNMAPPED})
_RESIDUALS_SHOWN: Final = 5


@click.command("calibrate", short_help="Fit what tokens weigh to what a pool measured.")
@click.option("--pool", required=True, metavar="NAME", help="The pool.")
@click.option("--model", default="", metavar="NAME", help="Only intervals that served this model.")
@click.option(
    "--since",
    callback=check_time,
    default="7d",
    show_default=True,
    metavar="TIME",
    help="Begin of the time.",
)
@click.option(
    "--until", callback=check_time, metavar="TIME", help="End of the time; without it, now."
)
@click.option(
    "--idle-watts",
    type=click.FloatRange(min=0),
    metavar="W",
    help="What one device takes for idling, where it is known; else it is fitted too.",
)
@click.option(
    "--boundary",
    type=click.Choice(list(BOUNDARIES)),
    default="board",
    show_default=True,
    help="Energy of accelerators' boards, or of whole hosts.",
)
@client_command
def calibrate(
    client: Client,
    *,
    pool: str,
    model: str,
    since: str,
    until: str | None,
    idle_watts: float | None,
    boundary: str,
) -> None:
    """Fit what a token of each kind takes to the pool's intervals, by non-negative least squares.

    Only intervals count whose power is valid and whose energy is attributed. Prints coefficients,
    how good the fit is, and the lines for the factory's description.
    """
    check_order(since, until)
    span = to_span(since, until, now_ms=find_now_ms(client))
    windows, left_out = _find_windows(client, span=span, pool=pool, model=model, boundary=boundary)
    if not windows:
        raise CommandError(
            f"no interval of {pool} in {span} can be used: none is valid and attributed"
            + (f" and served {model} alone" if model else "")
            + ". See tokenworks energy sources",
            code=Exit.FAILED,
        )
    fit = fit_windows(windows, idle_watts=idle_watts)
    description = _description(client, fit, pool=pool, model=model, span=span)
    if client.as_json:
        told = _to_json(fit, windows, left_out=left_out, span=span, description=description)
        click.echo(json.dumps({"pool": pool, "model": model or None, **told}, indent=2))
        return
    click.echo(f"{pool}{f', {model}' if model else ''}, {span}, {boundary}s")
    click.echo(f"{len(windows)} intervals, {fit.quiet_count} of them without tokens")
    for reason, count in left_out.items():
        click.echo(f"{count} intervals left out: {reason}")
    _print_fit(fit, windows)
    for warning in fit.warnings():
        click.echo(f"warning: {warning}", err=True)
    if description:
        click.echo(f"For the factory's description:\n\n{description}", nl=False)


def _find_windows(
    client: Client, *, span: Span, pool: str, model: str, boundary: str
) -> tuple[list[Window], dict[str, int]]:
    """Return the intervals that can be used, and how many cannot, by reason."""
    request = to_request(span, by=("interval", "model"), pool=pool, boundary=boundary)
    answer = client.energy.QueryEfficiency(request)
    served: dict[int, list[pb.EfficiencyRow]] = {}
    for row in answer.rows:
        served.setdefault(row.start_time.ToMilliseconds(), []).append(row)
    windows = []
    left_out: dict[str, int] = {}
    for each in answer.pools:
        start_ms = each.start_time.ToMilliseconds()
        rows = served.get(start_ms, [])
        reason = _unusable(each, rows, model=model)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        unknown_mj = sum(it.energy_mj for it in each.unattributed if it.reason in _UNKNOWN)
        windows.append(
            Window(
                start_ms=start_ms,
                energy_mj=each.measured_mj - unknown_mj,
                covered_ms=each.covered_ms,
                input_tokens=sum(row.input_tokens for row in rows),
                cached_tokens=sum(row.cached_tokens for row in rows),
                output_tokens=sum(row.output_tokens for row in rows),
            )
        )
    return windows, left_out


def _unusable(pool: pb.PoolEnergy, rows: Sequence[pb.EfficiencyRow], *, model: str) -> str | None:
    """Return why an interval tells nothing; None when it does."""
    if any(it.reason == _PENDING for it in pool.unattributed):
        return "not attributed yet"
    if pool.interval_count == 0 or pool.valid_interval_count < pool.interval_count:
        return "their power is not valid"
    if model and any(row.model != model and row.total_tokens for row in rows):
        return f"they served others than {model}"
    return None


def _print_fit(fit: Fit, windows: Sequence[Window]) -> None:
    weights = fit.weights or (None, None, None)
    rows = [["a device, idle" + (", as given" if fit.is_idle_given else ""), _watts(fit), ""]]
    rows += [
        [
            f"{kind} token".replace("_input", " input"),
            f"{joules:.6g} J",
            "" if weight is None else f"{weight:f}",
        ]
        for kind, joules, weight in zip(KINDS, fit.joules, weights, strict=True)
    ]
    print_table(["what", "takes", "weighs"], rows)
    r_squared = "not known" if fit.r_squared is None else f"{fit.r_squared:.4f}"
    click.echo(f"R² {r_squared}, condition {fit.condition:,.1f}")
    worst = sorted(zip(windows, fit.residual_joules, strict=True), key=lambda it: -abs(it[1]))[
        :_RESIDUALS_SHOWN
    ]
    print_table(
        ["interval, furthest from the fit first", "measured", "more than fitted"],
        (
            [
                format_edge(window.start_ms),
                f"{window.energy_mj / MJ_PER_JOULE:,.0f} J",
                f"{residual:+,.0f} J",
            ]
            for window, residual in worst
        ),
    )


def _watts(fit: Fit) -> str:
    return f"{fit.idle_watts:.6g} W"


def _description(client: Client, fit: Fit, *, pool: str, model: str, span: Span) -> str:
    """Return the lines for the description; empty where no token takes anything."""
    weights = fit.weights
    if weights is None:
        return ""
    r_squared = "" if fit.r_squared is None else f", R² {fit.r_squared:.2f}"
    source = f"energy calibrate of {pool}, {span}{r_squared}"
    hardware = _find_hardware(client, pool)
    lines = ["[[weights]]"]
    lines += [f"hardware = {json.dumps(hardware, ensure_ascii=False)}"] if hardware else []
    lines += [f"model = {json.dumps(model, ensure_ascii=False)}"] if model else []
    lines += [f'{kind} = "{weight:f}"' for kind, weight in zip(KINDS, weights, strict=True)]
    lines.append(f"source = {json.dumps(source, ensure_ascii=False)}")
    if fit.is_idle_given or fit.quiet_count:
        lines.append(f'# of [pools.{pool}]: idle_watts = "{fit.idle_watts:.3f}"')
    return "\n".join(lines) + "\n"


def _find_hardware(client: Client, pool: str) -> str:
    """Return the hardware of a pool; empty where nobody described it."""
    versions = client.energy.ListFactoryVersions(pb.ListFactoryVersionsRequest()).versions
    described = [it for version in versions[-1:] for it in version.pools if it.pool == pool]
    return described[0].hardware if described else ""


def _to_json(
    fit: Fit,
    windows: Sequence[Window],
    *,
    left_out: dict[str, int],
    span: Span,
    description: str,
) -> dict[str, object]:
    weights = fit.weights
    return {
        "span": str(span),
        "windows": [
            {
                "start_ms": window.start_ms,
                "energy_mj": window.energy_mj,
                "residual_joules": residual,
            }
            for window, residual in zip(windows, fit.residual_joules, strict=True)
        ],
        "quiet_count": fit.quiet_count,
        "left_out": left_out,
        "idle_watts": fit.idle_watts,
        "idle_watts_given": fit.is_idle_given,
        "joules_per_token": dict(zip(KINDS, fit.joules, strict=True)),
        "weights": None
        if weights is None
        else {kind: f"{it:f}" for kind, it in zip(KINDS, weights, strict=True)},
        "r_squared": fit.r_squared,
        "condition": fit.condition,
        "warnings": fit.warnings(),
        "description": description or None,
    }
