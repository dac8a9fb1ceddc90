"""`tokenworks usage corrections`: what was corrected, by whom and why."""

import json
from collections.abc import Iterator
from typing import Final

import click

from cli.accounts import format_time, print_table
from cli.connection import Client, client_command
from cli.usage.event import event_to_json, summarise_event
from tokenworks.meter.v1 import meter_service_pb2 as pb

PAGE_SIZE: Final = 1_000
_NOTHING: Final = "nothing"


@click.command("corrections", short_help="What was voided and replaced, by whom and why.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="List so many at most, the oldest first.",
)
@client_command
def corrections(client: Client, *, limit: int) -> None:
    """List corrections, oldest first: what was counted until then, and what is since.

    Needs an API key that is an operator of the whole installation.
    """
    found: list[pb.Correction] = []
    more = False
    for correction in _list_all(client):
        more = len(found) == limit
        if more:
            break
        found.append(correction)
    if client.as_json:
        click.echo(json.dumps([correction_to_json(each) for each in found], indent=2))
    elif found:
        names = [name for name, _ in describe_correction(found[0])]
        print_table(names, ([value for _, value in describe_correction(it)] for it in found))
    else:
        click.echo("Nothing was corrected.")
    if more:
        click.echo(f"There are more than {limit:,}: --limit shows more.", err=True)


def describe_correction(correction: pb.Correction) -> list[tuple[str, str]]:
    """Return what a person wants to know of a correction, each with its name."""
    has_after = correction.HasField("after")
    return [
        ("id", str(correction.correction_id)),
        ("corrected", format_time(correction.correct_time)),
        ("by", correction.key_id),
        ("ended", format_time(correction.before.end_time)),
        ("before", summarise_event(correction.before)),
        ("after", summarise_event(correction.after) if has_after else _NOTHING),
        ("reason", correction.reason),
    ]


def correction_to_json(correction: pb.Correction) -> dict[str, object]:
    """Return the correction as JSON has it; `after` is null where the event was voided."""
    has_after = correction.HasField("after")
    return {
        "correction_id": correction.correction_id,
        "before": event_to_json(correction.before),
        "after": event_to_json(correction.after) if has_after else None,
        "producer": correction.place.producer,
        "sequence": correction.place.sequence,
        "index": correction.place.index,
        "key_id": correction.key_id,
        "reason": correction.reason,
        "correct_time": correction.correct_time.ToJsonString(),
    }


def _list_all(client: Client) -> Iterator[pb.Correction]:
    request = pb.ListCorrectionsRequest(page_size=PAGE_SIZE)
    while True:
        answer = client.meter.ListCorrections(request)
        yield from answer.corrections
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
