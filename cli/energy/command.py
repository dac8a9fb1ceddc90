"""The group that joins the commands of `tokenworks energy`."""

import click

from cli.energy.calibrate import calibrate
from cli.energy.report import report
from cli.energy.show import show
from cli.energy.sources import sources


@click.group("energy")
def energy() -> None:
    """Show what the tokens took, and where energy is measured; report it.

    Needs an API key that may read the whole installation, or report on it.
    """


for _command in (show, sources, report, calibrate):
    energy.add_command(_command)
