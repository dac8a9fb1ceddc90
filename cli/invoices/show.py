"""`tokenworks invoices show`: a document that was issued."""

from pathlib import Path

import click

from cli.connection import Client, client_command
from cli.invoices.forms import FORMATS, OUT, require_place, write_document
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("show")
@click.argument("number")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text")
@OUT
@client_command
def show(client: Client, *, number: str, form: str, path: Path | None) -> None:
    """Print an invoice or credit note as text, HTML, PDF, CSV or JSON."""
    form = "json" if client.as_json else form
    require_place(form, path)
    request = pb.GetInvoiceRequest(number=number, format=FORMATS[form])
    write_document(client.billing.GetInvoice(request).document, path)
