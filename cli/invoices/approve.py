"""`tokenworks invoices approve`: lets an invoice go that is held."""

import json

import click

from cli.connection import PRICING_SECONDS_MAX, Client, client_command
from cli.invoices.summaries import print_summaries, summary_to_json
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("approve")
@click.argument("contract")
@click.argument("month")
@click.option("--reason", required=True, help="Why; it stands in the audit log.")
@client_command
def approve(client: Client, *, contract: str, month: str, reason: str) -> None:
    """Issue the invoice of CONTRACT for MONTH that is held as the first, or far above the last.

    Look at it before: `tokenworks billing close MONTH --dry-run`, `tokenworks invoices preview`.
    """
    request = pb.ApproveInvoiceRequest(contract=contract, month=month, reason=reason)
    found = client.billing.ApproveInvoice(request, timeout=PRICING_SECONDS_MAX).periods
    if client.as_json:
        shown = [summary_to_json(it.invoice) for it in found]
        click.echo(json.dumps({"invoices": shown}, indent=2))
    else:
        print_summaries(it.invoice for it in found)
