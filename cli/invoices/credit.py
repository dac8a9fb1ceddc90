"""`tokenworks invoices credit|void`: what was issued is taken back, in part or as a whole."""

import hashlib
import json
from typing import Final

import click

from cli.connection import Client, client_command
from cli.invoices.summaries import print_summaries, summary_to_json
from cli.process import report_progress
from tokenworks.billing.v1 import billing_service_pb2 as pb

# Of a hash: enough that no two credits of a contract ever have the same.
_ID_DIGITS: Final = 24


@click.command("credit")
@click.argument("number")
@click.argument("line", type=click.IntRange(min=1))
@click.option("--tokens", type=click.IntRange(min=1), help="So many tokens, at the line's price.")
@click.option("--amount", metavar="AMOUNT", help="So much, without tax, such as 12.50.")
@click.option("--reason", required=True, help="Why; it stands on the credit note.")
@click.option(
    "--id",
    "credit_id",
    metavar="ID",
    help="Names this credit, which is given once; without it the same words are the same credit.",
)
@client_command
def credit(
    client: Client,
    *,
    number: str,
    line: int,
    tokens: int | None,
    amount: str | None,
    reason: str,
    credit_id: str | None,
) -> None:
    """Issue a credit note for LINE of an invoice: for all that is left of it, or for a part.

    A credit is a concession: usage that comes later does not take it back.
    """
    if tokens is not None and amount is not None:
        raise click.UsageError("--tokens and --amount are two ways to say how much: give one")
    request = pb.CreditInvoiceRequest(number=number, line=line, reason=reason)
    if tokens is not None:
        request.token_count = tokens
    if amount is not None:
        request.amount = amount
    request.credit_id = credit_id or _name_of(request)
    answer = client.billing.CreditInvoice(request)
    if client.as_json:
        told = {
            "credit_id": request.credit_id,
            "issued": answer.issued,
            "credit_note": summary_to_json(answer.credit_note),
        }
        click.echo(json.dumps(told, indent=2))
        return
    if not answer.issued:
        report_progress(f"credit {request.credit_id} was given before; nothing changed")
    print_summaries([answer.credit_note])


@click.command("void")
@click.argument("number")
@click.option("--reason", required=True, help="Why; it stands on the credit note.")
@client_command
def void(client: Client, *, number: str, reason: str) -> None:
    """Take a whole invoice back by a credit note, and open its period to be issued again.

    The next close of the month issues what stands for it. Doing it again changes nothing.
    """
    answer = client.billing.VoidInvoice(pb.VoidInvoiceRequest(number=number, reason=reason))
    if client.as_json:
        told = {
            "invoice": summary_to_json(answer.invoice),
            "credit_note": summary_to_json(answer.credit_note),
        }
        click.echo(json.dumps(told, indent=2))
        return
    print_summaries([answer.invoice, answer.credit_note])


def _name_of(request: pb.CreditInvoiceRequest) -> str:
    """Return a name that the same words give again, and others do not."""
    words = (
        request.number,
        str(request.line),
        str(request.token_count),
        request.amount,
        request.reason,
    )
    return "cli-" + hashlib.sha256("\0".join(words).encode()).hexdigest()[:_ID_DIGITS]
