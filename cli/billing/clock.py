"""`tokenworks billing clock`: the installation's time, and in a sandbox its way forward."""

import json
from datetime import UTC, datetime
from typing import Final

import click

from cli.connection import Client, client_command
from tokenworks.meter.v1 import clock_service_pb2 as pb

# A quarter of a year with a hundred energy sources to read at each of its edges.
_ADVANCE_SECONDS_MAX: Final = 3600.0
_KINDS: Final = {True: "driven: SANDBOX", False: "real"}


def _parse_time(
    context: click.Context, param: click.Parameter, value: str | None
) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value} is no time: write 2026-11-01 or 2026-11-01T09:15", context, param
        ) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


@click.command("clock")
@click.option(
    "--to",
    callback=_parse_time,
    metavar="TIME",
    help="Move a sandbox's clock there, which lies ahead: 2026-11-01 or 2026-11-01T09:15, UTC"
    " unless it says otherwise.",
)
@client_command
def clock(client: Client, *, to: datetime | None) -> None:
    """Show the time that the installation lives by; with --to, move a sandbox's clock first.

    On the way each quarter of an hour is passed: energy sources are read, and at each midnight in
    UTC all is counted and the day's cut is taken. What breaks off goes on with the same command.
    """
    moved: list[tuple[str, str | int]] = []
    if to is not None:
        request = pb.AdvanceClockRequest()
        request.to.FromDatetime(to)
        answer = client.clock.AdvanceClock(request, timeout=_ADVANCE_SECONDS_MAX)
        moved = [
            ("from", answer.start_time.ToJsonString()),
            ("edges", answer.edge_count),
            ("cuts", answer.cut_count),
        ]
    told = client.clock.GetClock(pb.GetClockRequest())
    now = told.now.ToJsonString()
    if client.as_json:
        click.echo(json.dumps({"now": now, "driven": told.driven, **dict(moved)}, indent=2))
        return
    for name, value in (("now", now), ("clock", _KINDS[told.driven]), *moved):
        click.echo(f"{name:<6} {value if isinstance(value, str) else format(value, ',')}")
