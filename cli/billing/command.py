"""The group that joins the commands of `tokenworks billing`."""

import click

from cli.billing.clock import clock
from cli.billing.close import close
from cli.billing.replay import replay


@click.group("billing")
def billing() -> None:
    """Close a month, and replay it; show a sandbox's clock, and move it."""


for _command in (close, replay, clock):
    billing.add_command(_command)
