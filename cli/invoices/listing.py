"""`tokenworks invoices list`: documents in short, page by page."""

import json
from collections.abc import Iterator
from typing import Final

import click

from cli.accounts import resolve
from cli.connection import Client, client_command
from cli.invoices.summaries import print_summaries, summary_to_json
from tokenworks.billing.v1 import billing_service_pb2 as pb

_PAGE_SIZE: Final = 1_000
_STATES: Final = {
    "issued": pb.DOCUMENT_STATE_ISSUED,
    "paid": pb.DOCUMENT_STATE_PAID,
    "void": pb.DOCUMENT_STATE_VOID,
}


@click.command("list")
@click.argument("account", required=False)
@click.option("--month", metavar="MONTH", help="Only those of a month, such as 2026-10.")
@click.option("--state", type=click.Choice(list(_STATES)), help="Only those that stand so.")
@client_command
def list_invoices(
    client: Client, *, account: str | None, month: str | None, state: str | None
) -> None:
    """List all documents, or those of the contracts that cover ACCOUNT."""
    request = pb.ListInvoicesRequest(
        account=resolve(client.accounts, account) if account else "",
        month=month or "",
        page_size=_PAGE_SIZE,
    )
    if state is not None:
        request.state = _STATES[state]
    found = list(_list_all(client, request))
    if client.as_json:
        click.echo(json.dumps([summary_to_json(it) for it in found], indent=2))
    else:
        print_summaries(found)


def _list_all(client: Client, request: pb.ListInvoicesRequest) -> Iterator[pb.InvoiceSummary]:
    while True:
        answer = client.billing.ListInvoices(request)
        yield from answer.invoices
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
