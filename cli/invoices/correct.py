"""`tokenworks invoices correct`: a closed month's difference, as a document of its own."""

import json

import click

from cli.connection import PRICING_SECONDS_MAX, Client, client_command
from cli.invoices.summaries import print_summaries, summary_to_json
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("correct")
@click.argument("contract")
@click.argument("month")
@click.option("--reason", required=True, help="Why; it stands on the document.")
@click.option("--write-off", is_flag=True, help="Give the difference up instead of billing it.")
@click.option("--dry-run", is_flag=True, help="Only say what would be issued.")
@client_command
def correct(
    client: Client, *, contract: str, month: str, reason: str, write_off: bool, dry_run: bool
) -> None:
    """Issue what a closed MONTH (2026-10) of CONTRACT comes to by now, less what was billed.

    It is a supplementary invoice, or a credit note. Without it, the next close bills the
    difference in its invoice, if there is one.
    """
    request = pb.CorrectPeriodRequest(
        contract=contract, month=month, write_off=write_off, dry_run=dry_run, reason=reason
    )
    answer = client.billing.CorrectPeriod(request, timeout=PRICING_SECONDS_MAX)
    if client.as_json:
        click.echo(json.dumps([summary_to_json(it) for it in answer.documents], indent=2))
    elif answer.documents:
        print_summaries(answer.documents)
    else:
        click.echo(f"nothing is left to bill of {month}")
