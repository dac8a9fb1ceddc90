"""`tokenworks usage void`: a recorded event that was wrong, taken back or replaced."""

import json
import re
from collections.abc import Iterator
from typing import TextIO

import click
import grpc

from cli.accounts import resolve
from cli.connection import Client, client_command
from cli.process import report_progress
from cli.usage.corrections import correction_to_json, describe_correction
from cli.usage.event import FIELDS, WrongEvent, event_from_json
from cli.usage.search import SEARCH_SECONDS_MAX, Search, search_options
from tokenworks.billing.v1 import billing_service_pb2
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2

_PLACE = re.compile(r"([A-Za-z0-9._-]{1,64}):(\d{1,18}):(\d{1,9})")
_INVOICES_AT_ONCE = 1_000


def _read_place(
    context: click.Context, param: click.Parameter, value: str | None
) -> pb.EventPlace | None:
    if value is None:
        return None
    match = _PLACE.fullmatch(value)
    if match is None:
        raise click.BadParameter(
            f"{value} is no place: write PRODUCER:SEQUENCE:INDEX, such as vllm-0:17:3.",
            context,
            param,
        )
    return pb.EventPlace(producer=match[1], sequence=int(match[2]), index=int(match[3]))


@click.command("void", short_help="Take a recorded event back, or replace it.")
@click.argument("event_id", metavar="[EVENT]", required=False)
@click.option(
    "--place",
    callback=_read_place,
    metavar="PRODUCER:SEQUENCE:INDEX",
    help="Instead of EVENT: its place in a producer's batch, as it was sent, from 0.",
)
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept.")
@click.option(
    "--replace",
    "replacement",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="Count the event of this JSON file in its place; - for stdin.",
)
@search_options(
    reporter_help="Whose API key reported it; without it, one of the installation's own."
)
@client_command
def void(
    client: Client,
    *,
    event_id: str | None,
    place: pb.EventPlace | None,
    reason: str,
    replacement: TextIO | None,
    **where: str | None,
) -> None:
    """Take the recorded event EVENT back: it counts nothing any more.

    EVENT is its id. Nothing is overwritten: the correction is kept, with who and why. Repeating the
    command is harmless. An invoice that was issued stays as it is. Needs an API key that is
    an operator of the whole installation.
    """
    if (event_id is None) is (place is None):
        raise click.UsageError("name the event by its id or by --place, one of both")
    search = Search(**where)
    request = pb.CorrectUsageRequest(place=place, reason=reason)
    if event_id is not None:
        request.event_id = event_id
    if replacement is not None:
        request.replacement.CopyFrom(_read_event(client, replacement))
    search.apply(client, request)
    correction = client.meter.CorrectUsage(request, timeout=SEARCH_SECONDS_MAX).correction
    if client.as_json:
        click.echo(json.dumps(correction_to_json(correction), indent=2))
    else:
        for name, value in describe_correction(correction):
            click.echo(f"{name:<10} {value}")
    for line in _tell_of_invoices(client, correction):
        report_progress(line)


def _read_event(client: Client, file: TextIO) -> usage_pb2.UsageEvent:
    try:
        event = event_from_json(file.read())
    except WrongEvent as error:
        raise click.BadParameter(
            f"{file.name}: {error}. It has {', '.join(FIELDS)}.", param_hint="--replace"
        ) from error
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{file.name} is not UTF-8.", param_hint="--replace") from error
    event.dimensions.account = resolve(client.accounts, event.dimensions.account)
    return event


def _tell_of_invoices(client: Client, correction: pb.Correction) -> Iterator[str]:
    """Name the invoices that were issued for the time and account of either event."""
    events = [correction.before, *([correction.after] if correction.HasField("after") else [])]
    try:
        numbers = {number for event in events for number in _invoices_of(client, event)}
    except grpc.RpcError:
        yield "whether an invoice was issued for that time is not known: this API key may not read"
        return
    for number in sorted(numbers):
        yield (
            f"invoice {number} was issued for that time and stays as it is: the difference is late"
            " usage, counted after it"
        )


def _invoices_of(client: Client, event: usage_pb2.UsageEvent) -> Iterator[str]:
    request = billing_service_pb2.ListInvoicesRequest(
        account=event.dimensions.account, page_size=_INVOICES_AT_ONCE
    )
    at_ms = event.end_time.ToMilliseconds()
    while True:
        answer = client.billing.ListInvoices(request)
        for invoice in answer.invoices:
            start, end = invoice.start_time, invoice.end_time
            if start.ToMilliseconds() <= at_ms < end.ToMilliseconds():
                yield invoice.number
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
