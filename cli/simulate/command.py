"""`tokenworks simulate`: options in, a table out."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, TypeAlias

import click
from click.core import ParameterSource

from cli.connection import Client, client_command, find_target, load_settings
from cli.process import CommandError, Exit, report_progress
from cli.simulate.customers import find_or_create_accounts
from cli.simulate.fleet import run_fleet
from cli.simulate.server import MeterAddress, Progress, Replay
from cli.simulate.site import SiteOptions, simulate_site
from cli.simulate.site.size import Size, SizeInvalid, parse_size
from cli.simulate.trace import TraceUnreadable
from cli.simulate.truth_folder import truth_folder
from cli.simulate.workload import Customers, Workload
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1.clock_service_pb2 import GetClockRequest

TIERS: Final = ("medium", "high", "free", "premium", "ultra")
MODELS: Final = ("atlas-large", "atlas-small", "breeze-mini")
SERVERS_MAX: Final = 256
# Each process holds the trace, some hundred bytes a request.
REQUESTS_MAX: Final = 1_000_000
SPEED_MAX: Final = 1_000_000
# It is part of the producers' names, which have 64 characters at most.
SEED_MAX: Final = 2**63 - 1
DEADLINE_SECONDS_MAX: Final = 86_400
MINUTES_MIN: Final = 0.02
MINUTES_MAX: Final = 1_440
# What only a fleet has, request by request, and what only a site has.
_FLEET_ONLY: Final = frozenset(
    {
        "server_count",
        "request_count",
        "speed",
        "resend_percent",
        "accounts",
        "tiers",
        "models",
        "pools",
    }
)
_SITE_ONLY: Final = frozenset({"minutes", "picture"})
_COUNTS: Final = (
    "sent",
    "acknowledged",
    "set_aside",
    "dropped",
    "batches",
    "resent_batches",
    "repeated_batches",
)


def _names(
    context: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """Split names at commas; none may be empty or come twice."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise click.BadParameter("must be different names, separated by commas", context, param)
    return names


def _size(context: click.Context, param: click.Parameter, value: str | None) -> Size | None:
    if value is None:
        return None
    try:
        return parse_size(value)
    except SizeInvalid as error:
        raise click.BadParameter(str(error), context, param) from error


def _speed(context: click.Context, param: click.Parameter, value: float) -> float:
    """Return the speed; a trace that is slower than it was would have no end."""
    if 0 < value < 1:
        raise click.BadParameter("must be 0, or at least 1", context, param)
    return value


def _minutes(context: click.Context, param: click.Parameter, value: float) -> float:
    """Return the minutes; click's range lets through what is no number."""
    if math.isnan(value):
        raise click.BadParameter("must be a number of minutes", context, param)
    return value


_Command: TypeAlias = Callable[..., None]
_OPTIONS: Final[tuple[Callable[[_Command], _Command], ...]] = (
    click.option(
        "--servers",
        "server_count",
        type=click.IntRange(1, SERVERS_MAX),
        default=4,
        show_default=True,
        help="Processes that report.",
    ),
    click.option(
        "--trace",
        "traces",
        type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True),
        multiple=True,
        help="A trace to replay: CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens."
        " Several are laid over each other.",
    ),
    click.option(
        "--requests",
        "request_count",
        type=click.IntRange(1, REQUESTS_MAX),
        default=2_000,
        show_default=True,
        help="Without --trace: the requests of the trace that is generated.",
    ),
    click.option(
        "--speed",
        type=click.FloatRange(0, SPEED_MAX),
        callback=_speed,
        default=0.0,
        show_default=True,
        help="1 is real time, 60 a minute of the trace in a second, 0 as fast as possible.",
    ),
    click.option(
        "--resend",
        "resend_percent",
        metavar="PERCENT",
        type=click.FloatRange(0, 100),
        default=1.0,
        show_default=True,
        help="Share of the batches that go out a second time.",
    ),
    click.option(
        "--accounts",
        metavar="ID,…",
        callback=_names,
        help="Accounts to report for. Without it there are six, created when they are missing.",
    ),
    click.option(
        "--tiers",
        metavar="NAME,…",
        callback=_names,
        default=",".join(TIERS),
        show_default=True,
        help="Tiers to report, the busiest first.",
    ),
    click.option(
        "--models",
        metavar="NAME,…",
        callback=_names,
        default=",".join(MODELS),
        show_default=True,
        help="Models to report, the busiest first.",
    ),
    click.option(
        "--pools",
        metavar="NAME,…",
        callback=_names,
        help="Pools that serve, dealt to the tiers in turn. Without it, events name none, and no"
        " energy goes to their tokens.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, SEED_MAX),
        default=1,
        show_default=True,
        help="Decides all that looks random, and the producers' names.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
        help="Folder for the truth files, one a server. Without it, a new one.",
    ),
    click.option(
        "--deadline",
        "deadline_seconds",
        metavar="SECONDS",
        type=click.FloatRange(0.1, DEADLINE_SECONDS_MAX),
        default=60.0,
        show_default=True,
        help="How long to wait for acknowledgements.",
    ),
    click.option(
        "--site",
        "size",
        metavar="SIZE",
        callback=_size,
        help="Instead of a fleet: a whole site, such as 1GW or 100MW, with power and prices.",
    ),
    click.option(
        "--minutes",
        type=click.FloatRange(MINUTES_MIN, MINUTES_MAX),
        callback=_minutes,
        default=10.0,
        show_default=True,
        help="With --site: how long it runs.",
    ),
    click.option(
        "--picture",
        type=click.Path(path_type=Path, dir_okay=False, resolve_path=True),
        help="With --site: a PNG to draw the run into; needs the extra `demo`.",
    ),
)


def _with_options(command: _Command) -> _Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("simulate")
@_with_options
@client_command
def simulate(
    client: Client,
    *,
    server_count: int,
    traces: tuple[Path, ...],
    request_count: int,
    speed: float,
    resend_percent: float,
    accounts: tuple[str, ...] | None,
    tiers: tuple[str, ...],
    models: tuple[str, ...],
    pools: tuple[str, ...] | None,
    seed: int,
    out: Path | None,
    deadline_seconds: float,
    size: Size | None,
    minutes: float,
    picture: Path | None,
) -> None:
    """Run a fleet of processes that report to a meter over gRPC, through the client.

    Times are laid so that the last request ends when the replay does, in a sandbox at the time of
    its clock. Each server writes what it is about to report to its truth file first. Fails when
    anything is not acknowledged in time.

    With --site it is a whole site instead: thousands of servers that report each second what they
    served, and its power. Fails when the meter's tokens, energy or dollars are not the site's own.
    """
    _refuse_others(_FLEET_ONLY if size is not None else _SITE_ONLY, has_site=size is not None)
    meter = _find_meter()
    with truth_folder(out) as truth:
        if size is not None:
            options = SiteOptions(
                size=size,
                minutes=minutes,
                seed=seed,
                traces=traces,
                truth=truth,
                picture=picture,
                deadline_seconds=deadline_seconds,
            )
            simulate_site(client, options, meter=meter)
            return
        customers = Customers(
            accounts=accounts or find_or_create_accounts(client.accounts),
            tiers=tiers,
            models=models,
            pools=pools or (),
        )
        workload = Workload(
            traces=traces, request_count=request_count, seed=seed, customers=customers
        )
        requests_total, span_ms = _measure(workload)
        report_end_ms = time_ns() // 1_000_000 + (int(span_ms / speed) if speed else 0)
        replay = Replay(
            workload=workload,
            meter=meter,
            server_count=server_count,
            end_ms=_find_end_ms(client, report_end_ms=report_end_ms),
            report_end_ms=report_end_ms,
            speed=speed,
            resend_percent=resend_percent,
            deadline_seconds=deadline_seconds,
            truth=truth,
        )
        _replay(client, replay, requests_total=requests_total)


def _replay(client: Client, replay: Replay, *, requests_total: int) -> None:
    count, truth = replay.server_count, replay.truth
    report_progress(f"{count} servers, {requests_total} requests, truth files in {truth}")
    servers = _run(replay, requests_total=requests_total)
    click.echo(_as_json(servers, replay=replay) if client.as_json else _as_table(servers, replay))
    _demand_acknowledgement(servers, replay=replay)


def _refuse_others(names: frozenset[str], *, has_site: bool) -> None:
    """Refuse options that were given and mean nothing here."""
    context = click.get_current_context()
    given = sorted(
        param.opts[0]
        for param in context.command.params
        if param.name in names
        and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT
    )
    if given:
        place = "not with --site" if has_site else "only with --site"
        raise click.UsageError(f"{', '.join(given)}: {place}")


def _find_end_ms(client: Client, *, report_end_ms: int) -> int:
    """When the last request ends: as it is reported, or now in a sandbox, whose time stands."""
    answer = client.clock.GetClock(GetClockRequest())
    return answer.now.ToMilliseconds() if answer.driven else report_end_ms


def _find_meter() -> MeterAddress:
    """Where the servers report to: the same place, with the same key, as every command."""
    given = click.get_current_context().params
    settings = load_settings(
        given["config"], flags={name: given[name] for name in ("server", "api_key", "insecure")}
    )
    target = find_target(settings)
    return MeterAddress(
        target=target.address,
        api_key=target.api_key,
        ca_certificate=settings.ca_certificate if target.tls else None,
        client_certificate=settings.client_certificate,
        client_key=settings.client_key,
        insecure=not target.tls,
    )


def _measure(workload: Workload) -> tuple[int, int]:
    """Count the requests, and the milliseconds from the first one's end to the last one's."""
    try:
        traces = workload.load()
    except TraceUnreadable as error:
        raise CommandError(str(error), code=Exit.USAGE) from error
    first = next(workload.requests())
    return sum(map(len, traces)), -first.offset_ms


def _run(replay: Replay, *, requests_total: int) -> list[Progress | None]:
    acknowledged = [0] * replay.server_count
    with click.progressbar(range(requests_total), label="acknowledged", file=sys.stderr) as bar:

        def on_progress(progress: Progress) -> None:
            bar.update(progress.acknowledged - acknowledged[progress.server_index])
            acknowledged[progress.server_index] = progress.acknowledged

        return run_fleet(replay, on_progress=on_progress)


def _as_json(servers: Sequence[Progress | None], *, replay: Replay) -> str:
    rows = [asdict(server) if server else None for server in servers]
    accounts = replay.workload.customers.accounts
    return json.dumps({"truth": str(replay.truth), "accounts": accounts, "servers": rows})


def _as_table(servers: Sequence[Progress | None], replay: Replay) -> str:
    rows = [["server", *(name.replace("_", " ") for name in _COUNTS)]]
    for index, server in enumerate(servers):
        counts = [str(getattr(server, name)) if server else "?" for name in _COUNTS]
        rows.append([replay.producer(index), *counts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _demand_acknowledgement(servers: Sequence[Progress | None], *, replay: Replay) -> None:
    """Fail when a process died, or has sent what was not acknowledged."""
    died = [
        replay.producer(index)
        for index, server in enumerate(servers)
        if server is None or not server.is_final
    ]
    if died:
        raise CommandError(f"ended without a report: {', '.join(died)}")
    missing = sum(server.sent - server.acknowledged for server in servers if server)
    if missing:
        raise CommandError(
            f"{missing} requests were not acknowledged within {replay.deadline_seconds:g} s"
        )
