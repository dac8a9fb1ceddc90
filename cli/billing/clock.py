"""`tokenworks billing clock`: the installation's time, and in a sandbox its way forward."""

import json
from datetime import UTC, datetime
from typing import Final

import click

from cli.billing.driving import Closed, Driver
from cli.connection import Client, client_command
from cli.process import CommandError, Exit
from tokenworks.billing.v1 import billing_service_pb2 as billing_pb
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
@click.option(
    "--close",
    "closes",
    is_flag=True,
    help="Close each month on the way, as soon as it may be closed.",
)
@client_command
def clock(client: Client, *, to: datetime | None, closes: bool) -> None:
    """Show the time that the installation lives by; with --to, move a sandbox's clock first.

    On the way each quarter of an hour is passed: energy sources are read, and at each midnight in
    UTC all is counted and the day's cut is taken. With --close the clock stops wherever a month
    may be closed, and says what came of it. What breaks off goes on with the same command.
    """
    if closes and to is None:
        raise CommandError("--close needs --to: it closes on the way", code=Exit.USAGE)
    moved: list[tuple[str, str | int]] = []
    closed: list[Closed] = []
    if to is not None and closes:
        moved, closed = _live(client, to=to)
    elif to is not None:
        moved = _move(client, to=to)
    told = client.clock.GetClock(pb.GetClockRequest())
    now = told.now.ToJsonString()
    if client.as_json:
        shown: dict[str, object] = {"now": now, "driven": told.driven, **dict(moved)}
        if closes:
            shown["closed"] = list(map(_to_json, closed))
        click.echo(json.dumps(shown, indent=2))
        return
    for name, value in (("now", now), ("clock", _KINDS[told.driven]), *moved):
        click.echo(f"{name:<6} {value if isinstance(value, str) else format(value, ',')}")


def _move(client: Client, *, to: datetime) -> list[tuple[str, str | int]]:
    request = pb.AdvanceClockRequest()
    request.to.FromDatetime(to)
    answer = client.clock.AdvanceClock(request, timeout=_ADVANCE_SECONDS_MAX)
    return [
        ("from", answer.start_time.ToJsonString()),
        ("edges", answer.edge_count),
        ("cuts", answer.cut_count),
    ]


def _live(client: Client, *, to: datetime) -> tuple[list[tuple[str, str | int]], list[Closed]]:
    """Move the clock with its closes; tells of each at once, unless the result is to be JSON."""
    begin = client.clock.GetClock(pb.GetClockRequest())
    if not begin.driven or to < begin.now.ToDatetime(UTC):
        # Refused by the server, in its own words.
        _move(client, to=to)
    driver = Driver(client)
    closed = []
    for each in driver.drive(to):
        closed.append(each)
        if not client.as_json:
            click.echo(_to_line(each))
    moved: list[tuple[str, str | int]] = [
        ("from", begin.now.ToJsonString()),
        ("edges", driver.edge_count),
        ("cuts", driver.cut_count),
    ]
    return moved, closed


def _to_line(closed: Closed) -> str:
    invoice = closed.period.invoice
    words = [f"{closed.time:%Y-%m-%d %H:%M}", invoice.month, invoice.contract, _outcome(closed)]
    if invoice.number:
        words.append(invoice.number)
    if invoice.currency:
        words.append(f"{invoice.total} {invoice.currency}")
    if closed.period.exception:
        words.append(f"({closed.period.exception})")
    return "  ".join(words)


def _to_json(closed: Closed) -> dict[str, object]:
    invoice = closed.period.invoice
    return {
        "time": closed.time.isoformat().replace("+00:00", "Z"),
        "month": invoice.month,
        "contract": invoice.contract,
        "outcome": _outcome(closed).replace(" ", "_"),
        "number": invoice.number,
        "total": invoice.total,
        "currency": invoice.currency,
        "exception": closed.period.exception,
    }


def _outcome(closed: Closed) -> str:
    name = billing_pb.CloseOutcome.Name(closed.period.outcome)
    return name.removeprefix("CLOSE_OUTCOME_").lower().replace("_", " ")
