"""`tokenworks usage observed`: who reported a request, what each said, and whose report counts."""

import json
from collections.abc import Sequence
from typing import Final

import click

from cli.accounts import format_time, print_table
from cli.connection import Client, client_command
from cli.usage.event import event_to_json, printable, summarise_event
from cli.usage.query import QUALITIES, class_name
from cli.usage.search import SEARCH_SECONDS_MAX, Search, search_options
from meter.domain.tokens import TokenClass
from meter.sources.rereading import find_reread
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2

_SOURCES: Final = {
    number: name.removeprefix("SOURCE_").lower() for name, number in usage_pb2.Source.items()
}
_NOT_KNOWN: Final = "-"


@click.command("observed", short_help="Who reported a request, and whose report counts.")
@click.argument("request_id", metavar="REQUEST")
@click.option(
    "--attempt",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Which try of it.",
)
@search_options(reporter_help="Whose API keys reported it; without it, the installation's own.")
@click.option(
    "--reread",
    is_flag=True,
    help="Also tell what today's tables make of the usage objects, where it is something else.",
)
@client_command
def observed(
    client: Client,
    *,
    request_id: str,
    attempt: int,
    reread: bool,
    **where: str | None,
) -> None:
    """Show all reports of the request REQUEST, in the order in which they came.

    REQUEST is the id that the edge gave it. One report is counted; DIFFERENCE is how many tokens
    each of the others says more or less. Below are the usage objects as they came. Needs an API key
    that is an operator of the whole installation.
    """
    request = pb.ListObservationsRequest(request_id=request_id, attempt=attempt)
    Search(**where).apply(client, request)
    found = client.meter.ListObservations(request, timeout=SEARCH_SECONDS_MAX).observations
    if client.as_json:
        click.echo(json.dumps([observation_to_json(it, reread=reread) for it in found], indent=2))
        return
    _show(found)
    for number, it in enumerate(found if reread else (), start=1):
        tokens = find_reread_tokens(it)
        if tokens is not None and tokens != _tokens(it):
            click.echo(f"report {number} read today: {json.dumps(tokens)}")


def observation_to_json(observation: pb.Observation, *, reread: bool = False) -> dict[str, object]:
    """Return a report as JSON has it; `raw` is the usage object, null where there is none.

    With `reread`, `reread` has the tokens that it is today, null where that cannot be told.
    """
    received = observation.receive_time
    again = {"reread": find_reread_tokens(observation)} if reread else {}
    return {
        "source": _source(observation),
        "is_counted": observation.is_counted,
        "event": event_to_json(observation.event),
        "receive_time": (received.ToJsonString() if observation.HasField("receive_time") else None),
        "difference_count": observation.difference_count,
        "profile": observation.profile,
        "raw": json.loads(observation.raw) if observation.raw else None,
        **again,
    }


def find_reread_tokens(observation: pb.Observation) -> dict[str, int] | None:
    """Return what today's tables make of a usage object, by token class; None for no object."""
    if not observation.raw:
        return None
    found = find_reread(observation.profile, json.loads(observation.raw))
    return None if found is None else {TokenClass(it).name.lower(): n for it, n in found.items()}


def _tokens(observation: pb.Observation) -> dict[str, int]:
    return {class_name(it.token_class): it.count for it in observation.event.tokens}


def _show(found: Sequence[pb.Observation]) -> None:
    first = found[0].event
    if first.event_id:
        click.echo(f"event {first.event_id}, ended {_ended(first)}")
    print_table(
        ["report", "counted", "source", "received", "quality", "difference", "says", "read by"],
        ([str(number), *_cells(it)] for number, it in enumerate(found, start=1)),
    )
    if not any(it.is_counted for it in found):
        click.echo("None of them is counted: a person has corrected it, see")
        click.echo("  tokenworks usage corrections")
    for number, it in enumerate(found, start=1):
        if it.raw:
            click.echo(f"report {number} as it came: {printable(it.raw)}")


def _cells(observation: pb.Observation) -> list[str]:
    event, difference = observation.event, observation.difference_count
    has_time = observation.HasField("receive_time")
    return [
        "yes" if observation.is_counted else "",
        _source(observation),
        format_time(observation.receive_time) if has_time else _NOT_KNOWN,
        QUALITIES.get(event.quality, str(event.quality)),
        f"{difference:+,}" if difference else "",
        summarise_event(event),
        observation.profile or _NOT_KNOWN,
    ]


def _source(observation: pb.Observation) -> str:
    # The claim of a request that ended long ago is forgotten, and with it who reported it.
    number = observation.source
    return _SOURCES.get(number, str(number)) if number else _NOT_KNOWN


def _ended(event: usage_pb2.UsageEvent) -> str:
    return format_time(event.end_time)
