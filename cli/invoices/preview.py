"""`tokenworks invoices preview`: what an invoice would be by all that is counted now."""

from pathlib import Path

import click

from cli.accounts import resolve
from cli.connection import PRICING_SECONDS_MAX, Client, client_command
from cli.invoices.forms import FORMATS, OUT, require_place, write_document
from cli.process import CommandError, Exit
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("preview")
@click.argument("account")
@click.option("--month", metavar="MONTH", help="Such as 2026-10; else the current one.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text")
@OUT
@client_command
def preview(
    client: Client, *, account: str, month: str | None, form: str, path: Path | None
) -> None:
    """Show what the invoice for ACCOUNT would be by all that is counted now."""
    form = "json" if client.as_json else form
    require_place(form, path)
    request = pb.PreviewInvoiceRequest(
        account=resolve(client.accounts, account), month=month or "", format=FORMATS[form]
    )
    answer = client.billing.PreviewInvoice(request, timeout=PRICING_SECONDS_MAX)
    if client.as_json:
        documents = b",".join(it.document.strip() for it in answer.previews)
        write_document(b"[" + documents + b"]\n", path)
        return
    if form == "pdf" and len(answer.previews) != 1:
        # Two versions of a contract, or none: PDFs cannot stand one after the other.
        raise CommandError(
            f"{len(answer.previews)} invoices are not one PDF: take another --format",
            code=Exit.USAGE,
        )
    write_document(b"\n".join(it.document for it in answer.previews), path)
    for it in answer.previews:
        if it.HasField("close_time"):
            click.echo(_closed(it), err=True)


def _closed(preview: pb.Preview) -> str:
    invoice = preview.invoice
    closed = preview.close_time.ToDatetime().date().isoformat()
    document = f"as {preview.number}" if preview.number else "without a document"
    return (
        f"{invoice.contract} closed {invoice.month} on {closed} {document}. This is all of it by"
        f" now: {preview.difference} {invoice.currency} beyond what was billed."
    )
