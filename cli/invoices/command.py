"""The group that joins the commands of `tokenworks invoices`."""

import click

from cli.invoices.explain import explain
from cli.invoices.listing import list_invoices
from cli.invoices.preview import preview
from cli.invoices.show import show


@click.group("invoices")
def invoices() -> None:
    """Preview, list, show and explain invoices."""


for _command in (preview, list_invoices, show, explain):
    invoices.add_command(_command)
