"""`tokenworks invoices show`: a document that was issued."""

import sys
from pathlib import Path

import click

from cli.connection import Client, client_command
from cli.invoices.forms import FORMATS, write_document
from cli.process import CommandError, Exit, report_progress
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("show")
@click.argument("number")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text")
@click.option(
    "--out",
    "path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to a file, as it is kept.",
)
@client_command
def show(client: Client, *, number: str, form: str, path: Path | None) -> None:
    """Print an invoice or credit note as text, HTML, PDF, CSV or JSON."""
    form = "json" if client.as_json else form
    if form == "pdf" and path is None and sys.stdout.isatty():
        raise CommandError(
            "a PDF is not written to a terminal: name a file with --out", code=Exit.USAGE
        )
    request = pb.GetInvoiceRequest(number=number, format=FORMATS[form])
    document = client.billing.GetInvoice(request).document
    if path is None:
        write_document(document)
        return
    try:
        path.write_bytes(document)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    report_progress(f"{path}: {len(document):,} bytes")
