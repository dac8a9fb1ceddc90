"""`tokenworks invoices explain`: from a line back to what it was made of."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from billing.documents.format import printable
from cli.connection import PRICING_SECONDS_MAX, Client, client_command
from cli.invoices.event_files import Row, check_name, to_row, writing
from cli.invoices.forms import FORMATS, write_document
from cli.process import CommandError, report_progress
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("explain")
@click.argument("number")
@click.argument("line", type=click.IntRange(min=1))
@click.option("--events", is_flag=True, help="List the events that the line was made of.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --events: write them into FILE.csv or FILE.parquet.",
)
@client_command
def explain(client: Client, *, number: str, line: int, events: bool, out: Path | None) -> None:
    """Explain LINE of an invoice: price, factors, intervals of usage, positions in the journal.

    With --events, the events themselves, in the order of the journal: place (shard, position, row),
    end, tokens, account, request, event. With --json a line of JSON for each.
    """
    if out is not None:
        if not events:
            raise click.UsageError("--out needs --events")
        check_name(out)
    if events:
        _tell_events(client, number=number, line=line, out=out)
        return
    form = FORMATS["json" if client.as_json else "text"]
    request = pb.ExplainInvoiceLineRequest(number=number, line=line, format=form)
    answer = client.billing.ExplainInvoiceLine(request, timeout=PRICING_SECONDS_MAX)
    write_document(answer.document)
    if not answer.closed:
        raise CommandError(
            "usage or journal do not add up to the line: keep both, and ask for help"
        )


def _tell_events(client: Client, *, number: str, line: int, out: Path | None) -> None:
    count = tokens = 0
    if out is not None:
        with writing(out) as write:
            for rows in _list_events(client, number=number, line=line):
                write(rows)
                count += len(rows)
                tokens += sum(int(row["tokens"]) for row in rows)
    else:
        for rows in _list_events(client, number=number, line=line):
            for row in rows:
                if client.as_json:
                    click.echo(json.dumps(row))
                else:
                    _print(row)
            count += len(rows)
            tokens += sum(int(row["tokens"]) for row in rows)
    report_progress(f"{count:,} event{'' if count == 1 else 's'}, {tokens:,} tokens")


def _list_events(client: Client, *, number: str, line: int) -> Iterator[list[Row]]:
    request = pb.ListLineEventsRequest(number=number, line=line)
    for answer in client.billing.ListLineEvents(request, timeout=PRICING_SECONDS_MAX):
        yield [to_row(it) for it in answer.events]


def _print(row: Row) -> None:
    place = f"{row['shard']}/{row['position']}/{row['row']}"
    names = " ".join(printable(str(row[name])) for name in ("account", "request_id", "event_id"))
    click.echo(f"{place:<14} {row['end_time']} {row['tokens']:>14,} {names}".rstrip())
