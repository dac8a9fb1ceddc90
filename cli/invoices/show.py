"""`tokenworks invoices show`: a document that was issued."""

import click

from cli.connection import Client, client_command
from cli.invoices.forms import FORMATS, write_document
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("show")
@click.argument("number")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text")
@client_command
def show(client: Client, *, number: str, form: str) -> None:
    """Print an invoice as text, HTML, CSV or JSON."""
    form = "json" if client.as_json else form
    request = pb.GetInvoiceRequest(number=number, format=FORMATS[form])
    write_document(client.billing.GetInvoice(request).document)
