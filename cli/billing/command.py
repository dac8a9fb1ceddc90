"""The group that joins the commands of `tokenworks billing`."""

import click

from cli.billing.clock import clock
from cli.billing.close import close
from cli.billing.periods import periods, reopen
from cli.billing.replay import replay


@click.group("billing")
def billing() -> None:
    """Close months, say where each stands, replay one; show a sandbox's clock, and move it."""


for _command in (close, periods, reopen, replay, clock):
    billing.add_command(_command)
