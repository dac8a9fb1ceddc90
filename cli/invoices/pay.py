"""`tokenworks invoices pay`: money that came in."""

import json
from datetime import datetime

import click

from cli.connection import Client, client_command
from cli.invoices.summaries import print_summaries, summary_to_json
from cli.process import report_progress
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("pay")
@click.argument("number")
@click.argument("amount")
@click.option("--id", "payment_id", required=True, metavar="ID", help="As the bank names it.")
@click.option(
    "--date",
    "receive_date",
    type=click.DateTime(["%Y-%m-%d"]),
    help="When it came in, as 2026-11-20; else today, where the contract is.",
)
@click.option("--currency", metavar="CODE", help="Else that of the invoice.")
@click.option("--note", default="", help="What else is to be known.")
@client_command
def pay(
    client: Client,
    *,
    number: str,
    amount: str,
    payment_id: str,
    receive_date: datetime | None,
    currency: str | None,
    note: str,
) -> None:
    """Record that AMOUNT came in for an invoice. The same payment again changes nothing."""
    if currency is None:
        currency = client.billing.GetInvoice(pb.GetInvoiceRequest(number=number)).invoice.currency
    request = pb.RecordPaymentRequest(
        payment_id=payment_id,
        number=number,
        amount=amount,
        currency=currency,
        receive_date=f"{receive_date:%Y-%m-%d}" if receive_date else "",
        note=note,
    )
    answer = client.billing.RecordPayment(request)
    if client.as_json:
        told = {"recorded": answer.recorded, "invoice": summary_to_json(answer.invoice)}
        click.echo(json.dumps(told, indent=2))
        return
    if not answer.recorded:
        report_progress(f"payment {payment_id} was recorded before; nothing changed")
    print_summaries([answer.invoice])
