"""`tokenworks usage record`: one event by hand."""

import json
import uuid
from collections.abc import Callable
from typing import Final, TypeAlias

import click
import grpc
from google.protobuf.json_format import ParseDict

from cli.accounts import resolve
from cli.connection import Client, client_command, find_now_ms
from cli.process import CommandError, Exit, report_progress
from cli.usage.query import FINISHES, MODES, QUALITIES, TOKEN_CLASSES
from cli.usage.span import check_time, to_ms
from meter.domain.limits import ATTEMPT_MAX, DURATION_MS_MAX, TOKEN_COUNT_MAX
from meter.domain.outcome import FIRST_QUARANTINED
from meter.runtime.ids import random_bytes
from tokenworks.meter.v1 import meter_service_pb2, outcome_pb2, usage_pb2

_ID_BYTES: Final = 16
_Command: TypeAlias = Callable[..., None]
_MEANINGS: Final = {
    "input": "Prompt tokens computed anew.",
    "cache_read": "Prompt tokens taken from a cache.",
    "cache_write_5m": "Prompt tokens written to a cache, for 5 minutes.",
    "cache_write_30m": "… for 30 minutes.",
    "cache_write_1h": "… for 1 hour.",
    "cache_write_12h": "… for 12 hours.",
    "output": "Tokens delivered to the caller.",
    "reasoning": "Tokens generated and not delivered.",
}


def _at_most(limit: int) -> Callable[..., int | None]:
    """A check of an option's number, which shows its limit only when it is passed."""

    def check(context: click.Context, param: click.Parameter, value: int | None) -> int | None:
        if value is not None and not 0 <= value <= limit:
            raise click.BadParameter(f"{value:,} is not 0 to {limit:,}.", context, param)
        return value

    return check


_COUNTS: Final = [
    click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=int,
        callback=_at_most(TOKEN_COUNT_MAX),
        metavar="N",
        help=_MEANINGS.get(name),
    )
    for name in TOKEN_CLASSES.values()
]
_OPTIONS: Final[tuple[Callable[[_Command], _Command], ...]] = (
    click.option("--account", required=True, metavar="ACCOUNT", help="Whose request it was."),
    click.option("--model", required=True, metavar="NAME", help="Model as it was asked for."),
    click.option("--tier", required=True, metavar="NAME", help="Tier sold."),
    *_COUNTS,
    click.option(
        "--finish",
        type=click.Choice(list(FINISHES.values())),
        default="completed",
        show_default=True,
        help="How the request ended.",
    ),
    click.option(
        "--quality",
        type=click.Choice(list(QUALITIES.values())),
        default="final",
        show_default=True,
        help="How sure the counts are.",
    ),
    click.option(
        "--mode",
        type=click.Choice(list(MODES.values())),
        default="online",
        show_default=True,
        help="Whether someone waited for the answer.",
    ),
    click.option("--served-model", default="", metavar="NAME", help="Model that answered."),
    click.option(
        "--pool", default="", metavar="NAME", help="Group of accelerators that served it."
    ),
    click.option("--region", default="", metavar="NAME", help="Region that served it."),
    click.option(
        "--end-time", callback=check_time, metavar="TIME", help="When it ended; without it, now."
    ),
    click.option(
        "--duration-ms",
        type=int,
        callback=_at_most(DURATION_MS_MAX),
        default=0,
        metavar="MS",
        help="How long it took.",
    ),
    click.option("--request-id", default="", metavar="ID", help="Its id in your logs."),
    click.option(
        "--attempt",
        type=int,
        callback=_at_most(ATTEMPT_MAX),
        default=0,
        metavar="N",
        help="Number of the try, where a gateway repeats requests.",
    ),
    click.option(
        "--event-id",
        metavar="ID",
        help="Name of the event, which is counted once by it. Without one, a new one.",
    ),
)


def _with_options(command: _Command) -> _Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("record", short_help="Record one event by hand.")
@_with_options
@client_command
def record(client: Client, *, account: str, event_id: str | None, **details: object) -> None:
    """Record one event by hand: a request that ended, with its tokens by class.

    Classes are disjoint: a cached prompt token is in --cache-read and not in --input. Repeating the
    command with the same --event-id, --end-time and all else counts nothing twice.
    """
    if all(details[name] is None for name in TOKEN_CLASSES.values()):
        raise click.UsageError("give at least one count: --input N, --output N, --cache-read N, …")
    account_id = resolve(client.accounts, account)
    event = _to_event(details, account_id=account_id, now_ms=find_now_ms(client))
    event.event_id = event_id or str(uuid.UUID(bytes=random_bytes(_ID_BYTES), version=4))
    request = meter_service_pb2.RecordUsageRequest(events=[event])
    try:
        number = client.meter.RecordUsage(request).outcomes[0]
    except grpc.RpcError:
        # Whether it was recorded is not known: only the same event again is counted once.
        repeat = f"--event-id {event.event_id} --end-time {event.end_time.ToJsonString()}"
        report_progress(f"to repeat it safely, add: {repeat}")
        raise
    outcome = outcome_pb2.Outcome.Name(number).removeprefix("OUTCOME_")
    if client.as_json:
        click.echo(json.dumps({"outcome": outcome, "event_id": event.event_id}, indent=2))
    else:
        for name, value in _facts(event, outcome=outcome):
            click.echo(f"{name:<8} {value}")
    if number >= FIRST_QUARANTINED:
        raise CommandError(
            f"not counted, but kept in quarantine as {outcome}; to see and decide:\n"
            "  tokenworks usage quarantine list",
            code=Exit.REFUSED,
        )
    if not client.as_json:
        since = f"{event.end_time.ToDatetime():%Y-%m-%dT%H:%M}" if details["end_time"] else "1h"
        click.echo(f"\nNext:\n  tokenworks usage show {account} --since {since}")


def _to_event(details: dict[str, object], *, account_id: str, now_ms: int) -> usage_pb2.UsageEvent:
    places = ("model", "served_model", "tier", "pool", "region")
    content = {
        "dimensions": {
            "account": account_id,
            "mode": _enum_name("MODE", details),
            **{name: details[name] for name in places},
        },
        "tokens": [
            {"token_class": number, "count": details[name]}
            for number, name in TOKEN_CLASSES.items()
            if details[name]
        ],
        "finish": _enum_name("FINISH", details),
        "quality": _enum_name("QUALITY", details),
        **{name: details[name] for name in ("duration_ms", "request_id", "attempt")},
    }
    event = ParseDict(content, usage_pb2.UsageEvent())
    ended = details["end_time"]
    event.end_time.FromMilliseconds(now_ms if ended is None else to_ms(str(ended), now_ms=now_ms))
    return event


def _enum_name(enum: str, details: dict[str, object]) -> str:
    return f"{enum}_{str(details[enum.lower()]).upper()}"


def _facts(event: usage_pb2.UsageEvent, *, outcome: str) -> list[tuple[str, str]]:
    counts = (
        f"{item.count:,} {TOKEN_CLASSES[item.token_class].replace('_', ' ')}"
        for item in event.tokens
    )
    return [
        ("outcome", outcome),
        ("event", event.event_id),
        ("account", event.dimensions.account),
        ("ended", event.end_time.ToJsonString()),
        ("tokens", ", ".join(counts) or "none"),
    ]
