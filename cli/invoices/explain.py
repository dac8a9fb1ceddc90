"""`tokenworks invoices explain`: from a line back to what it was made of."""

import click

from cli.connection import PRICING_SECONDS_MAX, Client, client_command
from cli.invoices.forms import FORMATS, write_document
from cli.process import CommandError
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("explain")
@click.argument("number")
@click.argument("line", type=click.IntRange(min=1))
@client_command
def explain(client: Client, *, number: str, line: int) -> None:
    """Explain LINE of an invoice: price, factors, intervals of usage, positions in the journal."""
    form = FORMATS["json" if client.as_json else "text"]
    request = pb.ExplainInvoiceLineRequest(number=number, line=line, format=form)
    answer = client.billing.ExplainInvoiceLine(request, timeout=PRICING_SECONDS_MAX)
    write_document(answer.document)
    if not answer.closed:
        raise CommandError(
            "usage or journal do not add up to the line: keep both, and ask for help"
        )
