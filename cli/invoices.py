"""`tokenworks invoices preview|list|show|explain`."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from cli.accounts import format_time, print_table, resolve
from cli.connection import PRICING_SECONDS_MAX, Client, client_command
from cli.process import CommandError, report_progress
from tokenworks.billing.v1 import billing_service_pb2 as pb

_PAGE_SIZE: Final = 1_000
_FORMATS: Final = {
    "text": pb.DOCUMENT_FORMAT_TEXT,
    "json": pb.DOCUMENT_FORMAT_JSON,
    "html": pb.DOCUMENT_FORMAT_HTML,
    "csv": pb.DOCUMENT_FORMAT_CSV,
}


@click.group("invoices")
def invoices() -> None:
    """Preview, list, show and explain invoices."""


@invoices.command("preview")
@click.argument("account")
@click.option("--month", metavar="MONTH", help="Such as 2026-10; else the current one.")
@click.option("--format", "form", type=click.Choice(list(_FORMATS)), default="text")
@client_command
def preview(client: Client, *, account: str, month: str | None, form: str) -> None:
    """Show what the invoice for ACCOUNT would be by all that is counted now."""
    form = "json" if client.as_json else form
    request = pb.PreviewInvoiceRequest(
        account=resolve(client.accounts, account), month=month or "", format=_FORMATS[form]
    )
    answer = client.billing.PreviewInvoice(request, timeout=PRICING_SECONDS_MAX)
    if client.as_json:
        documents = b",".join(it.document.strip() for it in answer.previews)
        _write(b"[" + documents + b"]\n")
        return
    _write(b"\n".join(it.document for it in answer.previews))


@invoices.command("list")
@click.argument("account", required=False)
@click.option("--month", metavar="MONTH", help="Only those of a month, such as 2026-10.")
@client_command
def list_invoices(client: Client, *, account: str | None, month: str | None) -> None:
    """List all invoices, or those of the contracts that cover ACCOUNT."""
    account_id = resolve(client.accounts, account) if account else ""
    found = list(_list_all(client, account_id=account_id, month=month or ""))
    if client.as_json:
        click.echo(json.dumps([summary_to_json(it) for it in found], indent=2))
    else:
        print_summaries(found)


@invoices.command("show")
@click.argument("number")
@click.option("--format", "form", type=click.Choice(list(_FORMATS)), default="text")
@client_command
def show(client: Client, *, number: str, form: str) -> None:
    """Print an invoice as text, HTML, CSV or JSON."""
    form = "json" if client.as_json else form
    request = pb.GetInvoiceRequest(number=number, format=_FORMATS[form])
    _write(client.billing.GetInvoice(request).document)


@invoices.command("explain")
@click.argument("number")
@click.argument("line", type=click.IntRange(min=1))
@client_command
def explain(client: Client, *, number: str, line: int) -> None:
    """Explain LINE of an invoice: price, factors, intervals of usage, positions in the journal."""
    form = _FORMATS["json" if client.as_json else "text"]
    request = pb.ExplainInvoiceLineRequest(number=number, line=line, format=form)
    answer = client.billing.ExplainInvoiceLine(request, timeout=PRICING_SECONDS_MAX)
    _write(answer.document)
    if not answer.closed:
        raise CommandError(
            "usage or journal do not add up to the line: keep both, and ask for help"
        )


def print_summaries(found: Iterable[pb.InvoiceSummary]) -> None:
    """Print invoices in short, a row each."""
    rows = [
        [
            it.number or "-",
            it.account,
            it.buyer,
            it.month,
            f"{it.total} {it.currency}",
            str(it.line_count),
            format_time(it.issue_time) if it.HasField("issue_time") else "-",
            it.due_date or "-",
        ]
        for it in found
    ]
    if rows:
        print_table(
            ["number", "account", "buyer", "month", "total", "lines", "issued", "due"], rows
        )
    else:
        report_progress("no invoices")


def summary_to_json(summary: pb.InvoiceSummary) -> dict[str, object]:
    """Return an invoice in short as JSON has it; a draft's number and issue are null."""
    is_issued = summary.HasField("issue_time")
    return {
        "number": summary.number or None,
        "contract": summary.contract,
        "account": summary.account,
        "buyer": summary.buyer,
        "month": summary.month,
        "start_time": summary.start_time.ToJsonString(),
        "end_time": summary.end_time.ToJsonString(),
        "currency": summary.currency or None,
        "total": summary.total or None,
        "line_count": summary.line_count,
        "issue_time": summary.issue_time.ToJsonString() if is_issued else None,
        "due_date": summary.due_date or None,
        "sandbox": summary.sandbox,
    }


def _list_all(client: Client, *, account_id: str, month: str) -> Iterator[pb.InvoiceSummary]:
    request = pb.ListInvoicesRequest(account=account_id, month=month, page_size=_PAGE_SIZE)
    while True:
        answer = client.billing.ListInvoices(request)
        yield from answer.invoices
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _write(document: bytes) -> None:
    """Write a document as it came, whatever the terminal's encoding is."""
    out: Any = sys.stdout
    out.flush()
    out.buffer.write(document)
    out.buffer.flush()
