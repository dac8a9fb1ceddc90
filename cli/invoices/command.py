"""The group that joins the commands of `tokenworks invoices`."""

import click

from cli.invoices.approve import approve
from cli.invoices.correct import correct
from cli.invoices.credit import credit, void
from cli.invoices.explain import explain
from cli.invoices.listing import list_invoices
from cli.invoices.pay import pay
from cli.invoices.preview import preview
from cli.invoices.show import show


@click.group("invoices")
def invoices() -> None:
    """Preview, list, show and explain invoices; correct, credit and void them; record payments."""


for _command in (preview, list_invoices, show, explain, approve, credit, void, correct, pay):
    invoices.add_command(_command)
