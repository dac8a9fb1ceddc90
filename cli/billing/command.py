"""The group that joins the commands of `tokenworks billing`."""

import click

from cli.billing.clock import clock
from cli.billing.close import close


@click.group("billing")
def billing() -> None:
    """Close a month; show a sandbox's clock, and move it."""


for _command in (close, clock):
    billing.add_command(_command)
