"""`tokenworks usage quarantine list|release|reject`."""

import json
from collections.abc import Iterator
from typing import Final

import click

from cli.accounts import format_time, print_table
from cli.connection import Client, client_command
from cli.usage.event import event_to_json, printable, summarise_event
from cli.usage.query import SOURCES
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import outcome_pb2

PAGE_SIZE: Final = 1_000
_STATES: Final = {
    number: name.removeprefix("QUARANTINE_STATE_").lower()
    for name, number in pb.QuarantineState.items()
    if number
}
_ANY: Final = "any"


@click.group("quarantine", short_help="What was set aside: list it, release or reject it.")
def quarantine() -> None:
    """What was reported and not counted: list it, record it after all, or never.

    Needs an API key that is an operator of the whole installation.
    """


@quarantine.command("list")
@click.option(
    "--state",
    type=click.Choice([*_STATES.values(), _ANY]),
    default=_STATES[pb.QUARANTINE_STATE_HELD],
    show_default=True,
    help="Held entries wait for a person.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="List so many at most, the oldest first.",
)
@client_command
def list_entries(client: Client, *, state: str, limit: int) -> None:
    """List what was set aside, oldest first."""
    entries: list[pb.QuarantineEntry] = []
    more = False
    for entry in _list_all(client, state=state):
        more = len(entries) == limit
        if more:
            break
        entries.append(entry)
    if client.as_json:
        click.echo(json.dumps([_to_json(each) for each in entries], indent=2))
    elif entries:
        print_table(
            ["id", "outcome", "state", "received", "event"],
            ([*_facts(each), _summary(each)] for each in entries),
        )
        click.echo(
            "Next, when the cause is mended, or never will be:\n"
            "  tokenworks usage quarantine release ID\n"
            "  tokenworks usage quarantine reject ID --reason TEXT"
        )
    else:
        click.echo("Nothing is in quarantine." if state == _ANY else f"Nothing is {state}.")
    if more:
        click.echo(f"There are more than {limit:,}: --limit shows more.", err=True)


@quarantine.command("release")
@click.argument("entry_id", metavar="ID", type=int)
@client_command
def release(client: Client, *, entry_id: int) -> None:
    """Check entry ID again, however old it is, and record it."""
    request = pb.ReleaseQuarantineRequest(quarantine_id=entry_id)
    _print_entry(client, client.meter.ReleaseQuarantine(request).entry)


@quarantine.command("reject")
@click.argument("entry_id", metavar="ID", type=int)
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept.")
@client_command
def reject(client: Client, *, entry_id: int, reason: str) -> None:
    """Decide that entry ID is never counted."""
    request = pb.RejectQuarantineRequest(quarantine_id=entry_id, reason=reason)
    _print_entry(client, client.meter.RejectQuarantine(request).entry)


def _list_all(client: Client, *, state: str) -> Iterator[pb.QuarantineEntry]:
    request = pb.ListQuarantineRequest(page_size=PAGE_SIZE)
    if state != _ANY:
        request.state = pb.QuarantineState.Value(f"QUARANTINE_STATE_{state.upper()}")
    while True:
        answer = client.meter.ListQuarantine(request)
        yield from answer.entries
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _print_entry(client: Client, entry: pb.QuarantineEntry) -> None:
    if client.as_json:
        click.echo(json.dumps(_to_json(entry), indent=2))
        return
    names = ("id", "outcome", "state", "received", "event")
    for name, value in zip(names, [*_facts(entry), _summary(entry)], strict=True):
        click.echo(f"{name:<9} {value}")


def _facts(entry: pb.QuarantineEntry) -> list[str]:
    return [
        str(entry.quarantine_id),
        _outcome(entry),
        _STATES.get(entry.state, str(entry.state)),
        format_time(entry.received_time),
    ]


def _summary(entry: pb.QuarantineEntry) -> str:
    """Return the entry in a line, safe to print whatever was reported."""
    if not entry.HasField("event"):
        return f"batch {entry.sequence} of {entry.producer}, {entry.size_bytes:,} bytes"
    event = summarise_event(entry.event)
    if not entry.source:
        return event
    return f"{event}, by {_source(entry)}, request {printable(entry.event.request_id)}"


def _source(entry: pb.QuarantineEntry) -> str:
    return SOURCES.get(entry.source, str(entry.source))


def _outcome(entry: pb.QuarantineEntry) -> str:
    if entry.outcome not in outcome_pb2.Outcome.values():
        return str(entry.outcome)
    return outcome_pb2.Outcome.Name(entry.outcome).removeprefix("OUTCOME_")


def _to_json(entry: pb.QuarantineEntry) -> dict[str, object]:
    return {
        "quarantine_id": entry.quarantine_id,
        "outcome": _outcome(entry),
        "state": _STATES.get(entry.state, str(entry.state)),
        "received_time": entry.received_time.ToJsonString(),
        "source": _source(entry) if entry.source else None,
        "producer": entry.producer,
        "sequence": entry.sequence,
        "index": entry.index,
        "key_id": entry.key_id,
        "size_bytes": entry.size_bytes,
        "event": event_to_json(entry.event) if entry.HasField("event") else None,
    }
