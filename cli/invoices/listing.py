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


@click.command("list")
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


def _list_all(client: Client, *, account_id: str, month: str) -> Iterator[pb.InvoiceSummary]:
    request = pb.ListInvoicesRequest(account=account_id, month=month, page_size=_PAGE_SIZE)
    while True:
        answer = client.billing.ListInvoices(request)
        yield from answer.invoices
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
