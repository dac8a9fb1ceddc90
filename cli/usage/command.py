"""The group that joins the commands of `tokenworks usage`."""

import click

from cli.usage.corrections import corrections
from cli.usage.drift import drift
from cli.usage.export import export
from cli.usage.observed import observed
from cli.usage.quarantine import quarantine
from cli.usage.record import record
from cli.usage.show import show
from cli.usage.void import void


@click.group("usage")
def usage() -> None:
    """Show, record, export and correct usage; the quarantine.

    An ACCOUNT is named by its id or by its path (acme/team). A TIME is a date (2026-11-01), a date
    and time (2026-11-01T09:15, UTC unless it says otherwise), or how long ago: 90m, 12h, 7d.
    """


for _command in (show, record, drift, export, observed, void, corrections, quarantine):
    usage.add_command(_command)
